"""The rows of a window of postings whose BM25 score can reach a threshold.

This is MaxScore (Turtle & Flood 1995) over whole arrays, with a bound for each row instead of one for a list
(as block-max methods have one for a block; Ding & Suel 2011). Terms are taken from the rarest to the most
frequent. The frequent ones that together cannot reach the threshold bring no row of their own: they are
only looked up. Of the others' rows those come in that can reach it: in most postings a term stands once, and
then a row gets no more than ``weight / (1 + norm)`` from each term to come, where its norm hangs on its
length alone; rows in which a term to come stands more often are marked before, and bounded by the terms'
greatest impacts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._marks import TermMarks

SLACK: Final = 5e-5  # of sums in 32 bits
SEARCH_COST: Final = 24  # postings that are gone through in the time in which one row is looked up
NOTED_TERMS_MAX: Final = 27  # their weights are rounded upwards in steps of a hundredth of them all
NOTED_SHARE: Final = 2  # a term of more than so many times the postings that bring rows is not noted
PRUNE_MIN: Final = 256  # rows that are worth the look whether some can be left out

Places = NDArray[np.intp]
"""Rids as numpy takes them to look something up: with any other type it converts them each time."""

Wanted = Callable[[Places], NDArray[np.bool_]]
"""Which of some rids may be among the answers."""

_SEVERAL: Final = 0x80  # of a note: some term to come stands there more than once
_NOTED: Final = 0x7F  # the greatest sum that is noted


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """What a count is worth in a row: ``lengths`` by rid, and a norm of ``fixed + per_term * length``."""

    lengths: NDArray[np.uint16]
    fixed: np.float32
    per_term: np.float32

    def norms_of(self, lengths: NDArray[np.uint16] | NDArray[np.uint8]) -> NDArray[np.float32]:
        norm: NDArray[np.float32] = lengths * self.per_term
        norm += self.fixed
        return norm

    def once(self, lengths: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a unit of weight brings to a row of each length in which the term stands once."""
        return np.float32(1) / (self.norms_of(lengths) + np.float32(1))

    def added(self, weight: float, at: Places, counts: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a term of this weight adds to the score of each row of ``at``, which hold it so often."""
        return worth(weight, counts, self.norms_of(self.lengths.take(at)))


def worth(weight: float, counts: NDArray[np.uint8], norms: NDArray[np.float32]) -> NDArray[np.float32]:
    count = counts.astype(np.float32)
    norm = norms + count
    count *= np.float32(weight)
    count /= norm
    return count


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Postings of one term in a range of rids (ascending); ``impact``: no ``f / (f + norm)`` is greater."""

    rids: NDArray[np.uint32]
    counts: NDArray[np.uint8]
    weight: float
    impact: float
    marks: TermMarks | None = None

    def cut(self, start: int, end: int) -> Slice:
        return Slice(self.rids[start:end], self.counts[start:end], self.weight, self.impact, self.marks)


@dataclass(slots=True, eq=False)
class _Rows:
    """Rows (ascending) that can reach the threshold: ``sums`` so far; ``marked``: a term to come may stand
    there more than once."""

    at: Places
    sums: NDArray[np.float32]
    norms: NDArray[np.float32]
    marked: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.at)

    def kept(self, which: NDArray[np.intp]) -> _Rows:
        return _Rows(
            self.at.take(which), self.sums.take(which), self.norms.take(which), self.marked.take(which)
        )

    def and_these(self, others: _Rows) -> _Rows:
        at = np.concatenate([self.at, others.at])
        order = at.argsort(kind="stable")
        return _Rows(
            at.take(order),
            np.concatenate([self.sums, others.sums]).take(order),
            np.concatenate([self.norms, others.norms]).take(order),
            np.concatenate([self.marked, others.marked]).take(order),
        )


def within(
    window: Sequence[Slice],
    scoring: Scoring,
    least: float,
    wanted: Wanted | None,
    notes: NDArray[np.uint8],
) -> tuple[Places, NDArray[np.float32]]:
    """Rows of the window with their scores, among them every one whose score is ``least`` or more.

    Args:
        window: the terms' postings there, in the order in which they are added up.
        least: greater than 0.
        wanted: which of some rids may be among the answers; None: all.
        notes: zeros by rid; it is left as zeros.
    """
    return _Window(window, scoring, least, notes).found(wanted)


