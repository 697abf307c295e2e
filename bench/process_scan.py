"""``python -m bench.process_scan [--memories N] [--json FILE]``: which secrets are found where in a process.

Needs root and gdb's gcore. For each way of running (protection on or off, namespace open or sealed in memory,
freed memory scrubbed or not) a process opens a store, loads its namespace, answers searches, forgets the
answers and waits; another one stores the memories itself. Their core (gcore) and their whole memory as root
sees it (/proc/PID/mem) are searched for the secrets byte by byte. docs/memory.md holds the result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import strongroom
from bench._scan_child import DIMENSIONS, NAMESPACE, content_of, vector_of
from strongroom.config import Config, EmbeddingConfig, load_config
from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.engine import Engine
from strongroom.keyring import DataKey, PurposeKey
from strongroom.pages import UNSAFE_VARIABLE

_SCRUB = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}
_CANARY = re.compile(rb"canary (\d{5}) ([0-9a-f]{40})")
_RUN = re.compile(rb"[0-9a-f]{16,40}")
_FRAGMENT = 16
_PIECE_BYTES = 1 << 16
_VECTORS = 10
_ZEROS = bytes(_PIECE_BYTES)


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running."""

    task: str  # load, store
    sealed: bool
    scrub: bool
    protected: bool

    def __str__(self) -> str:
        return ", ".join(
            (
                "load and search" if self.task == "load" else "store",
                "sealed in memory" if self.sealed else "open in memory",
                "freed memory scrubbed" if self.scrub else "not scrubbed",
                "protection on" if self.protected else "protection off",
            )
        )


@dataclass(slots=True)
class Found:
    """What was found in one image. ``contents`` does not count what the process was to return."""

    bytes_read: int = 0
    keys: dict[str, int] = field(default_factory=dict)
    contents: int = 0
    fragments: int = 0
    vectors: int = 0


@dataclass(slots=True)
class Secrets:
    """What to look for."""

    keys: dict[str, bytes]
    canaries: int
    fragments: dict[bytes, int]
    vectors: list[bytes]


def _sha512_state(block: bytes) -> bytes:
    """The chaining value after one block, as OpenSSL holds it in memory (FIPS 180-4, 6.4)."""
    primes = [n for n in range(2, 410) if all(n % d for d in range(2, int(n**0.5) + 1))][:80]
    mask = (1 << 64) - 1

    def root(n: int, power: int) -> int:
        low, high = 0, n << 64
        while low < high:  # floor(n ** (1 / power) * 2**64)
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**power <= n << (64 * power) else (low, middle - 1)
        return low & mask

    def turn(x: int, n: int) -> int:
        return (x >> n | x << (64 - n)) & mask

    constants = [root(p, 3) for p in primes]
    start = [root(p, 2) for p in primes[:8]]
    w = [int.from_bytes(block[i : i + 8], "big") for i in range(0, 128, 8)]
    for t in range(16, 80):
        s0 = turn(w[t - 15], 1) ^ turn(w[t - 15], 8) ^ w[t - 15] >> 7
        s1 = turn(w[t - 2], 19) ^ turn(w[t - 2], 61) ^ w[t - 2] >> 6
        w.append((s1 + w[t - 7] + s0 + w[t - 16]) & mask)
    a, b, c, d, e, f, g, h = start
    for t in range(80):
        t1 = h + (turn(e, 14) ^ turn(e, 18) ^ turn(e, 41)) + (e & f ^ ~e & g) + constants[t] + w[t]
        t2 = (turn(a, 28) ^ turn(a, 34) ^ turn(a, 39)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t1 + t2) & mask, a, b, c, (d + t1) & mask, e, f, g
    out = [(x + y) & mask for x, y in zip(start, (a, b, c, d, e, f, g, h), strict=True)]
    return b"".join(x.to_bytes(8, sys.byteorder) for x in out)


def hmac_state(key: bytes) -> bytes:
    """The state of HMAC-SHA512 under ``key`` after its inner block: as good as the key."""
    return _sha512_state(bytes(b ^ 0x36 for b in key.ljust(128, b"\0")))


def _self_check() -> None:
    """The compression above is SHA-512: one block of ``abc``."""
    block = (b"abc\x80").ljust(120, b"\0") + (24).to_bytes(8, "big")
    state = _sha512_state(block)
    words = b"".join(state[i : i + 8][:: -1 if sys.byteorder == "little" else 1] for i in range(0, 64, 8))
    assert words == hashlib.sha512(b"abc").digest()


def _secret_of(key: DataKey | PurposeKey) -> SecretKey:
    assert key._secret is not None, "its lease is over"
    return key._secret


