"""FAISS, which has no types of its own, and how many threads it may use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

faiss: Any = importlib.import_module("faiss")


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Let FAISS use so many threads for what the calling thread asks of it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, threads))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def nearest(
    index: Any, query: NDArray[np.float32], k: int, probes: int, bitmap: NDArray[np.uint8] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """At most ``k`` (ids, scores) of inverted lists, best first, out of the ``probes`` nearest ones.

    ``bitmap``: bit r of the packed bits set, id r allowed; None: all.
    """
    if bitmap is None:
        parameters = _of_probes(probes)
    else:
        selector = faiss.IDSelectorBitmap(bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
    scores, found = index.search(query.reshape(1, -1), k, params=parameters)
    have = found[0] >= 0
    return found[0][have], scores[0][have]


@lru_cache(maxsize=64)
def _of_probes(probes: int) -> Any:
    """FAISS only reads them, so threads may share them."""
    return faiss.SearchParametersIVF(nprobe=probes)


def one_thread() -> AbstractContextManager[None]:
    """Keep FAISS on the calling thread: for one query its thread team costs more than it gives."""
    return at_most(1)
