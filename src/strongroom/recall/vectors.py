"""The vector lane: cosine search over the embeddings of one namespace.

Exact while there are few vectors; above ``exact_rows_max`` inverted lists (FAISS) propose, and the
kept float32 rows decide: every score that leaves this module is the exact inner product. The lists are
trained and filled in the background once a search asks for them, and again when the number of vectors
has doubled; until they are complete, searches go on over the structure before.

Memory per million vectors of 384 dimensions: 1.54 GB of float32 rows, 0.78 GB of lists, 16 MB of slot
tables, 2.3 GB in all. A rebuild needs the lists twice for its duration.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError, InvalidVectorError
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._ivf import (
    ADD_ROWS,
    PROBES_MIN,
    InvertedLists,
    build,
    packed,
    pieces,
    slot_mask,
)
from strongroom.recall._matrix import BlockMatrix, at_most, one_thread
from strongroom.recall._threads import BackgroundTask, ReadWriteLock
from strongroom.recall._top import best
from strongroom.recall._unit import NORM_TOLERANCE

NARROW_ROWS = 12_000  # allowed sets up to this size are scored one by one ...
NARROW_SHARE = 0.05  # ... and up to this share of all vectors
WIDE_SHARE = 0.2  # from here on a filter is applied to what the lists have found
COMPACT_DEAD_MIN = 1024  # dead rows that make a compaction worth while ...
COMPACT_DEAD_SHARE = 0.3  # ... when they are this share of all rows
RETRY_GROWTH = 1.25  # after a failed build: the growth before the next attempt

_log = logging.getLogger(__name__)


class _Rows:
    """The rows and who owns them. A slot is a row of the matrix; ``rid_of`` is -1 on a dead one."""

    def __init__(self, dimensions: int) -> None:
        self.matrix = BlockMatrix(dimensions)
        self.rid_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.slot_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # by rid; -1: no vector
        self.lists: InvertedLists | None = None
        self.live = 0
        self.bitmap: NDArray[np.uint8] | None = None  # of live slots; None: make it again

    @property
    def dead(self) -> int:
        return self.matrix.count - self.live

    def own(self, slots: NDArray[np.int64], rids: NDArray[np.int64]) -> None:
        """Write both tables for slots that are new."""
        self.rid_of = grown(self.rid_of, int(slots.max(initial=-1)) + 1)
        self.slot_of = grown(self.slot_of, int(rids.max(initial=-1)) + 1)
        self.rid_of[slots] = rids
        self.slot_of[rids[rids >= 0]] = slots[rids >= 0]
        self.live += int(np.count_nonzero(rids >= 0))
        self.bitmap = None

    def slots(self, rids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot of each rid, -1 where it has no vector."""
        out = np.full(len(rids), -1, dtype=np.int64)
        known = (rids >= 0) & (rids < len(self.slot_of))
        out[known] = self.slot_of[rids[known]]
        return out

    def live_slots(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.rid_of[: self.matrix.count] >= 0)


