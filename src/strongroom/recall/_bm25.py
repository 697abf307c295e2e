"""One question to the keyword lane: its terms' postings, and the best rows by BM25. Exact.

``best`` takes the rows in windows, the newest first, each as large as a few of those before. In the first one
every posting is added up; from then on the k-th best sum so far is a threshold, and a window's rows are only
looked at where they can still reach it (``_pruned``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._marks import TermMarks
from strongroom.recall._pruned import SLACK, Scoring, Slice, Wanted, within
from strongroom.recall._sieve import TERMS_MAX, Sieve
from strongroom.recall._top import best

FEW_ROWS: Final = 4_096  # allowed sets up to this size are scored row by row
WHOLE_POSTINGS: Final = 32_768  # so few are all added up
UNCUT_MARKED: Final = 131_072  # so few are one window, where there are marks
PRUNE_ROWS: Final = 2_048  # a term of fewer postings is taken without asking whether that is needed
JOIN_POSTINGS: Final = 262_144  # so few are put into one array for each term
FIRST_POSTINGS: Final = 8_192  # of the first window
FIRST_SHARE: Final = 10  # one posting in so many when a threshold is known before
NARROW: Final = 4  # of so many rows one allowed: only its postings are looked at from the beginning
GROWTH: Final = 3  # a window is so many times as large as the one before

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows (ascending) that hold a term and how often; ``impact``: the greatest ``f / (f + norm)`` there;
    ``marks``: what else is known of them, in large pieces."""

    rids: NDArray[np.uint32]
    counts: NDArray[np.uint8]
    impact: float
    marks: TermMarks | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """``parts``: the postings, as many parts for each term of a question; the i-th parts of all terms have
    rids of one range, and the ranges grow."""

    parts: Sequence[Part]
    weight: float
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Scratch:
    """Room to work in, by rid: zeros."""

    sums: NDArray[np.float32]
    notes: NDArray[np.uint8]

    @classmethod
    def of(cls, rows: int) -> Scratch:
        return cls(np.zeros(rows, dtype=np.float32), np.zeros(rows, dtype=np.uint8))

    def clear(self) -> None:
        self.sums[:] = 0
        self.notes[:] = 0


NOTHING: Final = Part(np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.uint8), 0.0)


def size_of(parts: Sequence[Part]) -> int:
    return len(parts[0].rids) if len(parts) == 1 else sum([len(part.rids) for part in parts])


def joined(parts: list[Part]) -> list[Part]:
    """One array for each term, which for few postings costs less than windows in each segment."""
    some = [part for part in parts if len(part.rids)] if len(parts) > 1 else parts
    if len(some) < 2:
        return some or [NOTHING]
    return [
        Part(
            np.concatenate([part.rids for part in some]),
            np.concatenate([part.counts for part in some]),
            max(part.impact for part in some),
        )
    ]


