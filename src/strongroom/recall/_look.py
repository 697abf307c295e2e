"""The nearest vectors in some lists: exactly among few of them, or as far as ``Reach`` says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import InvertedLists, Rids, Rows
from strongroom.recall._reach import MARKS_MAX, Reach
from strongroom.recall._top import best

TINY_ROWS = 128  # allowed sets up to this size are scored by taking them out of their lists
TIES_ROWS = 8  # that are looked at beyond k, to see whether the cut goes through equal scores
EQUAL_GROWTH = 16  # of how many are looked at, while it does: each look reads all of the rows again


@dataclass(slots=True, eq=False)
class Proposed:
    """Rows that another lane proposes for the same question: they are looked at, wherever they lie.

    ``sure``: so many of the best are to be found as if nobody had proposed any; of the others those that are
    proposed, and most. ``known``: the rows, all different, in any order; None: it is not known yet which.
    ``now``: the same, waiting for them. ``is_near`` is set by the search when its scores may differ in the
    last bits from those of ``InvertedLists.scores``; equal vectors have equal ones all the same.
    ``is_compared``: they must not, since rows that are found elsewhere are put into one order with these.
    """

    sure: int
    known: Callable[[], Rids | None]
    now: Callable[[], Rids]
    is_near: bool = False
    is_compared: bool = False


def among(lists: InvertedLists, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
    """The best of few rows, all of which have a vector, exactly."""
    fetch = min(k + TIES_ROWS, len(rids))
    while len(rids) > TINY_ROWS and fetch < len(rids) // 4:
        found, scores = lists.search_among(query, fetch, rids)
        if scores[k - 1] != scores[-1]:
            return best(lists.scores(query, found), found, k)
        fetch *= EQUAL_GROWTH
    return best(lists.scores(query, rids), rids, k)


def look(
    lists: InvertedLists,
    reach: Reach,
    query: Rows,
    k: int,
    size: int,
    bitmap: NDArray[np.uint8] | None,
    proposed: Proposed | None = None,
) -> tuple[Rids, Rows]:
    """The best of all rows, or of those that ``bitmap`` allows: ``size``, more or less."""
    probes, rows = lists.lists, lists.rows
    if lists.is_trained and k * 8 < size:
        share, per_list = min(1.0, size / rows), rows / lists.lists
        probes, again = reach.look(k, share, per_list)
        if again and lists.codes is not None:
            ways = [(probes, again)]
            if proposed is not None and proposed.sure < k:
                near = reach.look(proposed.sure, share, per_list)
                ways = [near, *ways] if near[1] else ways
            for way in ways:
                found = sketched(lists, query, k, way, bitmap, proposed)
                if found is not None:
                    return found
    fetch = min(k + TIES_ROWS, rows)
    while True:
        rids, scores = lists.search(query, fetch, probes, bitmap)
        if len(rids) < k and probes < lists.lists:
            probes *= 4
        elif fetch == len(rids) < rows and scores[k - 1] == scores[-1]:
            fetch = min(fetch * EQUAL_GROWTH, rows)
        else:
            return best(lists.scores(query, rids), rids, k)


def sketched(
    lists: InvertedLists,
    query: Rows,
    k: int,
    reach: tuple[int, int],
    bitmap: NDArray[np.uint8] | None,
    proposed: Proposed | None = None,
) -> tuple[Rids, Rows] | None:
    """The best of the rows that come first by their short codes; of more where the cut parts equal rows.

    None: there are too few in those lists, or more equal ones than can be looked at.
    """
    probes, again = reach
    again = max(again, k + TIES_ROWS)
    while True:
        rids, near = lists.sketch(query, again, probes, bitmap)
        if len(rids) < k:
            return None
        early = None if proposed is None else proposed.known()
        looked_at = rids if early is None else np.concatenate([rids, early[lists.has(early)]])
        found, scores = _first(lists, query, k, looked_at)  # a row that is there twice is looked at once
        if proposed is not None and early is None:
            found, scores = _with(lists, query, (found, scores), rids, proposed.now())
        if len(rids) < again or not _meet(found[scores >= scores[k - 1]], rids[near == near[-1]]):
            break
        if again >= MARKS_MAX:
            return None
        again = min(EQUAL_GROWTH * again, MARKS_MAX)  # equal rows have equal codes: some may be missing
    if proposed is None or proposed.is_compared:
        return best(lists.scores(query, found), found, k)
    proposed.is_near = True
    return best(scores, found, k)


def _with(
    lists: InvertedLists, query: Rows, found: tuple[Rids, Rows], rids: Rids, proposed: Rids
) -> tuple[Rids, Rows]:
    """What was found among ``rids``, and the proposed rows that are none of them: the best first."""
    known = set(rids.tolist())
    others = [rid for rid in proposed[lists.has(proposed)].tolist() if rid not in known]
    if not others:
        return found
    more = lists.search_among(query, len(others), np.array(others, dtype=np.int64))
    every, scores = np.concatenate([found[0], more[0]]), np.concatenate([found[1], more[1]])
    order = np.argsort(-scores, kind="stable")
    return every[order], scores[order]


def _first(lists: InvertedLists, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
    """Some more than the best ``k`` of ``rids``, and all that are equal to the last of those.

    There are ``k`` of them, and some may be there twice.
    """
    fetch = min(k + TIES_ROWS, len(rids))
    found, scores = lists.search_among(query, fetch, rids)
    if len(found) < len(rids) and scores[k - 1] == scores[-1]:
        found, scores = lists.search_among(query, len(rids), rids)
        first = scores >= scores[min(fetch, len(scores)) - 1]
        found, scores = found[first], scores[first]
    return found, scores


def _meet(some: Rids, others: Rids) -> bool:
    return not set(some.tolist()).isdisjoint(others.tolist())
