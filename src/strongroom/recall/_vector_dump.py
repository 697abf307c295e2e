"""The vector lane in a snapshot (spec/snapshot.md)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from strongroom.errors import IntegrityError, InternalError
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._ivf import PLAIN_LISTS, FrozenLists, InvertedLists, Rids, Rows
from strongroom.recall._reach import DEPTHS, Reach, first_reach
from strongroom.recall._threads import ReadWriteLock


@dataclass(frozen=True, slots=True, eq=False)
class FrozenVectors:
    """A vector lane at one moment. Close it soon: until then changes copy what they spoil."""

    dimensions: int
    trained_rows: int
    reach: Reach
    centroids: Rows | None
    lists: FrozenLists
    lock: ReadWriteLock

    def dump(self, out: BlockWriter, rids: Rids) -> None:
        """Write the vectors; all belong to ``rids`` (ascending), which become the rows 0, 1, 2 ..."""
        sizes, ids = self.lists.sizes, self.lists.ids
        rows = np.searchsorted(rids, ids)
        if len(ids) and (int(rows.max()) >= len(rids) or np.any(rids[rows] != ids)):
            raise InternalError("a vector belongs to no row")
        out.array("VTRN", np.array([self.trained_rows, *self.reach.curve]), "<i8")
        centroids = np.empty((0, self.dimensions), np.float32) if self.centroids is None else self.centroids
        out.array("VCEN", centroids, "<f4")
        out.array("VSIZ", sizes, "<u4")
        out.array("VRID", rows, "<u4")
        out.head("VCOD", "<u2", len(ids), self.dimensions)
        for number in np.flatnonzero(sizes).tolist():
            with self.lock.read:
                codes = self.lists.codes(number)
            out.part(codes)

    def close(self) -> None:
        """Let go. May be called twice."""
        with self.lock.write:
            self.lists.close()


def read_vectors(source: BlockReader, dimensions: int, rows: int) -> tuple[InvertedLists, int, Reach]:
    """The lists that ``FrozenVectors.dump`` wrote, of a namespace of ``rows`` rows; trained rows; reach.

    Raises:
        IntegrityError: they are of another form.
    """
    trained, *curve = source.array("VTRN", "<i8", rows=1 + len(DEPTHS)).tolist()
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
    if len(centroids) and not (curve[0] > 0 and curve[-1] <= lists and curve == sorted(curve)):
        raise _strange()
    made = InvertedLists(dimensions, centroids if len(centroids) else None, plain=lists)
    source.head("VCOD", "<u2", dimensions, len(ids))
    with closing(made.restored(sizes, ids)) as pieces:
        for codes in pieces:
            source.into(codes)
    reach = Reach(tuple(curve)) if made.is_trained else first_reach(PLAIN_LISTS)
    return made, trained, reach


def _strange() -> IntegrityError:
    return IntegrityError("a snapshot holds vectors that belong to no row or list")