class Question:
    """The terms of a question against one lane, whose tables must not change meanwhile.

    Args:
        lengths: terms of each row, by rid.
        norm: the part of a row's norm that does not depend on its length, and the part per term of it.
        live: by rid, False for removed rows that are still among the postings; None: there are none.
        scratch: lends room to work in; it comes back as it was.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        lengths: NDArray[np.uint16],
        norm: tuple[float, float],
        live: NDArray[np.bool_] | None,
        scratch: Callable[[], Scratch],
        give_back: Callable[[Scratch], None],
    ) -> None:
        self._terms = sorted((t for t in terms if t.size), key=lambda t: t.size)
        self._scoring = Scoring(lengths, np.float32(norm[0]), np.float32(norm[1]))
        self._live = live
        self._scratch = scratch
        self._give_back = give_back

    @property
    def is_empty(self) -> bool:
        return not self._terms

    def of(self, rids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The score of each of ``rids`` (in any order), 0 where no term occurs."""
        wanted = rids.astype(np.uint32)
        out = np.zeros(len(wanted), dtype=np.float32)
        for term in self._terms:
            for part in term.parts:
                if len(part.rids):
                    self._look_up(term.weight, part, wanted, out)
        if self._live is not None:
            out[~self._live.take(rids)] = 0
        return out

    def _look_up(
        self, weight: float, part: Part, rids: NDArray[np.uint32], into: NDArray[np.float32]
    ) -> None:
        at = part.rids.searchsorted(rids)
        np.minimum(at, len(part.rids) - 1, out=at)
        (held,) = (part.rids.take(at) == rids).nonzero()
        if len(held):
            into[held] += self._scoring.added(weight, rids[held].astype(np.intp), part.counts[at[held]])

    def every(self) -> NDArray[np.float32]:
        """The score of every row, shape (rows,), 0 where no term occurs."""
        scores = np.zeros(len(self._scoring.lengths), dtype=np.float32)
        for term in self._terms:
            for part in term.parts:
                at = part.rids.astype(np.intp)
                scores[at] += self._scoring.added(term.weight, at, part.counts)
        if self._live is not None:
            scores[~self._live[: len(scores)]] = 0
        return scores

    def best(self, k: int, allowed: NDArray[np.int64] | NDArray[np.bool_] | None = None) -> Found:
        """The ``k`` best rows that hold a term: (rids, scores), best first, ties newest first.

        ``allowed``: rids, or a mask by rid; None: all.
        """
        if k <= 0 or not self._terms:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        rows = len(self._scoring.lengths)
        mask: NDArray[np.bool_] | None = None
        if allowed is not None and allowed.dtype == np.bool_:
            mask = allowed.astype(np.bool_, copy=False)
        elif allowed is not None:
            rids = allowed[allowed < rows].astype(np.int64, copy=False)
            if len(rids) <= FEW_ROWS:
                return _best_of(rids, self.of(rids), k)
            mask = np.zeros(rows, dtype=np.bool_)
            mask[rids] = True
        wanted = _wanted(mask, self._live, rows)
        narrow = mask is not None and int(np.count_nonzero(mask)) * NARROW < rows
        scratch = self._scratch()
        try:
            return self._best(k, wanted, narrow, scratch)
        except BaseException:
            scratch.clear()  # an interrupt between two steps
            raise
        finally:
            self._give_back(scratch)

    def _best(self, k: int, wanted: Wanted | None, narrow: bool, scratch: Scratch) -> Found:
        pieces = len(self._terms[0].parts)
        if pieces == 1 and sum(term.size for term in self._terms) <= WHOLE_POSTINGS:
            return _best_of(*self._added_up(self._slices(0, None), wanted, scratch.sums, k), k)
        found = _Best(k)
        done = 0
        for number in range(pieces - 1, -1, -1):
            whole = self._slices(number, wanted if narrow else None)
            asked = None if narrow else wanted
            sieve: Sieve | None = None
            if len(whole) <= TERMS_MAX and all(part.marks is not None for part in whole):
                sieve = Sieve(whole, self._scoring, scratch.notes)
                if whole:
                    found.least = max(found.least, sieve.least(whole, k, asked))
            first = FIRST_POSTINGS
            if sieve is not None and found.least > 0:
                first = sum(len(part.rids) for part in whole) // FIRST_SHARE
            uncut = WHOLE_POSTINGS if sieve is None else UNCUT_MARKED
            for window in _windows(whole, done, first, uncut):
                if found.least > 0 and sieve is not None:
                    found.take(*sieve.within(window, found.least, asked))
                elif found.least > 0:
                    found.take(*within(window, self._scoring, found.least, asked, scratch.notes))
                else:
                    found.take(*self._added_up(window, asked, scratch.sums))
                done += sum(len(part.rids) for part in window)
        return found.answer()

    def _slices(self, number: int, wanted: Wanted | None) -> list[Slice]:
        """The postings of one range of rids, only the wanted ones; terms that have none are left out."""
        out = []
        for term in self._terms:
            part = term.parts[number]
            rids, counts, marks = part.rids, part.counts, part.marks
            if wanted is not None and len(rids):
                (keep,) = wanted(rids.astype(np.intp)).nonzero()
                rids, counts, marks = rids.take(keep), counts.take(keep), None
            if len(rids):
                out.append(Slice(rids, counts, term.weight, part.impact, marks))
        return out

    def _added_up(
        self, window: Sequence[Slice], wanted: Wanted | None, sums: NDArray[np.float32], k: int = 0
    ) -> Found:
        """The rows of a window with their scores; ``sums`` are zeros, and again at the end.

        ``k``: how many are wanted in the end: as soon as the k-th best sum is more than all terms to come
        can add (MaxScore), they bring no further row. 0: every row.
        """
        touched: list[NDArray[np.intp]] = []
        rows = 0
        to_come = sum(part.weight * part.impact for part in window)
        least = 0.0
        for part in window:
            if k and not least and len(part.rids) > PRUNE_ROWS and rows >= k:
                so_far = np.concatenate([sums.take(at) for at in touched])
                reached = float(np.partition(so_far, len(so_far) - k)[len(so_far) - k])
                if reached > to_come * (1 + SLACK):
                    least = reached * (1 - SLACK)
            at, counts = part.rids.astype(np.intp), part.counts
            if wanted is not None and not least:
                (keep,) = wanted(at).nonzero()
                at, counts = at.take(keep), counts.take(keep)
            before = sums.take(at)
            if least:  # rows that are not in play have 0, which is too little
                (keep,) = (before + np.float32(to_come) >= np.float32(least)).nonzero()
                at, counts, before = at.take(keep), counts.take(keep), before.take(keep)
            else:
                touched.append(at[before == 0])
                rows += len(touched[-1])
            before += self._scoring.added(part.weight, at, counts)
            sums[at] = before
            to_come -= part.weight * part.impact
        found = np.concatenate(touched) if touched else np.empty(0, np.intp)
        scores = sums.take(found)
        sums[found] = 0
        return (found, scores) if not least else _at_least(least, found, scores)


