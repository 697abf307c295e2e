"""One store that a user could pick instead, measured in an environment of its own.

    python drive.py NAME WORK DATA.npz OUT.json [build | measure]

DATA: ``vectors`` float32 (rows, 384) of norm 1, ``marked`` bool (rows,), ``texts`` joined by line ends,
``queries`` float32 (n, 384). A peer is a module with: ``VERSION``, ``DURABLE``, ``EFFORTS`` (search settings
from fast to thorough), ``build(path, vectors, texts, marked)``, ``reopen(path)`` -> handle, ``search(handle,
query, k, effort, marked_only)`` -> row numbers, ``insert(handle, number, vector, text)``, ``close(handle)``;
and ``warm(handle, queries)`` where pages alone are not all that has to be warm. ``build`` and ``measure`` are
the two halves, for a machine that is shared.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

K = 10
RECALL_WANTED = 0.98
INSERTS = 200
_HERE = Path(__file__).parent


def exact(vectors, queries, allowed=None):
    """The true nearest rows by cosine, most similar first."""
    numbers = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    scores = queries @ vectors[numbers].T
    return [list(numbers[np.argsort(-row, kind="stable")[:K]]) for row in scores]


def recall(found, truth):
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def timed(work, items):
    out, seconds = [], []
    for item in items:
        started = time.perf_counter()
        out.append(work(item))
        seconds.append(time.perf_counter() - started)
    return out, seconds


def quantiles(seconds):
    return {"p50_ms": float(np.median(seconds)) * 1e3, "p99_ms": float(np.quantile(seconds, 0.99)) * 1e3}


def tuned(peer, handle, queries, truth, marked_only):
    """The fastest setting with the wanted recall, and its times; the most thorough one when none has it."""
    for effort in peer.EFFORTS:
        found = [peer.search(handle, q, K, effort, marked_only) for q in queries[:50]]
        if recall(found, truth[:50]) >= RECALL_WANTED:
            break
    for q in queries[:20]:
        peer.search(handle, q, K, effort, marked_only)
    found, seconds = timed(lambda q: peer.search(handle, q, K, effort, marked_only), queries)
    return {"effort": str(effort), "recall": recall(found, truth), **quantiles(seconds)}


def plaintext(path, texts, vectors):
    """How many of 100 texts and 100 vectors stand readable in the files."""
    wanted = {t.encode(): "texts" for t in texts[:100]} | {
        v.tobytes()[:128]: "vectors" for v in vectors[:100]
    }
    seen = {"texts": set(), "vectors": set()}
    for file in sorted(Path(path).rglob("*")):
        if file.is_file() and not file.is_symlink():
            raw = file.read_bytes()
            for needle, kind in wanted.items():
                if needle in raw:
                    seen[kind].add(needle)
    return {kind: len(found) for kind, found in seen.items()}


def size_of(path):
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file() and not f.is_symlink())


def main():
    name, work, data, out = sys.argv[1:5]
    half = sys.argv[5] if len(sys.argv) > 5 else ""
    sys.path.insert(0, str(_HERE))
    peer = importlib.import_module(f"peer_{name}")
    with np.load(data) as stored:
        vectors, marked, queries = stored["vectors"], stored["marked"], stored["queries"]
        texts = stored["texts"].tobytes().decode().split("\n")
    path = Path(work) / name
    result = {"name": name, "version": peer.VERSION, "durable": peer.DURABLE, "rows": len(vectors)}
    built = Path(work) / f"{name}.seconds"
    if half != "measure":
        started = time.perf_counter()
        peer.build(str(path), vectors, texts, marked)
        built.write_text(str(time.perf_counter() - started), "utf-8")
    if half == "build":
        return
    result["build_s"] = float(built.read_text("utf-8"))
    truth, narrow = exact(vectors, queries), exact(vectors, queries, marked)
    started = time.perf_counter()
    handle = peer.reopen(str(path))
    peer.search(handle, queries[0], K, peer.EFFORTS[0], False)
    result["reopen_s"] = time.perf_counter() - started
    for q in queries:  # pages and caches warm before anything is timed
        peer.search(handle, q, K, peer.EFFORTS[-1], False)
    if hasattr(peer, "warm"):
        peer.warm(handle, queries)
    result["search"] = tuned(peer, handle, queries, truth, False)
    result["filtered"] = tuned(peer, handle, queries, narrow, True)
    rng = np.random.default_rng(5)
    fresh = vectors[rng.integers(0, len(vectors), INSERTS)] + rng.normal(0, 0.01, (INSERTS, vectors.shape[1]))
    fresh = (fresh / np.linalg.norm(fresh, axis=1, keepdims=True)).astype(np.float32)
    numbers = range(len(vectors), len(vectors) + INSERTS)
    _, seconds = timed(
        lambda i: peer.insert(handle, i, fresh[i - len(vectors)], f"a memory that came later, number {i}"),
        numbers,
    )
    result["insert"] = quantiles(seconds)
    result["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peer.close(handle)
    result["readable_of_100"] = plaintext(path, texts, vectors)
    result["bytes_on_disk"] = size_of(path)
    Path(out).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
