"""Lists made out of others, which go on being searched and changed meanwhile (``vectors``)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._ivf import PIECE_ROWS, TRAIN_PER_LIST, InvertedLists, Rids, Rows, decoded, list_count
from strongroom.recall._threads import BackgroundTask, ReadWriteLock

_SEED = 0x5EED
_UNKNOWN = np.iinfo(np.uint16).max  # the list of a row


def plain_lists(old: InvertedLists, lock: ReadWriteLock, task: BackgroundTask) -> InvertedLists | None:
    """Lists without centroids, filled from ``old`` under ``lock``; None: ``task`` is to stop."""
    made = InvertedLists(old.dimensions)
    for number in range(old.lists):
        with lock.read:
            ids, codes = old.copy(number)
        made.add(ids, decoded(codes))
        if task.stopping:
            return None
    return made


def trained_lists(old: InvertedLists, lock: ReadWriteLock, task: BackgroundTask) -> InvertedLists | None:
    """Lists trained on a sample of ``old`` and filled from it, under ``lock``, with short codes.

    None: there are too few vectors, or ``task`` is to stop.
    """
    with lock.read:
        rids = np.flatnonzero(old.places >= 0)
    lists = list_count(len(rids))
    wanted = min(len(rids), lists * TRAIN_PER_LIST)
    chosen = np.sort(np.random.default_rng(_SEED).choice(rids, size=wanted, replace=False))
    sample = np.concatenate(list(_gathered(old, chosen, lock)))
    if len(sample) < lists or task.stopping:
        return None
    made = InvertedLists.trained(sample, lists)
    assigned = np.full(int(rids[-1]) + 1, _UNKNOWN, dtype=np.uint16)
    for ids, rows in _decoded(old, lock, task):
        inside = ids < len(assigned)
        assigned[ids[inside]] = made.assign(rows)[inside]
    made.presize(np.bincount(assigned[assigned != _UNKNOWN], minlength=lists))
    for ids, rows in _decoded(old, lock, task):
        chosen_lists = np.full(len(ids), _UNKNOWN, dtype=np.int64)
        inside = ids < len(assigned)
        chosen_lists[inside] = assigned[ids[inside]]
        new = chosen_lists == _UNKNOWN
        if new.any():
            chosen_lists[new] = made.assign(rows[new])
        made.add(ids, rows, chosen_lists)
    made.give_codes(sample, stopping=lambda: task.stopping)
    return None if task.stopping else made


def _gathered(lists: InvertedLists, rids: Rids, lock: ReadWriteLock) -> Iterator[Rows]:
    for start in range(0, len(rids), PIECE_ROWS):
        part = rids[start : start + PIECE_ROWS]
        with lock.read:
            yield lists.gather(part[lists.has(part)])


def _decoded(lists: InvertedLists, lock: ReadWriteLock, task: BackgroundTask) -> Iterator[tuple[Rids, Rows]]:
    """Every vector once, a few thousand at a time; ends early when ``task`` is to stop."""
    for ids, codes in _pieces(lists, lock, task):
        yield ids, decoded(codes)


def _pieces(
    lists: InvertedLists, lock: ReadWriteLock, task: BackgroundTask
) -> Iterator[tuple[Rids, NDArray[np.uint16]]]:
    """Ids and codes of several lists at a time, while others change them."""
    waiting: list[tuple[Rids, NDArray[np.uint16]]] = []
    rows = 0
    for number in range(lists.lists):
        if task.stopping:
            return
        with lock.read:
            ids, codes = lists.copy(number)
        waiting.append((ids, codes))
        rows += len(ids)
        if rows >= PIECE_ROWS // 2 or number == lists.lists - 1:
            columns = tuple(np.concatenate(column) for column in zip(*waiting, strict=True))
            for start in range(0, rows, PIECE_ROWS):
                a, b = (column[start : start + PIECE_ROWS] for column in columns)
                yield a, b
            waiting, rows = [], 0
