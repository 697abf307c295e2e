"""Short codes of the vectors in inverted lists: four bits for every two dimensions.

Product quantization (Jégou, Douze, Schmid 2011) with 16 values for each group of two dimensions, laid out
in blocks of 32 rows, so that the sixteen table entries of a group stay in one register of the processor (the
fast scan of André, Kermarrec, Le Scouarnec 2015, as FAISS has it). A search reads them in the place of the
rows, an eighth of the bytes, and then looks at the rows of those that come first.

    block of 32 rows, (d / 4) x 32 bytes: for each pair of groups 16 bytes of the first, 16 of the second
      byte p[r mod 16] of the 16: row r; rows 0 to 15 in its low half, rows 16 to 31 in its high half
      p = 0 2 4 6 8 10 12 14 1 3 5 7 9 11 13 15; rows that are not there: zero

Entry i of a list is the entry i of the list of rows. Not thread-safe: the lane above holds its lock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._allocator import give_back_behind
from strongroom.recall._faiss import at_most, faiss, nearest

GROUP = 2  # dimensions that share a code
VALUES = 16  # of a code
BLOCK_ROWS = 32
FEW = 3  # entries that are written one by one
_ONE_QUESTION = 11  # FAISS's way for a single question and many answers: a fifth less than its own choice
TRAIN_ROWS = VALUES * 256  # that k-means for the values of a group looks at
_PLACE = np.array([2 * r if r < 8 else 2 * r - 15 for r in range(16)])

Rids = NDArray[np.int64]
Rows = NDArray[np.float32]
Flat = NDArray[np.uint8]  # shape (n, d / 4): two groups a byte, the first of them in the low half


def have_codes(dimensions: int) -> bool:
    """Whether vectors of this length can have short codes: pairs of groups make it up."""
    return dimensions % (2 * GROUP) == 0


class ShortCodes:
    """Codes of the entries of lists.

    Args:
        quantizer: FAISS's index of the centroids of the lists.
        values: shape (groups, 16, 2), float32: what the codes of each group stand for.
    """

    def __init__(self, quantizer: object, values: Rows, lists: int) -> None:
        self.values = values
        self._pairs = len(values) // 2
        dimensions = len(values) * GROUP
        self._index = faiss.IndexIVFPQFastScan(
            quantizer, dimensions, lists, len(values), 4, faiss.METRIC_INNER_PRODUCT, BLOCK_ROWS
        )
        self._index.by_residual = False
        faiss.copy_array_to_vector(np.ascontiguousarray(values).ravel(), self._index.pq.centroids)
        self._index.is_trained = True
        self._index.implem = _ONE_QUESTION
        self._kept = faiss.downcast_InvertedLists(self._index.invlists)
        self._room = np.zeros(lists, dtype=np.int64)  # bytes that a list is known to have

    @staticmethod
    def trained(sample: Rows) -> Rows:
        """What the codes of each group of dimensions should stand for, by k-means over ``sample``."""
        dimensions = sample.shape[1]
        quantizer = faiss.ProductQuantizer(dimensions, dimensions // GROUP, 4)
        quantizer.cp.min_points_per_centroid = 1  # no warning on standard error
        with at_most(1):  # the pieces are too small for a team
            quantizer.train(np.ascontiguousarray(sample[:: max(1, len(sample) // TRAIN_ROWS)]))
        values: Rows = faiss.vector_to_array(quantizer.centroids)
        return values.reshape(-1, VALUES, GROUP)

    @property
    def block_bytes(self) -> int:
        return self._pairs * BLOCK_ROWS

    @property
    def row_bytes(self) -> int:
        """Bytes of the code of a row, and of its id beside it."""
        return self._pairs + 8

    def of(self, rows: Rows) -> Flat:
        """The code of each row."""
        flat: Flat = self._index.pq.compute_codes(np.ascontiguousarray(rows))
        return flat

    # -- changes ------------------------------------------------------------------------------------
    def resize(self, number: int, size: int) -> None:
        """Make a list as long as that; what is new is zero."""
        self._kept.resize(number, size)
        used = -(-size // BLOCK_ROWS) * self.block_bytes
        if used > self._room[number]:  # it has got up to twice that
            self._room[number] = give_back_behind(int(self._kept.get_codes(number)), used)

    def ids(self, number: int, size: int) -> Rids:
        """The ids of the first ``size`` entries, as they lie in FAISS's memory."""
        if not size:
            return np.empty(0, np.int64)
        ids: Rids = faiss.rev_swig_ptr(self._kept.get_ids(number), size)
        return ids

    def blocks(self, number: int, size: int) -> NDArray[np.uint8]:
        """The blocks of the first ``size`` entries, as they lie in FAISS's memory: (blocks, pairs, 32)."""
        count = -(-size // BLOCK_ROWS)
        if not count:
            return np.empty((0, self._pairs, BLOCK_ROWS), np.uint8)
        codes = faiss.rev_swig_ptr(self._kept.get_codes(number), count * self.block_bytes)
        blocks: NDArray[np.uint8] = codes.reshape(count, self._pairs, BLOCK_ROWS)
        return blocks

    def fill(self, number: int, ids: Rids, flat: Flat) -> None:
        """Give an empty list its entries."""
        size = len(ids)
        if not size:
            return
        self.resize(number, size)
        self.ids(number, size)[:] = ids
        blocks = self.blocks(number, size)
        padded = np.zeros((len(blocks) * BLOCK_ROWS, self._pairs), np.uint8)
        padded[:size] = flat
        halves = padded.reshape(len(blocks), 2, 16, self._pairs).transpose(1, 0, 3, 2)
        blocks[:, :, _PLACE] = halves[0] & 15 | halves[1] << 4
        blocks[:, :, _PLACE + 16] = halves[0] >> 4 | halves[1] & 0xF0

    def append(self, number: int, size: int, ids: Rids, flat: Flat) -> None:
        """Further entries for a list that has ``size``."""
        if not size:
            self.fill(number, ids, flat)
            return
        whole = size + len(ids)
        self.resize(number, whole)
        self.ids(number, whole)[size:] = ids
        blocks = self.blocks(number, whole)
        if len(ids) > FEW:
            _put(blocks, np.arange(size, whole), flat)
            return
        for entry, code in enumerate(flat, size):
            _put_one(blocks[entry // BLOCK_ROWS], entry % BLOCK_ROWS, code)

    def cut(self, number: int, size: int, holes: Rids, movers: Rids, left: int) -> None:
        """Leave the first ``left`` of ``size`` entries of a list; ``movers`` come to where the holes are."""
        blocks = self.blocks(number, size)
        if len(holes):
            ids = self.ids(number, size)
            ids[holes] = ids[movers]
            _put(blocks, holes, _taken(blocks, movers))
        clear(blocks, left)
        self.resize(number, left)

    # -- looking ------------------------------------------------------------------------------------
    def search(self, query: Rows, k: int, probes: int, bitmap: NDArray[np.uint8] | None) -> tuple[Rids, Rows]:
        """At most ``k`` (rids, scores by the codes), best first, out of the ``probes`` nearest lists."""
        return nearest(self._index, query, k, probes, bitmap)


def clear(blocks: NDArray[np.uint8], size: int) -> None:
    """Set to zero what lies behind the first ``size`` entries of some blocks."""
    first = size // BLOCK_ROWS
    if first == len(blocks):
        return
    blocks[first + (size % BLOCK_ROWS > 0) :] = 0
    rest = size % BLOCK_ROWS
    if rest:
        rows = np.arange(rest, BLOCK_ROWS)
        keep = np.full(BLOCK_ROWS, 0xFF, np.uint8)
        for half, mask in ((rows[rows < 16], 0xF0), (rows[rows >= 16] - 16, 0x0F)):
            keep[_PLACE[half]] &= mask
            keep[_PLACE[half] + 16] &= mask
        blocks[first] &= keep


def _taken(blocks: NDArray[np.uint8], entries: Rids) -> Flat:
    """The codes of some entries."""
    block, place = entries // BLOCK_ROWS, _PLACE[entries % 16]
    shift = (entries % BLOCK_ROWS // 16 * 4).astype(np.uint8)[:, None]
    low, high = (blocks[block, :, at] >> shift & 15 for at in (place, place + 16))
    return (low | high << 4).astype(np.uint8, copy=False)


def _put_one(block: NDArray[np.uint8], row: int, code: Flat) -> None:
    """Write the code of a row for which the block has zeros."""
    place = _PLACE[row % 16]
    if row < 16:
        block[:, place] |= code & 15
        block[:, place + 16] |= code >> 4
    else:
        block[:, place] |= code << 4
        block[:, place + 16] |= code & 0xF0


def _put(blocks: NDArray[np.uint8], entries: Rids, flat: Flat) -> None:
    """Write the codes of some distinct entries."""
    high = entries % BLOCK_ROWS >= 16
    for mine, keep, shift in ((~high, 0xF0, 0), (high, 0x0F, 4)):  # two rows that share bytes: one by one
        if not mine.any():
            continue
        block, place, codes = entries[mine] // BLOCK_ROWS, _PLACE[entries[mine] % 16], flat[mine]
        blocks[block, :, place] = blocks[block, :, place] & keep | (codes & 15) << shift
        blocks[block, :, place + 16] = blocks[block, :, place + 16] & keep | (codes >> 4) << shift
