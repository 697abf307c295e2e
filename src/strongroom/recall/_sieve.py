"""The rows of a window of postings whose BM25 score can reach a threshold, by marks instead of postings.

Bounds are those of ``_pruned``: a row with each of its terms once gets ``weight / (1 + norm)`` from each.
Here only the rows of the rarest terms are gone through, those that are short enough; which other terms they
hold is looked up in bits, one term after the other, and who cannot reach the threshold any more is left out
before the next. Rows in which a term stands more than once are known beforehand, with their counts and
lengths, and are gone through apart. What a window leaves is scored term by term, in the order in which sums
are always made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._marks import (
    CODES,
    COUNT_BITS,
    COUNTED_MAX,
    LENGTH_MAX,
    OTHERS,
    SHORT_MAX,
    TermMarks,
)
from strongroom.recall._pruned import (
    SLACK,
    Places,
    Scoring,
    Slice,
    Wanted,
    look_up,
    to_come,
    worth,
)

ROUNDED: Final = 1e-6  # of the weights together: more than is lost in 32 bits
TRIED_MIN: Final = 2_048  # rows that are looked at for a first threshold, if there are so many
TRIED: Final = 4  # times the answers wanted: of so many of them the scores are made
TERMS_MAX: Final = 8  # of a question: with more, notes of all postings cost less


@dataclass(slots=True, eq=False)
class _Rows:
    """Rows with the most that each can reach. A term that it turns out not to hold takes its weight times
    ``unit`` off, once: then its bit in ``off`` is set."""

    at: Places
    bound: NDArray[np.float32]
    unit: NDArray[np.float32]
    off: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def together(cls, parts: Sequence[_Rows]) -> _Rows:
        """Ascending; of a row that comes several times the first."""
        at, which = np.unique(np.concatenate([part.at for part in parts]), return_index=True)
        return cls(
            at,
            np.concatenate([part.bound for part in parts]).take(which),
            np.concatenate([part.unit for part in parts]).take(which),
            np.concatenate([part.off for part in parts]).take(which),
        )

    def kept(self, which: NDArray[np.intp]) -> _Rows:
        return _Rows(self.at.take(which), self.bound.take(which), self.unit.take(which), self.off.take(which))


class Sieve:
    """A question's terms in one range of rids.

    Args:
        terms: all of them there, in the order in which they are added up; at most ``TERMS_MAX``, with marks.
        notes: zeros by rid; they are left as zeros.
    """

    def __init__(self, terms: Sequence[Slice], scoring: Scoring, notes: NDArray[np.uint8]) -> None:
        self._scoring = scoring
        self._notes = notes
        code = np.arange(CODES)
        norms = scoring.norms_of((code & LENGTH_MAX).astype(np.uint8)).astype(np.float64)
        # By code, what a unit of weight brings at most, of a term that is not known to stand there twice.
        impact = max((part.impact for part in terms), default=1.0)
        self._unit = np.where(code & OTHERS, impact, 1 / (1 + norms)).astype(np.float32)
        self._whole = sum(part.weight for part in terms)
        self._each = {id(part.marks): self._most(part, code, norms) for part in terms}

    def _most(self, part: Slice, code: NDArray[np.intp], norms: NDArray[np.float64]) -> NDArray[np.float32]:
        """By code, the most that a row can get that holds the term more than once, and perhaps the others."""
        count = code >> COUNT_BITS
        own = np.where(count < COUNTED_MAX, count / (count + norms), part.impact) * part.weight
        return (own + (self._whole - part.weight) * self._unit).astype(np.float32)

    def least(self, terms: Sequence[Slice], k: int, wanted: Wanted | None) -> float:
        """A score that ``k`` rows reach, 0 when none is known: of the rarest terms' shortest rows, and of
        those in which they stand more than once, the ones that promise most are scored."""
        rows: list[Places] = []
        many = 0
        for part in terms:
            marks = _marks(part)
            rows += [marks.shortest[-TRIED_MIN:].astype(np.intp), marks.several[-TRIED_MIN:].astype(np.intp)]
            many += len(rows[-1]) + len(rows[-2])
            if many >= TRIED_MIN:
                break
        at = np.concatenate(rows)
        if wanted is not None:
            at = at[wanted(at)]
        once = self._scoring.once(_marks(terms[0]).lengths_of(at))
        promise = np.zeros(len(at), dtype=np.float32)
        for part in terms:
            promise += holds(part, at) * np.float32(part.weight)
        promise *= once
        if len(at) > TRIED * k:
            at = at.take(promise.argpartition(len(at) - TRIED * k)[len(at) - TRIED * k :])
        at = np.unique(at)
        if len(at) < k:
            return 0.0
        return float(np.partition(self._scores(terms, at), len(at) - k)[len(at) - k])

    def within(
        self, window: Sequence[Slice], least: float, wanted: Wanted | None
    ) -> tuple[Places, NDArray[np.float32]]:
        """As ``_pruned.within``."""
        look = _Look(window, self._scoring, least)
        # Of a row of both the bound of the first holds.
        found = _Rows.together([self._several(look), *look.once()])
        rows, scores = self._scored(look, found)
        if wanted is not None and len(rows):
            (keep,) = wanted(rows).nonzero()
            rows, scores = rows.take(keep), scores.take(keep)
        return rows, scores

    def _several(self, look: _Look) -> _Rows:
        """Rows in which some term stands more than once."""
        rows, codes, most = [], [], []
        for part in look.parts:
            marks = _marks(part)
            inside = look.inside(marks.several)
            code = marks.codes[inside]
            bound = self._each[id(marks)].take(code)
            (able,) = (bound >= look.need).nonzero()
            rows.append(marks.several[inside].take(able))
            codes.append(code.take(able))
            most.append(bound.take(able))
        at, unit = np.concatenate(rows).astype(np.intp), self._unit.take(np.concatenate(codes))
        return look.left(_Rows(at, np.concatenate(most), unit, np.zeros(len(at), dtype=np.uint8)), 0)

    def _scored(self, look: _Look, rows: _Rows) -> tuple[Places, NDArray[np.float32]]:
        """Rows with their scores, without those that do not reach the threshold."""
        sums = np.zeros(len(rows.at), dtype=np.float32)
        norms = self._scoring.norms_of(self._scoring.lengths.take(rows.at))
        for i, part in enumerate(look.parts):
            which, held = look_up(part, rows.at, self._notes)
            sums[which] += worth(part.weight, part.counts.take(held), norms.take(which))
            if len(which) < len(rows.at):
                lacks = np.ones(len(rows.at), dtype=np.bool_)
                lacks[which] = False
                able = look.able(rows, i, lacks)
                if len(able) < len(sums):
                    rows, sums, norms = rows.kept(able), sums.take(able), norms.take(able)
        return rows.at, sums

    def _scores(self, window: Sequence[Slice], rows: Places) -> NDArray[np.float32]:
        sums = np.zeros(len(rows), dtype=np.float32)
        if len(rows):
            norms = self._scoring.norms_of(self._scoring.lengths.take(rows))
            for part in window:
                which, held = look_up(part, rows, self._notes)
                sums[which] += worth(part.weight, part.counts.take(held), norms.take(which))
        return sums


class _Look:
    """One look at a window, for rows whose score is ``least`` or more."""

    def __init__(self, parts: Sequence[Slice], scoring: Scoring, least: float) -> None:
        self.parts = parts
        self._scoring = scoring
        self._come = to_come([part.weight for part in parts])
        # What is taken off a bound has been rounded like the bound: below 0 every row is left.
        self.need = np.float32(least * (1 - SLACK) - ROUNDED * self._come[0])
        low, high = min(int(p.rids[0]) for p in parts), max(int(p.rids[-1]) for p in parts)
        self._ends = np.array([low, high + 1], dtype=np.uint32)

    def inside(self, rids: NDArray[np.uint32]) -> slice:
        """Which of some ascending rids lie in the window."""
        start, end = rids.searchsorted(self._ends)
        return slice(start, end)

    def once(self) -> list[_Rows]:
        """Rows that reach it if no term stands there more than once, each with the rarest of its terms."""
        found = []
        fixed, per_term = float(self._scoring.fixed), float(self._scoring.per_term)
        for i, part in enumerate(self.parts):
            longest = float(SHORT_MAX)
            if self.need > 0:
                longest = (self._come[i] / float(self.need) - 1 - fixed) / per_term + 0.01
            if longest < 1:
                break  # and so are those after it
            marks = _marks(part)
            rids = part.rids
            if longest < marks.short + 1:
                rids = marks.shortest[self.inside(marks.shortest)]
            at = rids.astype(np.intp)
            lengths = marks.lengths_of(at)
            if longest < SHORT_MAX:
                (able,) = (lengths <= np.uint8(longest)).nonzero()
                at, lengths = at.take(able), lengths.take(able)
            once = self._scoring.once(lengths)
            before = np.full(len(at), (1 << i) - 1, dtype=np.uint8)
            found.append(self.left(_Rows(at, once * np.float32(self._come[i]), once, before), i + 1))
        return found

    def left(self, rows: _Rows, first: int) -> _Rows:
        """Those that can still reach the threshold without those terms, from number ``first`` on, that they
        do not hold."""
        for i in range(first, len(self.parts)):
            if not len(rows):
                break
            able = self.able(rows, i, ~holds(self.parts[i], rows.at))
            if len(able) < len(rows):
                rows = rows.kept(able)
        return rows

    def able(self, rows: _Rows, term: int, lacks: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Take a term off where it lacks; which rows still reach the threshold."""
        bit = np.uint8(1 << term)
        lacks &= (rows.off & bit) == 0
        rows.off |= lacks * bit
        less = lacks * np.float32(self.parts[term].weight)
        less *= rows.unit
        rows.bound -= less
        return (rows.bound >= self.need).nonzero()[0]


def holds(part: Slice, at: Places) -> NDArray[np.bool_]:
    """False for rows that do not hold the term, mostly."""
    may = _marks(part).may_hold(at)
    if may is not None:
        return may
    wanted = at.astype(np.uint32)
    held = part.rids.searchsorted(wanted)
    np.minimum(held, len(part.rids) - 1, out=held)
    found: NDArray[np.bool_] = part.rids.take(held) == wanted
    return found


def _marks(part: Slice) -> TermMarks:
    assert part.marks is not None  # who makes a sieve has looked
    return part.marks
