"""Side by side with what a user would pick instead, in plaintext, each in an environment of its own.

Not among the measurements that run by default: it installs other packages from the registry, into
``bench/results/peers`` (or ``STRONGROOM_BENCH_PEERS``). Every peer gets the same vectors, is warmed, is set
to the fastest search that still has recall@10 >= 0.98 against exact search, and then answers the same
questions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench import _stores as stores
from bench._harness import RESULTS, Options, Row, Spread, note

_HERE = Path(__file__).parent / "_peers"
_SECONDS_MAX = 3000
_QUERIES = 200


def run(options: Options) -> list[Row]:
    corpus = stores.corpus(options)
    data = options.work / "peers.npz"
    marked = np.array(["escalated" in tags for tags in corpus.tags])
    np.savez(
        data,
        vectors=corpus.vectors,
        marked=marked,
        texts=np.frombuffer("\n".join(corpus.texts).encode(), np.uint8),
        queries=_embedded(corpus.queries[:_QUERIES]),
    )
    rows: list[Row] = []
    for name in ("strongroom", *_packages()):
        python = _environment(name)
        if python is None:
            note(f"{name}: its packages could not be installed; left out")
            continue
        found = [_measure(name, python, data, options) for _ in range(options.repeats)]
        whole = [f for f in found if f is not None]
        if whole:
            rows.append(_row(name, whole))
    return rows


def _embedded(queries: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    from strongroom.config import EmbeddingConfig
    from strongroom.embedding import make_provider

    provider = make_provider(EmbeddingConfig())
    try:
        return np.asarray(provider.embed(queries), np.float32)
    finally:
        provider.close()


def _packages() -> dict[str, list[str]]:
    lines = (_HERE / "requirements.txt").read_text("utf-8").splitlines()
    return {
        name: words.split()
        for name, _, words in (line.partition(": ") for line in lines if not line.startswith("#"))
    }


def _environment(name: str) -> Path | None:
    """The interpreter of a peer's own environment; made at the first use."""
    if name == "strongroom":
        return Path(sys.executable)
    place = Path(os.environ.get("STRONGROOM_BENCH_PEERS") or RESULTS / "peers") / name
    python = place / "bin" / "python"
    if (place / ".done").exists():
        return python
    note(f"{name}: installing")
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-qq"]
    if subprocess.run([*pip, *_packages()[name]], check=False).returncode:
        return None
    (place / ".done").touch()
    return python


def _measure(name: str, python: Path, data: Path, options: Options) -> dict[str, Any] | None:
    work, out = options.work / "peer", options.work / "peer.json"
    out.unlink(missing_ok=True)
    work.mkdir()
    note(name)
    try:
        subprocess.run(
            [python, _HERE / "drive.py", name, work, data, out],
            check=True,
            timeout=_SECONDS_MAX,
        )
        measured: dict[str, Any] = json.loads(out.read_text("utf-8"))
    except (subprocess.SubprocessError, OSError) as e:
        note(f"{name}: failed ({type(e).__name__})")
        return None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return measured


def _row(name: str, found: list[dict[str, Any]]) -> Row:
    def spread(*path: str) -> Spread:
        values = []
        for f in found:
            value: Any = f
            for key in path:
                value = value[key]
            values.append(float(value))
        return Spread.of(values)

    first = found[0]
    durable = "durable" if first["durable"] else "not durable"
    readable = first["readable_of_100"]
    return Row(
        f"{name} {first['version']}, {first['rows']:,} memories",
        f"search p50 {spread('search', 'p50_ms').show()}, p99 {spread('search', 'p99_ms').show()} ms "
        f"at recall {spread('search', 'recall').median:.3f}; with a filter of 5 % p50 "
        f"{spread('filtered', 'p50_ms').show()} ms at {spread('filtered', 'recall').median:.3f}; "
        f"one insert p50 {spread('insert', 'p50_ms').show()} ms, {durable}; "
        f"reopened in {spread('reopen_s').show(1, 2)} s",
        against=f"built in {spread('build_s').show(1, 0)} s; {first['bytes_on_disk'] / 2**20:,.0f} MiB; "
        f"on disk as they are: {readable['texts']} of 100 texts, {readable['vectors']} of 100 vectors",
        data={"runs": found},
    )
