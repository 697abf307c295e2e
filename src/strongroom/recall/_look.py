"""The nearest vectors in some lists: exactly among few of them, or as far as ``Reach`` says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import InvertedLists, Rids, Rows
from strongroom.recall._reach import Reach
from strongroom.recall._top import best

TINY_ROWS = 128  # allowed sets up to this size are scored by taking them out of their lists
TIES_ROWS = 8  # that are looked at beyond k, to see whether the cut goes through equal scores


def among(lists: InvertedLists, query: Rows, k: int, rids: Rids) -> tuple[Rids, Rows]:
    """The best of few rows, all of which have a vector, exactly."""
    fetch = min(k + TIES_ROWS, len(rids))
    while len(rids) > TINY_ROWS and fetch < len(rids) // 4:
        found, scores = lists.search_among(query, fetch, rids)
        if scores[k - 1] != scores[-1]:
            return best(lists.scores(query, found), found, k)
        fetch *= 4
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
            fetch = min(fetch * 4, rows)
        else:
            return best(lists.scores(query, rids), rids, k)


def sketched(
    lists: InvertedLists, query: Rows, k: int, reach: tuple[int, int], bitmap: NDArray[np.uint8] | None
) -> tuple[Rids, Rows] | None:
    """The best of the rows that come first by their short codes.

    None: there are too few in those lists, or the cut may go through equal rows.
    """
    probes, again = reach
    again = max(again, k + TIES_ROWS)
    rids, near = lists.sketch(query, again, probes, bitmap)
    if len(rids) < k:
        return None
    found, scores = lists.search_among(query, min(k + TIES_ROWS, len(rids)), rids)
    last = scores[k - 1]
    if len(found) < len(rids) and last == scores[-1]:
        return None
    if len(rids) == again and _meet(found[scores == last], rids[near == near[-1]]):
        return None  # equal rows have equal codes: some of the last ones may be missing
    return best(lists.scores(query, found), found, k)


def _meet(some: Rids, others: Rids) -> bool:
    return not set(some.tolist()).isdisjoint(others.tolist())
