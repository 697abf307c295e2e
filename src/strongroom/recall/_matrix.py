"""Vectors in blocks that never move: readers need no lock for the rows that were there when they began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._blocks import BlockReader
from strongroom.recall._faiss import faiss

BLOCK_ROWS = 16_384  # 24 MiB of address space at 384 dimensions; committed as rows are written


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


class BlockMatrix:
    """An append-only float32 matrix of shape (count, dimensions), 4 bytes per element."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.count = 0
        self._blocks: list[NDArray[np.float32]] = []

    def append(self, rows: NDArray[np.float32]) -> int:
        """Copy ``rows`` (shape (m, dimensions)) to the end; return the number of the first one."""
        first = self.count
        done = 0
        while done < len(rows):
            block, offset = divmod(self.count, BLOCK_ROWS)
            if block == len(self._blocks):
                self._blocks.append(np.empty((BLOCK_ROWS, self.dimensions), dtype=np.float32))
            take = min(len(rows) - done, BLOCK_ROWS - offset)
            self._blocks[block][offset : offset + take] = rows[done : done + take]
            self.count += take  # only now are the rows visible
            done += take
        return first

    def read(self, source: BlockReader, rows: int) -> None:
        """Append ``rows`` rows out of a snapshot, without a copy in between; only into an empty matrix.

        Raises:
            IntegrityError: the snapshot is shorter.
        """
        while self.count < rows:
            take = min(BLOCK_ROWS, rows - self.count)
            block = np.empty((BLOCK_ROWS, self.dimensions), dtype=np.float32)
            source.into(block[:take])
            self._blocks.append(block)
            self.count += take

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The number of the first row and a view of the rows, block by block."""
        for number, block in enumerate(self._blocks):
            first = number * BLOCK_ROWS
            yield first, block[: self.count - first]

    def parts(self, slots: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """The rows ``slots`` in pieces."""
        for start in range(0, len(slots), BLOCK_ROWS // 4):
            yield self.gather(slots[start : start + BLOCK_ROWS // 4])

    def gather(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the rows ``slots``, shape (len(slots), dimensions), in that order."""
        out = np.empty((len(slots), self.dimensions), dtype=np.float32)
        blocks = slots // BLOCK_ROWS
        for block in np.unique(blocks):
            where = blocks == block
            out[where] = self._blocks[block][slots[where] % BLOCK_ROWS]
        return out

    def scores(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inner product of ``query`` (shape (dimensions,)) with every row, shape (count,)."""
        count = self.count
        out = np.empty(count, dtype=np.float32)
        for block in range(-(-count // BLOCK_ROWS)):
            start = block * BLOCK_ROWS
            part = out[start : start + BLOCK_ROWS]
            faiss.fvec_inner_products_ny(
                faiss.swig_ptr(part),
                faiss.swig_ptr(query),
                faiss.swig_ptr(self._blocks[block]),
                self.dimensions,
                len(part),
            )
        return out

    def scores_of(self, query: NDArray[np.float32], slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The inner product of ``query`` with the rows ``slots``, shape (len(slots),), in that order."""
        if len(slots) > 1 and np.any(slots[1:] < slots[:-1]):
            order = np.argsort(slots, kind="stable")
            out = np.empty(len(slots), dtype=np.float32)
            out[order] = self._scores_sorted(query, slots[order])
            return out
        return self._scores_sorted(query, slots)

    def _scores_sorted(self, query: NDArray[np.float32], slots: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty(len(slots), dtype=np.float32)
        start = 0
        while start < len(slots):
            block = int(slots[start]) // BLOCK_ROWS
            base = block * BLOCK_ROWS
            end = int(np.searchsorted(slots, base + BLOCK_ROWS))
            ids = np.ascontiguousarray(slots[start:end] - base, dtype=np.int64)
            part = out[start:end]
            faiss.fvec_inner_products_by_idx(
                faiss.swig_ptr(part),
                faiss.swig_ptr(query),
                faiss.swig_ptr(self._blocks[block]),
                faiss.swig_ptr(ids),
                self.dimensions,
                1,
                end - start,
            )
            start = end
        return out

    def memory_bytes(self) -> int:
        """Bytes of the rows that were written."""
        return self.count * self.dimensions * 4