class _Window:
    def __init__(
        self, window: Sequence[Slice], scoring: Scoring, least: float, notes: NDArray[np.uint8]
    ) -> None:
        self._parts = window
        self._scoring = scoring
        self._need = np.float32(least * (1 - SLACK))
        self._notes = notes
        self._unit = 1.0
        # What the terms from the i-th on can add: to any row, and to one of norm 0 where each stands once.
        self._greatest = to_come([part.weight * part.impact for part in window])
        self._once = to_come([part.weight for part in window])

    def found(self, wanted: Wanted | None) -> tuple[Places, NDArray[np.float32]]:
        own = sum(1 for bound in self._greatest[:-1] if bound >= self._need)  # terms that bring their rows
        brought = self._brought(own, wanted)
        rows: _Rows | None = None
        for i, part in enumerate(self._parts):
            held = np.empty(0, np.intp)
            if rows is not None and len(rows):
                which, held = look_up(part, rows.at, self._notes)
                rows.sums[which] += worth(part.weight, part.counts.take(held), rows.norms.take(which))
            if i < own:
                places, fresh = brought[i]
                if len(held):
                    seen = np.zeros(len(part.rids), dtype=np.bool_)
                    seen[held] = True
                    fresh = fresh.kept(np.flatnonzero(~seen.take(places)))
                rows = fresh if rows is None or not len(rows) else rows.and_these(fresh)
            if rows is not None and len(rows) > PRUNE_MIN:
                rows = rows.kept(np.flatnonzero(self._highest(rows, i + 1) >= self._need))
        if rows is None:
            return np.empty(0, np.intp), np.empty(0, np.float32)
        return rows.at, rows.sums

    def _highest(self, rows: _Rows, come: int) -> NDArray[np.float32]:
        """The most that each row can reach, with the terms from number ``come`` on."""
        highest = np.float32(self._once[come]) / (rows.norms + np.float32(1))
        highest[rows.marked] = self._greatest[come]
        highest += rows.sums
        return highest

    def _brought(self, own: int, wanted: Wanted | None) -> list[tuple[Places, _Rows]]:
        """Of each of the first ``own`` terms the postings, and their rows, that can reach the threshold with
        this term and those to come."""
        if not own:
            return []
        out: list[tuple[Places, _Rows]] = []
        units = self._units(own)
        unseen = 0.0  # weight of the terms to come that are not noted
        for i in range(len(self._parts) - 1, -1, -1):
            part = self._parts[i]
            (several,) = (part.counts > 1).nonzero()
            if i < own:
                out.append(self._able(i, several, wanted, unseen))
            if not i:
                break
            if units[i]:
                at = part.rids.astype(np.intp)
                noted = self._notes.take(at)
                noted += np.uint8(units[i])
                self._notes[at] = noted
            else:
                unseen += part.weight
            if len(several):
                self._notes[part.rids.take(several).astype(np.intp)] |= _SEVERAL
        self._forget(units)
        out.reverse()
        return out

    def _units(self, own: int) -> list[int]:
        """In what each term is noted in the rows that hold it, 0 for those that are not: their postings are
        more than what is spared. Together at most ``_NOTED``."""
        sizes = [len(part.rids) for part in self._parts]
        order = sorted(range(1, len(sizes)), key=sizes.__getitem__)[:NOTED_TERMS_MAX]
        chosen = [i for i in order if sizes[i] <= NOTED_SHARE * sum(sizes[:own])]
        whole = sum(self._parts[i].weight for i in chosen)
        self._unit = whole / (_NOTED - NOTED_TERMS_MAX) if chosen else 1.0
        units = [0] * len(sizes)
        for i in chosen:
            units[i] = math.ceil(self._parts[i].weight / self._unit)
        return units

    def _forget(self, units: Sequence[int]) -> None:
        low = min(int(part.rids[0]) for part in self._parts)
        high = max(int(part.rids[-1]) for part in self._parts) + 1
        self._notes[low:high] = 0

    def _able(self, i: int, several: Places, wanted: Wanted | None, unseen: float) -> tuple[Places, _Rows]:
        part, scoring = self._parts[i], self._scoring
        at = part.rids.astype(np.intp)
        lengths, notes = scoring.lengths.take(at), self._notes.take(at)
        may = lengths <= self._longest(part.weight + unseen).take(notes)
        may[several] = True
        (places,) = may.nonzero()
        if wanted is not None:
            places = places[wanted(at.take(places))]
        norms = scoring.norms_of(lengths.take(places))
        sums = worth(part.weight, part.counts.take(places), norms)
        rows = _Rows(at.take(places), sums, norms, notes.take(places) >= _SEVERAL)
        (able,) = (self._highest(rows, i + 1) >= self._need).nonzero()
        return places.take(able), rows.kept(able)

    def _longest(self, weight: float) -> NDArray[np.uint16]:
        """For each note the most terms that a row may have to reach the threshold with what is noted, and
        ``weight`` more, where each term stands once: weight / (1 + norm) >= need."""
        weights = weight + np.arange(_SEVERAL) * self._unit
        most = (weights / float(self._need) - 1 - float(self._scoring.fixed)) / float(self._scoring.per_term)
        out = np.full(2 * _SEVERAL, 0xFFFF, dtype=np.uint16)  # marked rows are looked at one by one
        out[:_SEVERAL] = np.clip(most + 0.01, 0, 0xFFFF)
        return out


def look_up(part: Slice, rows: Places, notes: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of ``rows`` (ascending) hold the term, and where each of these stands among the postings.

    ``notes``: zeros by rid; they are left as zeros.
    """
    if len(rows) * SEARCH_COST < len(part.rids):
        wanted = rows.astype(np.uint32)
        held = part.rids.searchsorted(wanted)
        np.minimum(held, len(part.rids) - 1, out=held)
        (which,) = (part.rids.take(held) == wanted).nonzero()
        return which, held.take(which)
    at = part.rids.astype(np.intp)
    notes[rows] = 1
    (held,) = notes.take(at).nonzero()
    notes[rows] = 0
    both = at.take(held)
    notes[both] = 1
    (which,) = notes.take(rows).nonzero()  # in the order of the rids, as ``held``
    notes[both] = 0
    return which, held


def to_come(each: Sequence[float]) -> list[float]:
    """The sum of all from each on, and 0 at the end."""
    out = [0.0]
    for value in reversed(each):
        out.append(out[-1] + value)
    return out[::-1]
