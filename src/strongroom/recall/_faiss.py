"""FAISS, which has no types of its own, and how many threads it may use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

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


def one_thread() -> AbstractContextManager[None]:
    """Keep FAISS on the calling thread: for one query its thread team costs more than it gives."""
    return at_most(1)
