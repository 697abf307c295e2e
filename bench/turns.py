"""This version and another one by turns: the same questions in the same minutes.

Two runs would differ by the hour. ``python -m bench.turns CHECKOUT [ROWS [PAIRS [KIND...]]]``: each version,
in a process of its own on a store of the same content that it has made itself, asks blocks of questions in
alternating order. The figure is the median of the blocks' differences with its 95 % interval (bootstrap);
half of the questions teach the index, the other half is measured. CHECKOUT: the root of the other version's
source, which runs with the libraries of this one. KIND: words of the kinds to be measured, else all. Stores
that ``STRONGROOM_TURNS_STORES`` names a directory for are kept there, and taken as they are the next time.

Over the network each version serves itself from the process that has the store, and is asked from another:
over HTTPS by its own client, over MCP by the same plain client for both (``bench.remote.Mcp``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, perf_counter, process_time
from typing import Any, Final

import numpy as np

from bench import _stores as stores
from bench import data
from bench._harness import load_average, machine, median_interval, note

_ROOT: Final = Path(__file__).parents[1]
_LEARN_S: Final = 25.0
_WARM: Final = 24
_QUESTIONS: Final = 200
_CHUNK: Final = 10_000
KINDS: Final = {
    "hybrid search": 12,
    "inside 50 %": 12,
    "keyword search": 12,
    "store() with a vector": 40,
    "hybrid over HTTPS": 12,
    "hybrid over MCP": 12,
}
REMOTE: Final = ("hybrid over HTTPS", "hybrid over MCP")


def _serve(store: Path, rows: int) -> None:
    """The process of one version: builds, learns, then answers ``kind start count`` with its times."""
    import strongroom

    corpus = data.make(rows, 7, queries=_QUESTIONS)
    learn, ask = corpus.queries[: _QUESTIONS // 2], corpus.queries[_QUESTIONS // 2 :]
    is_new = not store.exists()
    if is_new:
        strongroom.init(store, config=stores.config())
    with strongroom.open(store, worker=False) as room:
        for start in range(0, rows if is_new else 0, _CHUNK):
            room.store_many(corpus.items(stores.NAMESPACE, start, _CHUNK))
        until = monotonic() + (_LEARN_S if is_new else 0.0)
        room.search(learn[0], namespaces=[stores.NAMESPACE])
        room.engine.indexes.wait_verified(stores.VERIFY_S)
        while monotonic() < until:
            for question in learn:
                room.search(question, namespaces=[stores.NAMESPACE])

        def search(i: int, **more: Any) -> None:
            room.search(ask[i % len(ask)], namespaces=[stores.NAMESPACE], k=10, **more)

        def put(i: int) -> None:
            text, vector = corpus.texts[i % rows], corpus.vectors[i % rows]
            room.store(text, namespace="company_b/other", subject=f"user:{i % 10}", embedding=vector)

        work: dict[str, Callable[[int], None]] = {
            "hybrid search": search,
            "inside 50 %": lambda i: search(i, where="kind = 'observation'"),
            "keyword search": lambda i: search(i, mode="keyword"),
            "store() with a vector": put,
        }
        with _served(room.engine, store) as address:
            print(json.dumps([str(Path(strongroom.__file__).parents[2]), *address]), flush=True)
            _answer_orders(work)


@contextmanager
def _served(engine: Any, store: Path) -> Iterator[tuple[str, str, str]]:
    """Serve an opened store on a free port: its address, the file of its authority, an API key."""
    from strongroom.servers.serve import ServerThread, server_files
    from strongroom.servers.tls import create_local_ca

    tls = store.with_name(store.name + ".keys") / "tls"
    if not tls.exists():
        create_local_ca(tls)
    certificate, private_key = server_files(store, stores.config())
    key = engine.owner_session().keys_create("turns", "read-write", [stores.NAMESPACE])[1]
    with ServerThread(engine, stores.config(), certificate=certificate, private_key=private_key) as server:
        yield server.url, str(certificate.with_name("ca.pem")), key


def _ask_from_outside(url: str, ca: str, key: str, rows: int) -> None:
    """The process that asks one version over the network."""
    import httpx

    import strongroom
    from bench.remote import Mcp
    from strongroom.client._tls import client_context

    ask = data.make(rows, 7, queries=_QUESTIONS).queries[_QUESTIONS // 2 :]
    http = httpx.Client(
        base_url=url,
        verify=client_context(Path(ca)),
        trust_env=False,
        headers={"authorization": f"Bearer {key}"},
    )
    mcp = Mcp(http)
    with strongroom.connect(url, api_key=key, ca=ca) as room, http:

        def https(i: int) -> None:
            room.search(ask[i % len(ask)], namespaces=[stores.NAMESPACE], k=10)

        print(json.dumps([str(Path(strongroom.__file__).parents[2])]), flush=True)
        _answer_orders(
            {"hybrid over HTTPS": https, "hybrid over MCP": lambda i: mcp.search(ask[i % len(ask)])}
        )


def _answer_orders(work: dict[str, Callable[[int], None]]) -> None:
    """Answer ``kind start count`` with the times, and the processor time of one, until there are no more."""
    for line in sys.stdin:
        kind, start, count = json.loads(line)
        before, times = process_time(), []
        for i in range(start, start + count):
            began = perf_counter()
            work[kind](i)
            times.append(perf_counter() - began)
        print(json.dumps([times, (process_time() - before) / count]), flush=True)


class _Side:
    """A process of one of the two versions."""

    def __init__(self, root: Path, *arguments: str) -> None:
        path = os.pathsep.join([str(root / "src"), str(_ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.turns", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.version, *self.address = self._answer()
        if Path(self.version) != root:
            raise RuntimeError(f"the process does not run the version of {root}")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of a version has ended")
        return json.loads(line)

    def ask(self, kind: str, start: int, count: int) -> tuple[list[float], float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([kind, start, count]) + "\n")
        self._process.stdin.flush()
        times, processor = self._answer()
        return times, processor

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _row(kind: str, sides: Sequence[_Side], pairs: int) -> str:
    count = KINDS[kind]
    times: tuple[list[list[float]], list[list[float]]] = ([], [])
    processor: tuple[list[float], list[float]] = ([], [])
    for side in sides:
        side.ask(kind, 0, _WARM)
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            found, cpu = sides[which].ask(kind, pair * count, count)
            times[which].append(found)
            processor[which].append(cpu)
    old, new = (np.array(t) * 1e3 for t in times)
    less = np.median(old, axis=1) - np.median(new, axis=1)
    middle, low, high = median_interval(less.tolist(), 0)
    shown = " | ".join(f"{np.median(t):.2f} / {np.quantile(t, 0.99):.2f}" for t in (old, new))
    spent = " and ".join(f"{np.median(p) * 1e3:.2f}" for p in processor)
    return f"| {kind} | {shown} | {middle:.2f} ({low:.2f} to {high:.2f}); processor time {spent} |"


def main() -> int:
    """Measure, and print a table."""
    if sys.argv[1:2] == ["--side"]:
        _serve(Path(sys.argv[2]), int(sys.argv[3]))
        return 0
    if sys.argv[1:2] == ["--client"]:
        url, ca, key, number = sys.argv[2:6]
        _ask_from_outside(url, ca, key, int(number))
        return 0
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "src" / "strongroom").is_dir():
        print(
            "error: name the root of another checkout\nhint: python -m bench.turns CHECKOUT", file=sys.stderr
        )
        return 2
    other = Path(sys.argv[1]).resolve()
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 80
    kinds = [k for k in KINDS if not sys.argv[4:] or any(word in k for word in sys.argv[4:])]
    before = load_average()
    with ExitStack() as stack:
        work = os.environ.get("STRONGROOM_TURNS_STORES") or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="strongroom-bench-")
        )
        note("building and learning, one after the other")
        roots = {"other": other, "this": _ROOT}
        sides = [_Side(r, "--side", str(Path(work) / name), str(rows)) for name, r in roots.items()]
        outside = [
            _Side(r, "--client", *s.address, str(rows)) for r, s in zip(roots.values(), sides, strict=True)
        ]
        print(
            "| p50 / p99, ms | other | this | less, median of the blocks (95 % interval) |\n|---|---|---|---|"
        )
        for kind in kinds:
            print(_row(kind, outside if kind in REMOTE else sides, pairs), flush=True)
        for side in (*outside, *sides):
            side.close()
        processor, after = machine(Path(work))["processor"], load_average()
        print(f"{processor}; {rows:,} memories, {pairs} pairs; load average {before} before, {after} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
