"""An immutable piece of an inverted file over blinded terms, in compressed sparse rows.

``terms`` uint64, sorted; the postings of ``terms[i]`` are ``rids[offsets[i]:offsets[i + 1]]`` (uint32,
ascending) with their counts in ``counts`` (uint8, 255: so often or more). 5 bytes per posting, 20 per term.
``impacts[i]`` is the greatest ``f / (f + norm)`` in the postings of ``terms[i]``, where ``average`` is the
mean length. ``documents`` says how large the segment is; after a clean-up it is an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._marks import MARKED_MIN, Marks, TermMarks, marked
from strongroom.recall._threads import BackgroundTask

COUNT_MAX = 0xFF
MERGE_POSTINGS = 1 << 20  # that are moved in one go
K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    terms: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    rids: NDArray[np.uint32]
    counts: NDArray[np.uint8]
    impacts: NDArray[np.float32]
    average: float
    documents: int
    marks: Marks | None = None

    def postings(
        self, term: np.uint64
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8], float, TermMarks | None]:
        """(rids, counts, impact, marks) of ``term``; empty when it does not occur."""
        at = int(np.searchsorted(self.terms, term))
        if at == len(self.terms) or self.terms[at] != term:
            return self.rids[:0], self.counts[:0], 0.0, None
        start, end = self.offsets[at], self.offsets[at + 1]
        marks = self.marks.of(at) if self.marks is not None else None
        return self.rids[start:end], self.counts[start:end], float(self.impacts[at]), marks

    @property
    def wants_marks(self) -> bool:
        """It is large enough for marks, and has none."""
        return self.marks is None and self.documents >= MARKED_MIN and len(self.rids) > 0

    def with_marks(self, lengths: NDArray[np.uint16], task: BackgroundTask) -> Segment:
        """With marks, unless ``task`` is told to stop meanwhile; ``lengths`` by rid."""
        marks = marked(self.offsets, self.rids, self.counts, lengths, task)
        return self if marks is None else replace(self, marks=marks)

    def memory_bytes(self) -> int:
        arrays = (self.terms, self.offsets, self.rids, self.counts, self.impacts)
        return sum(array.nbytes for array in arrays) + (self.marks.memory_bytes() if self.marks else 0)


def made(
    terms: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    rids: NDArray[np.uint32],
    counts: NDArray[np.uint8],
    lengths: NDArray[np.uint16],
    documents: int,
) -> Segment:
    """A segment with its impacts; ``lengths`` by rid, of which only those in its range are looked at.

    No term is without postings.
    """
    impacts = np.zeros(len(terms), dtype=np.float32)
    near = lengths[int(rids.min()) : int(rids.max()) + 1] if len(rids) else lengths[:0]
    average = float(near.mean(where=near > 0)) if np.any(near) else 1.0
    start = 0
    while start < len(terms):
        end = int(np.searchsorted(offsets, offsets[start] + MERGE_POSTINGS, side="right")) - 1
        end = min(max(end, start + 1), len(terms))
        part = slice(offsets[start], offsets[end])
        count = counts[part].astype(np.float32)
        norm = lengths[rids[part]] * np.float32(K1 * B / average) + np.float32(K1 * (1 - B))
        impacts[start:end] = np.maximum.reduceat(count / (count + norm), offsets[start:end] - offsets[start])
        start = end
    return Segment(terms, offsets, rids, counts, impacts, average, documents)


def from_occurrences(
    terms: NDArray[np.uint64], rids: NDArray[np.int64], lengths: NDArray[np.uint16], documents: int
) -> Segment:
    """Count every (term, rid) pair of two arrays of the same length; ``lengths`` by rid."""
    distinct, inverse = np.unique(terms, return_inverse=True)
    if not len(distinct):
        return empty(documents)
    base = int(rids.min())
    width = int(rids.max()) - base + 1
    pairs, counts = np.unique(inverse.astype(np.int64) * width + (rids - base), return_counts=True)
    offsets = np.searchsorted(pairs, np.arange(len(distinct) + 1, dtype=np.int64) * width)
    return made(
        distinct,
        offsets.astype(np.int64),
        (pairs % width + base).astype(np.uint32),
        np.minimum(counts, COUNT_MAX).astype(np.uint8),
        lengths,
        documents,
    )


def empty(documents: int = 0) -> Segment:
    """A segment without postings."""
    return Segment(
        np.empty(0, np.uint64),
        np.zeros(1, np.int64),
        np.empty(0, np.uint32),
        np.empty(0, np.uint8),
        np.empty(0, np.float32),
        1.0,
        documents,
    )


def merge(segments: Sequence[Segment], live: NDArray[np.bool_], lengths: NDArray[np.uint16]) -> Segment:
    """One segment out of several, without the rows that ``live`` (by rid) says are dead.

    The rids of a later segment are greater than those of the ones before.
    """
    if not segments:
        return empty()
    terms = np.unique(np.concatenate([s.terms for s in segments]))
    kept = [_without_dead(s, live) for s in segments]
    sizes = np.zeros(len(terms), dtype=np.int64)
    places = []
    for segment in kept:
        at = np.searchsorted(terms, segment.terms)
        sizes[at] += np.diff(segment.offsets)
        places.append(at)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    rids = np.empty(int(offsets[-1]), dtype=np.uint32)
    counts = np.empty(int(offsets[-1]), dtype=np.uint8)
    free = offsets[:-1].copy()
    for segment, at in zip(kept, places, strict=True):
        shift = free[at] - segment.offsets[:-1]
        sizes_here = np.diff(segment.offsets)
        for start in range(0, len(segment.rids), MERGE_POSTINGS):
            end = min(start + MERGE_POSTINGS, len(segment.rids))
            inside = np.clip(segment.offsets, start, end)
            target = np.repeat(shift, np.diff(inside)) + np.arange(start, end)
            rids[target], counts[target] = segment.rids[start:end], segment.counts[start:end]
        free[at] += sizes_here
    used = sizes > 0
    return made(
        terms[used],
        np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes[used])]),
        rids,
        counts,
        lengths,
        sum(s.documents for s in kept),
    )


def _without_dead(segment: Segment, live: NDArray[np.bool_]) -> Segment:
    alive = live[segment.rids]
    if alive.all():
        return segment
    before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(alive)])
    return Segment(
        segment.terms,
        before[segment.offsets],
        segment.rids[alive],
        segment.counts[alive],
        segment.impacts,
        segment.average,
        int(segment.documents * alive.mean()),
    )


def dump(segment: Segment, out: BlockWriter, new_rid: NDArray[np.int64]) -> None:
    """Write a segment without dead rows; ``new_rid`` (by rid, growing) renumbers its rows."""
    out.array("KTRM", segment.terms, "<u8")
    out.array("KOFF", segment.offsets, "<i8")
    out.head("KRID", "<u4", len(segment.rids))
    for start in range(0, len(segment.rids), MERGE_POSTINGS):
        out.part(new_rid[segment.rids[start : start + MERGE_POSTINGS]].astype("<u4"))
    out.array("KCNT", segment.counts, "<u1")
    out.array("KIMP", segment.impacts, "<f4")
    out.array("KAVG", np.array([segment.average]), "<f4")


def restore(source: BlockReader, rows: int) -> Segment:
    """The segment that ``dump`` wrote.

    Raises:
        IntegrityError: it is of another form.
    """
    terms = source.array("KTRM", "<u8")
    offsets = source.array("KOFF", "<i8", rows=len(terms) + 1)
    rids = source.array("KRID", "<u4")
    counts = source.array("KCNT", "<u1", rows=len(rids))
    impacts = source.array("KIMP", "<f4", rows=len(terms))
    average = float(source.array("KAVG", "<f4", rows=1)[0])
    if offsets[0] != 0 or offsets[-1] != len(rids) or np.any(offsets[1:] <= offsets[:-1]):
        raise IntegrityError("a snapshot holds postings that do not fit together")
    if np.any(terms[1:] <= terms[:-1]) or (len(rids) and int(rids.max()) >= rows) or not average > 0:
        raise IntegrityError("a snapshot holds postings that do not fit together")
    falls = rids[1:] <= rids[:-1]
    falls[offsets[1:-1] - 1] = False  # from one term to the next
    if falls.any():
        raise IntegrityError("a snapshot holds postings that do not fit together")
    return Segment(terms, offsets, rids, counts, impacts, average, rows)