def secrets_of(directory: Path, key_text: str, memories: int) -> Secrets:
    """The keys of a store, read from its files by who holds them."""
    engine = Engine.open(directory, worker=False)
    try:
        keyring = engine.vault.keyring
        cache = keyring._cache  # type: ignore[attr-defined]
        entry = engine.registry.get(NAMESPACE)
        assert entry is not None
        data = keyring.data_key(entry.ns, None, create=False)
        _, namespace_key = cache.namespaces.newest(entry.ns)
        key_file = directory.with_name(directory.name + ".keys") / load_config(directory).keys.key_file
        master = key_file.read_bytes()[76:108]
        named = {
            "master key": master,
            "master key, derived": expose(SecretKey.from_bytes(master).derive("kms-local-wrap")),
            "namespace key": expose(namespace_key),
            "data key": expose(_secret_of(data)),
            "purpose key": expose(_secret_of(engine.vault.purpose_key(entry.ns, "blind-index"))),
        }
        for name in list(named):
            named[f"{name}, as HMAC state"] = hmac_state(named[name])
        named["API key"] = key_text.encode()
    finally:
        engine.close()
    fragments = {}
    for n in range(memories):
        text = content_of(n).split()[2].encode()
        for at in range(len(text) - _FRAGMENT + 1):
            fragments[text[at : at + _FRAGMENT]] = n
    vectors = [_stored(vector_of(n)) for n in range(0, memories, max(1, memories // _VECTORS))]
    return Secrets(named, memories, fragments, vectors)


def _stored(vector: NDArray[np.float32]) -> bytes:
    """The first eight numbers of a vector as an index holds them: 16-bit floats."""
    norm = np.float32(math.sqrt(float(vector @ vector)))
    return np.divide(vector, norm, dtype=np.float32).astype("<f2").tobytes()[:16]


def _pieces_of_core(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _pieces_of_memory(pid: int) -> Iterator[bytes]:
    """Every readable page of a process, mapping by mapping; those that the kernel refuses are left out."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            if "r" not in rights or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            at = start
            while at < end:
                size = min(_PIECE_BYTES, end - at)
                piece = None
                with suppress(OSError, ValueError, OverflowError):
                    memory.seek(at)
                    piece = memory.read(size)
                if piece:
                    yield piece
                at += size


def search(pieces: Iterator[bytes], secrets: Secrets, returned: set[int]) -> Found:
    """Count what is there; pieces overlap by a little, so that nothing hides on a border."""
    found = Found(keys=dict.fromkeys(secrets.keys, 0))
    whole: set[int] = set()
    parts: set[int] = set()
    vectors: set[int] = set()
    tail = b""
    for fresh in pieces:
        found.bytes_read += len(fresh)
        if fresh == _ZEROS[: len(fresh)]:  # never touched
            tail = b""
            continue
        piece = tail + fresh
        for name, key in secrets.keys.items():
            found.keys[name] += piece.count(key)
        for match in _CANARY.finditer(piece):
            n = int(match[1])
            if n < secrets.canaries and content_of(n).encode().startswith(match[0]):
                whole.add(n)
        for match in _RUN.finditer(piece):
            text = match[0]
            for at in range(len(text) - _FRAGMENT + 1):
                n_ = secrets.fragments.get(text[at : at + _FRAGMENT])
                if n_ is not None:
                    parts.add(n_)
        for number, vector in enumerate(secrets.vectors):
            if vector in piece:
                vectors.add(number)
        tail = piece[-128:]
    found.contents, found.fragments = len(whole - returned), len(parts - returned)
    found.vectors = len(vectors)
    return found


def _small_stacks() -> None:
    """Threads with stacks of 1 MiB: a core holds all of each."""
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))


def _run(way: Way, directory: Path, key_file: Path, memories: int, work: Path) -> dict[str, Any]:
    secrets: Secrets | None = None
    environment = {k: v for k, v in os.environ.items() if k not in (*_SCRUB, UNSAFE_VARIABLE)}
    environment |= _SCRUB if way.scrub else {}
    environment |= {} if way.protected else {UNSAFE_VARIABLE: "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "bench._scan_child", way.task, str(directory), str(key_file), str(memories)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        preexec_fn=_small_stacks,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        returned = set(json.loads(line)["returned"])
        images: dict[str, Found] = {}
        core = work / "core"
        subprocess.run(
            ["gcore", "-o", str(core), str(child.pid)], check=True, capture_output=True, timeout=300
        )
        core = core.with_name(f"core.{child.pid}")
        secrets = secrets_of(directory, key_file.read_text().strip(), memories)
        images["core"] = search(_pieces_of_core(core), secrets, returned)
        core.unlink()
        images["memory"] = search(_pieces_of_memory(child.pid), secrets, returned)
    finally:
        if child.stdin is not None:
            child.stdin.close()
        child.wait(timeout=60)
        assert child.stdout is not None
        child.stdout.close()
    return {"way": str(way), "returned": len(returned), **{k: _plain(v) for k, v in images.items()}}


def _plain(found: Found) -> dict[str, Any]:
    return {
        "bytes": found.bytes_read,
        "keys": {k: n for k, n in found.keys.items() if n},
        "contents": found.contents,
        "fragments": found.fragments,
        f"vectors of {_VECTORS}": found.vectors,
    }


def scan(memories: int, ways: list[Way]) -> list[dict[str, Any]]:
    """The findings of each way of running."""
    _self_check()
    work = Path(tempfile.mkdtemp(prefix="strongroom-scan-"))
    out = []
    try:
        for number, way in enumerate(ways):
            directory = work / f"store{number}"
            strongroom.init(
                directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=DIMENSIONS))
            )
            with strongroom.open(directory, worker=False) as room:
                room.create_namespace(NAMESPACE, sealed_in_memory=way.sealed)
                _, text = room.keys_create("scan", "read-write", [NAMESPACE])
            key_file = work / "key"
            key_file.touch(mode=0o600)
            key_file.write_text(text)
            if way.task == "load":
                subprocess.run(
                    [
                        sys.executable, "-m", "bench._scan_child", "fill", str(directory), str(key_file),
                        str(memories),
                    ],
                    check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip
            out.append(_run(way, directory, key_file, memories, work))
            print(json.dumps(out[-1]), flush=True)
            shutil.rmtree(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


WAYS = [
    Way("load", sealed=False, scrub=False, protected=True),
    Way("load", sealed=False, scrub=False, protected=False),
    Way("load", sealed=True, scrub=False, protected=True),
    Way("load", sealed=True, scrub=True, protected=True),
    Way("load", sealed=True, scrub=True, protected=False),
    Way("store", sealed=True, scrub=False, protected=True),
    Way("store", sealed=True, scrub=True, protected=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = scan(given.memories, WAYS)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