def _at_least(least: float, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
    (keep,) = (scores >= np.float32(least)).nonzero()
    return rows.take(keep), scores.take(keep)


def _best_of(rids: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Found:
    found = scores > 0
    return best(scores[found], rids[found], k)


class _Best:
    """The ``k`` best rows so far, and those that are as good as the last of them."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._rows: list[NDArray[np.int64]] = []
        self._scores: list[NDArray[np.float32]] = []
        self.least = 0.0
        """The ``k``-th best score; 0 as long as there are fewer."""

    def take(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Take in further rows, none of which came before; without a score they do not count."""
        (keep,) = (scores > 0 if self.least <= 0 else scores >= np.float32(self.least)).nonzero()
        if not len(keep):
            return
        self._rows.append(rows[keep])
        self._scores.append(scores[keep])
        if sum(map(len, self._rows)) < self._k:
            return
        rows, scores = np.concatenate(self._rows), np.concatenate(self._scores)
        least = np.partition(scores, len(scores) - self._k)[len(scores) - self._k]
        if len(rows) > self._k:
            (keep,) = (scores >= least).nonzero()
            rows, scores = rows[keep], scores[keep]
        self.least = float(least)
        self._rows, self._scores = [rows], [scores]

    def answer(self) -> Found:
        if not self._rows:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return best(np.concatenate(self._scores), np.concatenate(self._rows), self._k)


def _windows(whole: Sequence[Slice], done: int, first: int, uncut: int) -> Iterator[Sequence[Slice]]:
    """The postings of one range of rids, cut into ranges, the newest first, which has about as many as
    ``done`` came before, or ``first``; one range where there are no more than ``uncut``."""
    postings = sum(len(part.rids) for part in whole)
    if not postings:
        return
    if postings <= max(uncut, done):
        yield whole
        return
    low = min(int(part.rids[0]) for part in whole)
    high = max(int(part.rids[-1]) for part in whole) + 1
    size = max(first, done) * (high - low) / postings
    ends = [len(part.rids) for part in whole]
    while high > low:
        high = max(low, min(high - 1, int(high - size)))
        if high - low < size:
            high = low
        starts = [
            int(part.rids[:end].searchsorted(np.uint32(high))) for part, end in zip(whole, ends, strict=True)
        ]
        cut = [part.cut(a, b) for part, a, b in zip(whole, starts, ends, strict=True) if b > a]
        if cut:
            yield cut
        ends = starts
        size *= GROWTH


def _wanted(mask: NDArray[np.bool_] | None, live: NDArray[np.bool_] | None, rows: int) -> Wanted | None:
    """``mask`` (False beyond its end) and ``live`` together; None: every row."""
    if mask is not None and len(mask) < rows:
        mask = np.concatenate([mask, np.zeros(rows - len(mask), dtype=np.bool_)])
    if mask is None:
        return None if live is None else live.take
    if live is None:
        return mask.take
    both = mask
    return lambda at: both.take(at) & live.take(at)
