"""Inverted lists over slots of a matrix (FAISS IVF with 16-bit codes), and how large to make them.

Chosen by measurement (100k x 384, one thread, questions in words against composed memories: bench/data.py):
of 1024 lists 64 probed find 0.974 of the true ten in 0.3 ms, 160 find 0.988 in 0.7 ms, 256 find 0.997 in
1.1 ms. Hybrid answers need the margin: they look at the ranks of the first fifty. Vectors that were
drawn like the stored ones need fewer. 8-bit codes took the same time and half the memory, but lose rows
whose components lie outside the range seen in training, which is what happens when a store takes up a new
topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._faiss import faiss
from strongroom.recall._matrix import BlockMatrix

TRAIN_PER_LIST = 40  # vectors that k-means sees for each list
TRAIN_ROUNDS = 8
PROBES_MIN = 256
ADD_ROWS = 8192  # rows that are added in one go
_SEED = 0x5EED


def list_count(rows: int) -> int:
    """How many lists ``rows`` vectors get: the power of two at or below 4 * sqrt(rows), 16 to 4096."""
    wanted = 4.0 * max(rows, 16) ** 0.5
    return int(min(4096, 2 ** int(np.log2(wanted))))


class InvertedLists:
    """An index of the slots that were added; searching it is approximate, its scores have 11 bits."""

    def __init__(self, dimensions: int, lists: int) -> None:
        self.lists = lists
        self.rows = 0
        self._quantizer = faiss.IndexFlatIP(dimensions)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer,
            dimensions,
            lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        self._index.cp.niter = TRAIN_ROUNDS
        self._index.cp.min_points_per_centroid = 1
        self._index.cp.max_points_per_centroid = TRAIN_PER_LIST
        self._index.cp.seed = _SEED

    def train(self, sample: NDArray[np.float32]) -> None:
        """Place the lists by k-means over ``sample`` (at least as many rows as lists)."""
        self._index.train(sample)

    def add(self, slots: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Add ``rows`` under their ``slots``; nobody may search meanwhile."""
        self._index.add_with_ids(rows, slots)
        self.rows += len(slots)

    def search(
        self, query: NDArray[np.float32], k: int, probes: int, bitmap: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """At most ``k`` slots in the ``probes`` nearest lists; ``bitmap``: bit s set, slot s allowed."""
        parameters = faiss.SearchParametersIVF(nprobe=min(probes, self.lists))
        if bitmap is not None:
            selector = faiss.IDSelectorBitmap(bitmap)
            parameters.sel = selector
        _, found = self._index.search(query.reshape(1, -1), k, params=parameters)
        slots: NDArray[np.int64] = found[0]
        return slots[slots >= 0]

    def assignment(self, slots: int) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """The centroids, shape (lists, dimensions), and the list of each slot below ``slots``.

        Slots that were never added get list 0. Nobody may add meanwhile.
        """
        centroids: NDArray[np.float32] = self._quantizer.reconstruct_n(0, self.lists)
        chosen = np.zeros(slots, dtype=np.uint16)
        kept = self._index.invlists
        for number in range(self.lists):
            size = int(kept.list_size(number))
            if size:
                ids = faiss.rev_swig_ptr(kept.get_ids(number), size)
                chosen[ids[ids < slots]] = number
        return centroids, chosen

    @classmethod
    def assigned(
        cls, centroids: NDArray[np.float32], matrix: BlockMatrix, chosen: NDArray[np.uint16]
    ) -> InvertedLists:
        """Lists as they were: slot i of ``matrix`` goes into list ``chosen[i]``; nothing is trained."""
        made = cls(matrix.dimensions, len(centroids))
        made._quantizer.add(np.ascontiguousarray(centroids))
        made._index.is_trained = True
        for first, rows in matrix.blocks():
            slots = np.arange(first, first + len(rows), dtype=np.int64)
            lists = chosen[first : first + len(rows)].astype(np.int64)
            made._index.add_core(len(rows), *map(faiss.swig_ptr, (rows, slots, lists)), None)
            made.rows += len(rows)
        return made

    def memory_bytes(self) -> int:
        """Bytes of codes, ids and centroids."""
        dimensions = int(self._index.d)
        return int(self.rows * (2 * dimensions + 8) + self.lists * dimensions * 4)


def build(
    matrix: BlockMatrix, slots: NDArray[np.int64], stopping: Callable[[], bool]
) -> InvertedLists | None:
    """Train on a sample of ``slots`` and add them all; None when ``stopping`` says so meanwhile."""
    made = InvertedLists(matrix.dimensions, list_count(len(slots)))
    wanted = min(len(slots), made.lists * TRAIN_PER_LIST)
    chosen = np.random.default_rng(_SEED).choice(len(slots), size=wanted, replace=False)
    if stopping():
        return None
    made.train(matrix.gather(slots[np.sort(chosen)]))
    for part in pieces(slots):
        if stopping():
            return None
        made.add(part, matrix.gather(part))
    return made


def pieces(slots: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """``slots`` in runs of at most ``ADD_ROWS``."""
    for start in range(0, len(slots), ADD_ROWS):
        yield slots[start : start + ADD_ROWS]


def slot_mask(slots: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """True at each of ``slots``, shape (count,)."""
    mask = np.zeros(count, dtype=np.bool_)
    mask[slots] = True
    return mask


def packed(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The bitmap that ``InvertedLists.search`` takes."""
    return np.packbits(mask, bitorder="little")
