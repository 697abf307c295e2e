"""An immutable piece of an inverted file over blinded terms, in compressed sparse rows.

``terms`` uint64, sorted; the postings of ``terms[i]`` are ``rids[offsets[i]:offsets[i + 1]]`` (int64,
no order promised) with their counts in ``counts`` (uint16). 10 bytes per posting, 16 per term.
``documents`` says how large the segment is; after a clean-up it is an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError
from strongroom.recall._blocks import BlockReader, BlockWriter

COUNT_MAX = 0xFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    terms: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    rids: NDArray[np.int64]
    counts: NDArray[np.uint16]
    documents: int

    def postings(self, term: np.uint64) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
        """(rids, counts) of ``term``; empty when it does not occur."""
        at = int(np.searchsorted(self.terms, term))
        if at == len(self.terms) or self.terms[at] != term:
            return self.rids[:0], self.counts[:0]
        start, end = self.offsets[at], self.offsets[at + 1]
        return self.rids[start:end], self.counts[start:end]

    def memory_bytes(self) -> int:
        return self.terms.nbytes + self.offsets.nbytes + self.rids.nbytes + self.counts.nbytes


def from_occurrences(terms: NDArray[np.uint64], rids: NDArray[np.int64], documents: int) -> Segment:
    """Count every (term, rid) pair of two arrays of the same length."""
    distinct, inverse = np.unique(terms, return_inverse=True)
    if not len(distinct):
        return Segment(distinct, np.zeros(1, dtype=np.int64), rids[:0], np.empty(0, np.uint16), documents)
    base = int(rids.min())
    width = int(rids.max()) - base + 1
    pairs, counts = np.unique(inverse.astype(np.int64) * width + (rids - base), return_counts=True)
    offsets = np.searchsorted(pairs, np.arange(len(distinct) + 1, dtype=np.int64) * width)
    return Segment(
        distinct,
        offsets.astype(np.int64),
        pairs % width + base,
        np.minimum(counts, COUNT_MAX).astype(np.uint16),
        documents,
    )


def merge(segments: Sequence[Segment], live: NDArray[np.bool_]) -> Segment:
    """One segment out of several, without the rows that ``live`` (by rid) says are dead."""
    if not segments:
        return Segment(
            np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.uint16), 0
        )
    terms = np.unique(np.concatenate([s.terms for s in segments]))
    kept = [_without_dead(s, live) for s in segments]
    sizes = np.zeros(len(terms), dtype=np.int64)
    places = []
    for segment in kept:
        at = np.searchsorted(terms, segment.terms)
        sizes[at] += np.diff(segment.offsets)
        places.append(at)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    rids = np.empty(int(offsets[-1]), dtype=np.int64)
    counts = np.empty(int(offsets[-1]), dtype=np.uint16)
    free = offsets[:-1].copy()
    for segment, at in zip(kept, places, strict=True):
        lengths = np.diff(segment.offsets)
        target = np.repeat(free[at] - segment.offsets[:-1], lengths) + np.arange(len(segment.rids))
        rids[target] = segment.rids
        counts[target] = segment.counts
        free[at] += lengths
    used = sizes > 0
    return Segment(
        terms[used],
        np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes[used])]),
        rids,
        counts,
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
        int(segment.documents * alive.mean()),
    )


def dump(segment: Segment, out: BlockWriter, new_rid: NDArray[np.int64]) -> None:
    """Write a segment without dead rows; ``new_rid`` (by rid) renumbers its rows."""
    out.array("KTRM", segment.terms, "<u8")
    out.array("KOFF", segment.offsets, "<i8")
    out.array("KRID", new_rid[segment.rids], "<u4")
    out.array("KCNT", segment.counts, "<u2")


def restore(source: BlockReader, rows: int) -> Segment:
    """The segment that ``dump`` wrote.

    Raises:
        IntegrityError: it is of another form.
    """
    terms = source.array("KTRM", "<u8")
    offsets = source.array("KOFF", "<i8", rows=len(terms) + 1)
    rids = source.array("KRID", "<u4").astype(np.int64)
    counts = source.array("KCNT", "<u2", rows=len(rids))
    if offsets[0] != 0 or offsets[-1] != len(rids) or np.any(offsets[1:] < offsets[:-1]):
        raise IntegrityError("a snapshot holds postings that do not fit together")
    if np.any(terms[1:] <= terms[:-1]) or (len(rids) and int(rids.max()) >= rows):
        raise IntegrityError("a snapshot holds postings that do not fit together")
    return Segment(terms, offsets, rids, counts, rows)