def grown(array: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """``array`` with room for ``size`` entries, new ones -1; it grows by half at least."""
    if size <= len(array):
        return array
    out = np.full(max(size, len(array) + len(array) // 2, 256), -1, dtype=np.int64)
    out[: len(array)] = array
    return out


@dataclass(frozen=True, slots=True, eq=False)
class FrozenVectors:
    """A vector lane at one moment. The matrix is shared: its rows never change."""

    matrix: BlockMatrix
    rid_of: NDArray[np.int64]  # by slot
    lists: tuple[NDArray[np.float32], NDArray[np.uint16]] | None  # centroids; list of each slot
    trained_rows: int

    def dump(self, out: BlockWriter, rids: NDArray[np.int64]) -> None:
        """Write the vectors of ``rids`` (ascending), which become the rows 0, 1, 2 ..."""
        slots = np.flatnonzero(np.isin(self.rid_of, rids))
        owners = np.searchsorted(rids, self.rid_of[slots])
        out.array("VRID", owners, "<u4")
        out.head("VMAT", "<f4", len(slots), self.matrix.dimensions)
        for part in self.matrix.parts(slots):
            out.part(part)
        out.array("VTRN", np.array([self.trained_rows]), "<i8")
        if self.lists is None:
            out.head("VCEN", "<f4", 0, self.matrix.dimensions)
            out.head("VLST", "<u2", 0)
        else:
            out.array("VCEN", self.lists[0], "<f4")
            out.array("VLST", self.lists[1][slots], "<u2")


class VectorLane:
    """Vectors of one namespace by row id (rid: dense, only ever growing). Thread-safe.

    Args:
        dimensions: length of every vector.
        exact_rows_max: up to this many vectors every search is exact.
    """

    def __init__(self, dimensions: int, *, exact_rows_max: int = 20_000) -> None:
        self.dimensions = dimensions
        self._exact_rows_max = exact_rows_max
        self._lock = ReadWriteLock()
        self._rows = _Rows(dimensions)
        self._task = BackgroundTask("strongroom-vectors")
        self._trained_rows = 0
        self._retry_above = 0

    def __len__(self) -> int:
        return self._rows.live

    def __contains__(self, rid: int) -> bool:
        slot_of = self._rows.slot_of
        return 0 <= rid < len(slot_of) and bool(slot_of[rid] >= 0)

    @property
    def is_exact(self) -> bool:
        """True while every search looks at every vector."""
        return self._rows.lists is None

    # -- changes ----------------------------------------------------------------------------------
    def add(self, rids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors of norm 1, shape (m, dimensions); a rid that has one gets the new one.

        Raises:
            InvalidVectorError: wrong shape, not finite, or not of norm 1. Nothing is added then.
        """
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.ndim != 2 or rows.shape != (len(rids), self.dimensions):
            raise InvalidVectorError(f"vectors must have shape ({len(rids)}, {self.dimensions})")
        norms = np.einsum("ij,ij->i", rows, rows)
        if not np.all(np.abs(norms - 1.0) < 2 * NORM_TOLERANCE):  # false for NaN as well
            raise InvalidVectorError("vectors must be finite and of norm 1")
        if len(np.unique(rids)) != len(rids) or (len(rids) and int(rids.min()) < 0):
            raise ValueError("rids must be distinct and not negative")
        if not len(rids):
            return
        with self._lock.write:
            self._kill(rids)
            first = self._rows.matrix.append(rows)
            slots = np.arange(first, first + len(rows), dtype=np.int64)
            self._rows.own(slots, np.asarray(rids, dtype=np.int64))
            if self._rows.lists is not None:
                self._fill(self._rows.lists, slots, rows)

    @staticmethod
    def _fill(lists: InvertedLists, slots: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        if len(slots) > 64:
            lists.add(slots, rows)
            return
        with one_thread():
            lists.add(slots, rows)

    def move(self, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        """Give the vectors of ``old`` to ``new``, pair by pair; pairs whose old has none are left out."""
        with self._lock.write:
            self._kill(new)
            slots = self._rows.slots(old)
            have = slots >= 0
            self._rows.slot_of[old[have]] = -1
            self._rows.live -= int(np.count_nonzero(have))
            self._rows.own(slots[have], new[have])

    def remove(self, rids: NDArray[np.int64]) -> None:
        """Forget the vectors of ``rids``; unknown ones are passed over."""
        with self._lock.write:
            self._kill(np.asarray(rids, dtype=np.int64))

    def _kill(self, rids: NDArray[np.int64]) -> None:
        slots = self._rows.slots(rids)
        have = slots >= 0
        if not have.any():
            return
        self._rows.rid_of[slots[have]] = -1
        self._rows.slot_of[rids[have]] = -1
        self._rows.live -= int(np.count_nonzero(have))
        self._rows.bitmap = None

    # -- snapshots --------------------------------------------------------------------------------
    def freeze(self) -> FrozenVectors:
        """The lane as it is now; copies the slot tables alone."""
        with self._lock.read:
            rows = self._rows
            count = rows.matrix.count
            lists = None if rows.lists is None else rows.lists.assignment(count)
            return FrozenVectors(rows.matrix, rows.rid_of[:count].copy(), lists, self._trained_rows)

    def restore(self, source: BlockReader, rows: int) -> None:
        """Fill an empty lane with what ``FrozenVectors.dump`` wrote, of a namespace of ``rows`` rows.

        Raises:
            IntegrityError: it is of another form.
        """
        rids = source.array("VRID", "<u4").astype(np.int64)
        count = len(rids)
        made = _Rows(self.dimensions)
        made.matrix.read(source, source.head("VMAT", "<f4", self.dimensions, count))
        trained = int(source.array("VTRN", "<i8", rows=1)[0])
        centroids = source.array("VCEN", "<f4", columns=self.dimensions)
        chosen = source.array("VLST", "<u2", rows=count if len(centroids) else 0)
        lost = int(rids.max(initial=-1)) >= rows or int(chosen.max(initial=0)) >= max(len(centroids), 1)
        if lost or len(np.unique(rids)) != count:
            raise IntegrityError("a snapshot holds vectors that belong to no row or list")
        made.own(np.arange(count, dtype=np.int64), rids)
        if len(centroids) and count > self._exact_rows_max:
            made.lists = InvertedLists.assigned(centroids, made.matrix, chosen)
        with self._lock.write:
            self._rows = made
            self._trained_rows = trained if made.lists is not None else 0

    # -- searching --------------------------------------------------------------------------------
    def search(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ``k`` nearest: (rids, cosines), best first, equal cosines with the newer rid first.

        Never fewer than min(k, allowed rows that have a vector).

        Args:
            query: float32 of norm 1, shape (dimensions,).
            allowed: sorted rids, or a mask by rid; None: all.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        if query.shape != (self.dimensions,):
            raise InvalidVectorError(
                f"the query vector has {query.size} components, expected {self.dimensions}"
            )
        query = np.ascontiguousarray(query, dtype=np.float32)
        self.tend()
        with self._lock.read, one_thread():
            rows = self._rows
            pool: NDArray[np.int64] | None = None
            if allowed is not None:
                rids = np.flatnonzero(allowed) if allowed.dtype == np.bool_ else allowed
                pool = rows.slots(rids.astype(np.int64, copy=False))
                pool = pool[pool >= 0]
            size = rows.live if pool is None else len(pool)
            if k <= 0 or not size:
                return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
            slots = self._propose(query, min(k, size), pool, size)
            if slots is None:
                return self._exact(query, k, pool)
            return best(rows.matrix.scores_of(query, slots), rows.rid_of[slots], k)

    def _exact(
        self, query: NDArray[np.float32], k: int, pool: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = self._rows
        if pool is not None:
            return best(rows.matrix.scores_of(query, np.sort(pool)), rows.rid_of[np.sort(pool)], k)
        scores = rows.matrix.scores(query)
        rids = rows.rid_of[: len(scores)]
        if rows.dead:
            live = rids >= 0
            return best(scores[live], rids[live], k)
        return best(scores, rids, k)

    def _propose(
        self, query: NDArray[np.float32], k: int, pool: NDArray[np.int64] | None, size: int
    ) -> NDArray[np.int64] | None:
        """Slots that hold the best ``k`` with high probability; None: look at all of them instead."""
        rows = self._rows
        lists = rows.lists
        fetch = min(size, k + k // 4 + 8)  # the exact scores choose among a few more
        if lists is None or fetch * 8 >= size:
            return None
        if pool is not None and size <= max(NARROW_ROWS, NARROW_SHARE * rows.live):
            return None
        share = size / rows.live
        # The k-th of the allowed rows is about the k / share-th of all: as far out the lists must reach.
        probes = int(PROBES_MIN * max(1.0, k / share / 50) ** 0.5)
        allowed = None if pool is None else slot_mask(pool, rows.matrix.count)
        if allowed is not None and share >= WIDE_SHARE:  # asking for more and dropping some is quicker
            found = lists.search(query, int(fetch / share * 1.25) + 16, probes, self._live_bitmap())
            found = found[allowed[found]]
            if len(found) >= fetch:
                return found
        bitmap = self._live_bitmap() if allowed is None else packed(allowed)
        while True:
            found = lists.search(query, fetch, probes, bitmap)
            if len(found) >= fetch:
                return found
            if probes >= lists.lists:
                return None
            probes *= 4

    def _live_bitmap(self) -> NDArray[np.uint8] | None:
        rows = self._rows
        if not rows.dead:
            return None
        bitmap = rows.bitmap
        if bitmap is None:  # several readers may make it at once: they make the same
            bitmap = rows.bitmap = packed(slot_mask(rows.live_slots(), rows.matrix.count))
        return bitmap

    def similarity(self, query: NDArray[np.float32], rids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The exact cosine of each rid, shape (len(rids),); NaN where there is no vector.

        Raises:
            InvalidVectorError: ``query`` has another length.
        """
        if query.shape != (self.dimensions,):
            raise InvalidVectorError(
                f"the query vector has {query.size} components, expected {self.dimensions}"
            )
        query = np.ascontiguousarray(query, dtype=np.float32)
        with self._lock.read, one_thread():
            slots = self._rows.slots(np.asarray(rids, dtype=np.int64))
            out = np.full(len(slots), np.nan, dtype=np.float32)
            have = slots >= 0
            out[have] = self._rows.matrix.scores_of(query, slots[have])
            return out

    def moment(self) -> tuple[BlockMatrix, NDArray[np.int64]]:
        """The matrix, whose rows never change, and the slot of each rid (-1: none) as of now."""
        with self._lock.read:
            return self._rows.matrix, self._rows.slot_of.copy()

    def vectors(self, rids: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the vectors of ``rids``, shape (len(rids), dimensions); NaN rows where there is none."""
        with self._lock.read:
            slots = self._rows.slots(np.asarray(rids, dtype=np.int64))
            out = np.full((len(slots), self.dimensions), np.nan, dtype=np.float32)
            out[slots >= 0] = self._rows.matrix.gather(slots[slots >= 0])
            return out

    # -- upkeep -----------------------------------------------------------------------------------
    def tend(self) -> None:
        """Start what is due: lists, or a compaction. Every search does so; adding alone does not.

        So a bulk load trains once, when its first question comes, and not over and over on its way.
        """
        if self._wants_rebuild():
            self._task.start(self._rebuild)

    def _wants_rebuild(self) -> bool:
        rows = self._rows
        wants_lists = rows.live > self._exact_rows_max and (
            rows.lists is None or rows.live >= 2 * self._trained_rows
        )
        return (wants_lists or self._wants_compaction(rows)) and rows.live >= self._retry_above

    @staticmethod
    def _wants_compaction(rows: _Rows) -> bool:
        return rows.dead >= COMPACT_DEAD_MIN and rows.dead >= COMPACT_DEAD_SHARE * rows.matrix.count

    def _rebuild(self) -> None:
        """Build lists (and rows without the dead) beside the present ones, catch up, and switch."""
        while self._wants_rebuild() and not self._task.stopping:
            old = self._rows
            try:
                with at_most(len(os.sched_getaffinity(0)) // 2):  # the other half is for searches
                    self._rebuild_from(old)
            except (MemoryError, RuntimeError) as e:  # FAISS reports every failure as RuntimeError
                self._retry_above = int(old.live * RETRY_GROWTH) + 1
                name = type(e).__name__
                _log.warning("vector lists could not be built (%s); the search goes on as before", name)
                return

    def _rebuild_from(self, old: _Rows) -> None:
        with self._lock.read:
            count = old.matrix.count
            slots = old.live_slots()
            compact = self._wants_compaction(old)
        rows = _Rows(self.dimensions) if compact else old
        if compact:
            for part in pieces(slots):
                if self._task.stopping:
                    return
                rows.matrix.append(old.matrix.gather(part))
        lists: InvertedLists | None = None
        if len(slots) > self._exact_rows_max:
            ids = np.arange(len(slots), dtype=np.int64) if compact else slots
            lists = build(rows.matrix, ids, lambda: self._task.stopping)
            if lists is None:
                return
        source = [slots] if compact else []
        while not self._task.stopping:  # what came meanwhile; the last few rows under the lock
            if old.matrix.count - count <= ADD_ROWS:
                with self._lock.write:
                    self._catch_up(old, rows, lists, count, source)
                    self._switch(old, rows, lists, source, trained=len(slots))
                return
            count = self._catch_up(old, rows, lists, count, source)

    @staticmethod
    def _catch_up(
        old: _Rows, rows: _Rows, lists: InvertedLists | None, done: int, source: list[NDArray[np.int64]]
    ) -> int:
        """Take over the slots of ``old`` from ``done`` on; they may be dead by now, which does no harm."""
        end = old.matrix.count
        for part in pieces(np.arange(done, end, dtype=np.int64)):
            vectors = old.matrix.gather(part)
            slots = part
            if rows is not old:
                first = rows.matrix.append(vectors)
                slots = np.arange(first, first + len(part), dtype=np.int64)
                source.append(part)
            if lists is not None:
                lists.add(slots, vectors)
        return end

    def _switch(
        self,
        old: _Rows,
        rows: _Rows,
        lists: InvertedLists | None,
        source: list[NDArray[np.int64]],
        *,
        trained: int,
    ) -> None:
        """Make the new structure the present one; the caller holds the write lock."""
        if rows is not old:
            owners = old.rid_of[np.concatenate(source)]  # as of now: removals and moves included
            rows.slot_of = np.full(len(old.slot_of), -1, dtype=np.int64)
            rows.own(np.arange(len(owners), dtype=np.int64), owners)
        rows.lists = lists
        rows.bitmap = None
        self._trained_rows = trained if lists is not None else 0
        self._rows = rows

    def wait_built(self, timeout_s: float | None = None) -> bool:
        """Wait for a build that runs; False when the time was up."""
        return self._task.wait(timeout_s)

    def close(self) -> None:
        """Stop building; searches still work."""
        self._task.close()

    def memory_bytes(self) -> int:
        rows = self._rows
        lists = rows.lists.memory_bytes() if rows.lists is not None else 0
        return rows.matrix.memory_bytes() + lists + rows.rid_of.nbytes + rows.slot_of.nbytes
