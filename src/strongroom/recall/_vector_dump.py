"""The vector lane in a snapshot (spec/snapshot.md)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from strongroom.errors import IntegrityError, InternalError
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._codes import BLOCK_ROWS, GROUP, VALUES, have_codes
from strongroom.recall._frozen_lists import FrozenLists, FrozenTogether
from strongroom.recall._ivf import PLAIN_LISTS, InvertedLists, Rids, Rows
from strongroom.recall._reach import DEPTHS, Reach, first_reach
from strongroom.recall._threads import ReadWriteLock


@dataclass(frozen=True, slots=True, eq=False)
class FrozenVectors:
    """A vector lane at one moment. Close it soon: until then changes copy what they spoil."""

    dimensions: int
    trained_rows: int
    reach: Reach
    centroids: Rows | None
    lists: FrozenLists | FrozenTogether
    lock: ReadWriteLock

    def dump(self, out: BlockWriter, rids: Rids) -> None:
        """Write the vectors; all belong to ``rids`` (ascending), which become the rows 0, 1, 2 ..."""
        sizes, ids = self.lists.sizes, self.lists.ids
        rows = np.searchsorted(rids, ids)
        if len(ids) and (int(rows.max()) >= len(rids) or np.any(rids[rows] != ids)):
            raise InternalError("a vector belongs to no row")
        reach = self.reach
        out.array("VTRN", np.array([self.trained_rows, *reach.curve, *reach.coded, *reach.again]), "<i8")
        centroids = np.empty((0, self.dimensions), np.float32) if self.centroids is None else self.centroids
        out.array("VCEN", centroids, "<f4")
        out.array("VSIZ", sizes, "<u4")
        out.array("VRID", rows, "<u4")
        self._dump_short(out)
        out.head("VCOD", "<u2", len(ids), self.dimensions)
        for number in np.flatnonzero(sizes).tolist():
            with self.lock.read:
                codes = self.lists.codes(number)
            out.part(codes)

    def _dump_short(self, out: BlockWriter) -> None:
        """The short codes: what they stand for, and the blocks of each list."""
        values, sizes = self.lists.values, self.lists.sizes
        if values is None:
            out.head("VVAL", "<f4", 0, VALUES * GROUP)
            out.head("VSHO", "<u1", 0, _block_bytes(self.dimensions))
            return
        out.array("VVAL", values.reshape(len(values), -1), "<f4")
        out.head("VSHO", "<u1", int(_blocks(sizes).sum()), _block_bytes(self.dimensions))
        for number in np.flatnonzero(sizes).tolist():
            with self.lock.read:
                blocks = self.lists.blocks(number)
            if blocks is None:
                raise InternalError("short codes are gone")
            out.part(blocks)

    def close(self) -> None:
        """Let go. May be called twice."""
        with self.lock.write:
            self.lists.close()


def read_vectors(source: BlockReader, dimensions: int, rows: int) -> tuple[InvertedLists, int, Reach]:
    """The lists that ``FrozenVectors.dump`` wrote, of a namespace of ``rows`` rows; trained rows; reach.

    Raises:
        IntegrityError: they are of another form.
    """
    trained, *learnt = source.array("VTRN", "<i8", rows=1 + 3 * len(DEPTHS)).tolist()
    curve, coded, again = (tuple(learnt[i : i + len(DEPTHS)]) for i in range(0, len(learnt), len(DEPTHS)))
    centroids = source.array("VCEN", "<f4", columns=dimensions)
    sizes = source.array("VSIZ", "<u4", rows=len(centroids) or None).astype(np.int64)
    ids = source.array("VRID", "<u4").astype(np.int64)
    seen = np.zeros(rows, dtype=np.bool_)
    if len(ids):
        if int(ids.max()) >= rows:
            raise _strange()
        seen[ids] = True
    lists = len(sizes)
    if int(sizes.sum()) != len(ids) or int(np.count_nonzero(seen)) != len(ids) or not 0 < lists < 2**16:
        raise _strange()
    reach = Reach(curve, coded, again)
    if len(centroids) and not reach.fits(lists):
        raise _strange()
    made = InvertedLists(dimensions, centroids if len(centroids) else None, plain=lists)
    _read_short(source, made, sizes, ids)
    source.head("VCOD", "<u2", dimensions, len(ids))
    with closing(made.restored(sizes, ids)) as pieces:
        for codes in pieces:
            source.into(codes)
    return made, trained, reach if made.is_trained else first_reach(PLAIN_LISTS)


def _read_short(source: BlockReader, made: InvertedLists, sizes: Rids, ids: Rids) -> None:
    values = source.array("VVAL", "<f4", columns=VALUES * GROUP)
    count = source.head("VSHO", "<u1", _block_bytes(made.dimensions))
    if not len(values):
        if count:
            raise _strange()
        return
    if not made.is_trained or len(values) * GROUP != made.dimensions or not have_codes(made.dimensions):
        raise _strange()
    if count != int(_blocks(sizes).sum()):
        raise _strange()
    for blocks in made.restored_codes(values.reshape(len(values), VALUES, GROUP), sizes, ids):
        source.into(blocks)


def _blocks(sizes: Rids) -> Rids:
    """Blocks of the short codes of each list."""
    return -(-sizes // BLOCK_ROWS)


def _block_bytes(dimensions: int) -> int:
    return dimensions * BLOCK_ROWS // (2 * GROUP)


def _strange() -> IntegrityError:
    return IntegrityError("a snapshot holds vectors that belong to no row or list")
