"""The process that ``bench.process_scan`` looks into: ``python -m bench._scan_child TASK STORE KEYFILE N``.

``fill``: stores N memories and ends. ``store``: stores N memories. ``load``: loads the namespace and
searches. The last two then forget everything, print the numbers of the memories that they returned, and wait
for the end of stdin. Contents are computed when they are needed and never kept.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys

import numpy as np
from numpy.typing import NDArray

import strongroom
from strongroom.engine import Engine, Session

NAMESPACE = "company_a/scan"
DIMENSIONS = 64
_SEARCHES = 20
_WORDS = ("amber", "basalt", "cobalt", "dolomite", "ebony", "feldspar", "granite", "hematite")


def content_of(n: int) -> str:
    """Memory number n, between 0 and 99999: a mark, 40 hexadecimal digits, words."""
    digest = hashlib.sha256(b"scan%d" % n).hexdigest()
    return (
        f"canary {n:05d} {digest[:40]} prefers {_WORDS[n % 8]} over {_WORDS[n // 8 % 8]} in the {n}th house"
    )


def vector_of(n: int) -> NDArray[np.float32]:
    """The embedding of memory n: float32, shape (DIMENSIONS,), norm 1."""
    vector = np.random.default_rng(n).normal(size=DIMENSIONS).astype(np.float32)
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


def _store(session: Session, count: int) -> None:
    for n in range(count // 2):
        session.store(content_of(n), namespace=NAMESPACE, embedding=vector_of(n), metadata={"number": n})
    session.store_many(
        {
            "content": content_of(n),
            "namespace": NAMESPACE,
            "embedding": vector_of(n),
            "metadata": {"number": n},
        }
        for n in range(count // 2, count)
    )


def _search(session: Session, count: int) -> list[int]:
    returned: set[int] = set()
    for i in range(_SEARCHES):
        for hit in session.search(
            _WORDS[i % 8], namespaces=[NAMESPACE], embedding=vector_of(i * 31 % count), k=2
        ):
            returned.add(int(hit.memory.content.split()[1]))
    for memory in session.list(namespaces=[NAMESPACE], limit=3).memories:
        returned.add(int(memory.content.split()[1]))
    session.sql("SELECT count(*), max(created_at) FROM memories")
    return sorted(returned)


def main() -> None:
    task, directory, key_file, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    strongroom.harden_process()
    engine = Engine.open(directory, worker=False)
    with open(key_file) as file:  # noqa: PTH123
        session = engine.authenticate(file.read().strip())
    returned: list[int] = []
    if task in ("store", "fill"):
        _store(session, count)
    if task in ("store", "load"):
        returned = _search(session, count)
    gc.collect()
    if task != "fill":
        sys.stdout.write(json.dumps({"returned": returned}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    engine.close()


if __name__ == "__main__":
    main()
