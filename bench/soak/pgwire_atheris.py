"""Feed the wire protocol with what atheris finds by coverage: no crash, no hang, no growing memory.

    python -m bench.soak.pgwire_atheris [SECONDS] [SEED]

An input is a list of pieces as a socket might give them: the first byte says where the conversation begins
and how long the pieces are. Ends with a non-zero exit status, and the input in the current directory of the
run, when something else than an error of the protocol comes out, one input takes longer than ten
seconds, or the process holds more than 2 GiB. libFuzzer, from the conversations of ``pgwire_fuzz``.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["strongroom.servers.pgwire"]):
    from tests.pgwire.test_wire_values import converse

    import strongroom.servers.pgwire._decode
    import strongroom.servers.pgwire._messages
    import strongroom.servers.pgwire._scan
    import strongroom.servers.pgwire._session
    import strongroom.servers.pgwire._startup  # noqa: F401
    from bench.soak.pgwire_fuzz import conversation

_SIZES = (1, 5, 17, 64, 200, 1000, 4096, 65_536)


def pieces(data: bytes) -> list[bytes]:
    """Cut an input as its first byte says."""
    if not data:
        return []
    size = _SIZES[data[0] % len(_SIZES)]
    body = data[1:]
    return [body[i : i + size] for i in range(0, len(body), size)]


def one(data: bytes) -> None:
    """One input; whatever is raised here is a crash."""
    converse(pieces(data))


def main() -> int:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    corpus = Path(tempfile.mkdtemp(prefix="strongroom-atheris-"))
    random_ = random.Random(seed)
    for number in range(60):
        parts = conversation(random_)
        begin = 0 if number % 3 == 0 else 3
        (corpus / f"seed-{number}").write_bytes(bytes([number % 256]) + b"".join(parts[begin:]))
    options = [
        f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096",
        "-print_final_stats=1", f"-artifact_prefix={corpus}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
