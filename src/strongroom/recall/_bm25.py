"""One question to the keyword lane: its terms' postings, and the best rows by BM25.

``best`` is MaxScore (Turtle & Flood 1995) over whole arrays: terms are taken from the rarest to the most
frequent; as soon as the k-th best sum so far is more than all terms to come could add, no new row can get
among the best, and the frequent terms are only looked up for the rows that still can. The answer is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._top import best

SLACK = 1e-5  # of sums in 32 bits
PRUNE_ROWS = 2_048  # a term of fewer postings is taken without asking whether that is needed
FEW_ROWS = 4_096  # allowed sets up to this size are scored row by row

Postings = tuple[NDArray[np.uint32], NDArray[np.uint8]]
Places = NDArray[np.intp]
"""Rids as numpy takes them to look something up: with any other type it converts them each time."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """Rows (ascending) that hold a term and how often; ``bound``: none of its contributions is greater."""

    rids: NDArray[np.uint32]
    counts: NDArray[np.uint8]
    weight: float
    bound: float


class Question:
    """The terms of a question against one lane, whose tables must not change meanwhile.

    Args:
        lengths: terms of each row, by rid.
        norm: the part of a row's norm that does not depend on its length, and the part per term of it.
        scratch: lends an array of zeros, float32, shape (at least rows,); it comes back as zeros.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        lengths: NDArray[np.uint16],
        norm: tuple[float, float],
        scratch: Callable[[], NDArray[np.float32]],
        give_back: Callable[[NDArray[np.float32]], None],
    ) -> None:
        self._terms = sorted((t for t in terms if len(t.rids)), key=lambda t: len(t.rids))
        self._lengths = lengths
        self._norm_fixed, self._norm_length = np.float32(norm[0]), np.float32(norm[1])
        self._scratch = scratch
        self._give_back = give_back

    @property
    def is_empty(self) -> bool:
        return not self._terms

    def _added(self, term: Term, at: Places, counts: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What ``term`` adds to the score of each row of ``at``, which hold it ``counts`` times."""
        count = counts.astype(np.float32)
        norm = self._lengths.take(at) * self._norm_length
        norm += self._norm_fixed
        norm += count
        count *= np.float32(term.weight)
        count /= norm
        return count

    def of(self, rids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The score of each of ``rids`` (in any order), 0 where no term occurs."""
        wanted = rids.astype(np.uint32)
        out = np.zeros(len(wanted), dtype=np.float32)
        for term in self._terms:
            self._look_up(term, wanted, out)
        return out

    def _look_up(self, term: Term, rids: NDArray[np.uint32], into: NDArray[np.float32]) -> None:
        at = term.rids.searchsorted(rids)
        np.minimum(at, len(term.rids) - 1, out=at)
        (held,) = (term.rids.take(at) == rids).nonzero()
        if len(held):
            into[held] += self._added(term, rids[held].astype(np.intp), term.counts[at[held]])

    def every(self) -> NDArray[np.float32]:
        """The score of every row, shape (rows,), 0 where no term occurs."""
        scores = np.zeros(len(self._lengths), dtype=np.float32)
        for term in self._terms:
            at = term.rids.astype(np.intp)
            scores[at] += self._added(term, at, term.counts)
        return scores

    def best(
        self, k: int, allowed: NDArray[np.int64] | NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ``k`` best rows that hold a term: (rids, scores), best first, ties newest first.

        ``allowed``: rids, or a mask by rid; None: all.
        """
        if k <= 0 or not self._terms:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        mask: NDArray[np.bool_] | None = None
        if allowed is not None and allowed.dtype == np.bool_:
            mask = allowed.astype(np.bool_, copy=False)
        elif allowed is not None:
            rids = allowed[allowed < len(self._lengths)].astype(np.int64, copy=False)
            if len(rids) <= FEW_ROWS:
                return _best_of(rids, self.of(rids), k)
            mask = np.zeros(len(self._lengths), dtype=np.bool_)
            mask[rids] = True
        scratch = self._scratch()
        touched: list[Places] = []
        try:
            return self._max_score(k, mask, scratch, touched)
        finally:
            for rows in touched:
                scratch[rows] = 0
            self._give_back(scratch)

    def _max_score(
        self,
        k: int,
        allowed: NDArray[np.bool_] | None,
        sums: NDArray[np.float32],
        touched: list[Places],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """``touched`` takes the rows whose entry in ``sums`` is no longer 0."""
        to_come = float(sum(term.bound for term in self._terms))
        least = -np.inf
        left: Sequence[Term] = ()
        for i, term in enumerate(self._terms):
            if len(term.rids) > PRUNE_ROWS and sum(map(len, touched)) >= k:
                so_far = np.concatenate([sums.take(rows) for rows in touched])
                least = float(np.partition(so_far, len(so_far) - k)[len(so_far) - k])
                if least > to_come * (1 + SLACK):
                    left = self._terms[i:]
                    break
            rids, counts = term.rids, term.counts
            if allowed is not None:
                keep = allowed[rids] if len(rids) and int(rids[-1]) < len(allowed) else _inside(allowed, rids)
                rids, counts = rids[keep], counts[keep]
            at = rids.astype(np.intp)
            before = sums.take(at)
            touched.append(at[before == 0])
            before += self._added(term, at, counts)
            sums[at] = before
            to_come -= term.bound
        for term in left:
            at = term.rids.astype(np.intp)
            before = sums.take(at)
            # Rows that are not in play have 0, which is too little.
            may = np.flatnonzero(before + np.float32(to_come) >= np.float32(least * (1 - SLACK)))
            at = at[may]
            sums[at] = before[may] + self._added(term, at, term.counts[may])
            to_come -= term.bound
        rows = np.concatenate(touched) if touched else np.empty(0, np.intp)
        scores = sums.take(rows)
        if left:
            may = np.flatnonzero(scores >= np.float32(least * (1 - SLACK)))
            rows, scores = rows[may], scores[may]
        return _best_of(rows, scores, k)


def _inside(allowed: NDArray[np.bool_], rids: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """``allowed`` of each of ``rids``, False beyond its end."""
    out = rids < len(allowed)
    out[out] = allowed[rids[out]]
    return out


def _best_of(
    rids: NDArray[np.int64], scores: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    found = scores > 0
    return best(scores[found], rids[found], k)
