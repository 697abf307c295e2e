"""The nearest vectors in some lists: exactly among few of them, or as far as ``Reach`` says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import InvertedLists, Rids, Rows
from strongroom.recall._reach import MARKS_MAX, Reach
from strongroom.recall._top import best

TINY_ROWS = 128  # allowed sets up to this size are scored by taking them out of their lists
TIES_ROWS = 8  # that are looked at beyond k, to see whether the cut goes through equal scores
EQUAL_GROWTH = 16  # of how many are looked at, while it does: each look reads all of the rows again


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
    lists: InvertedLists, reach: Reach, query: Rows, k: int, size: int, bitmap: NDArray[np.uint8] | None
) -> tuple[Rids, Rows]:
    """The best of all rows, or of those that ``bitmap`` allows: ``size``, more or less."""
    probes, rows = lists.lists, lists.rows
    if lists.is_trained and k * 8 < size:
        share = min(1.0, size / rows)
        probes, again = reach.look(k, share, rows / lists.lists)
        if again and lists.codes is not None:
            found = sketched(lists, query, k, (probes, again), bitmap)
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
    lists: InvertedLists, query: Rows, k: int, reach: tuple[int, int], bitmap: NDArray[np.uint8] | None
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
        found, scores = _first(lists, query, k, rids)
        if len(rids) < again or not _meet(found[scores >= scores[k - 1]], rids[near == near[-1]]):
            return best(lists.scores(query, found), found, k)
        if again >= MARKS_MAX:
            return None
        again = min(EQUAL_GROWTH * again, MARKS_MAX)  # equal rows have equal codes: some may be missing


def _first(lists: InvertedLists, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
    """Some more than the best ``k`` of ``rids``, and all that are equal to the last of those."""
    fetch = min(k + TIES_ROWS, len(rids))
    found, scores = lists.search_among(query, fetch, rids)
    if len(found) < len(rids) and scores[k - 1] == scores[-1]:
        found, scores = lists.search_among(query, len(rids), rids)
        first = scores >= scores[fetch - 1]
        found, scores = found[first], scores[first]
    return found, scores


def _meet(some: Rids, others: Rids) -> bool:
    return not set(some.tolist()).isdisjoint(others.tolist())
