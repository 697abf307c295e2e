"""Lists made out of others, which go on being searched and changed meanwhile (``vectors``).

First it is found out which vector belongs where; then they move, some thousand at a time, and what they leave
goes back to the system: there is never a second copy of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strongroom.recall._allocator import PAGE_BYTES, give_back_pages
from strongroom.recall._ivf import PIECE_ROWS, TRAIN_PER_LIST, InvertedLists, Rids, Rows, decoded, list_count
from strongroom.recall._threads import BackgroundTask, ReadWriteLock

MOVE_ROWS = 2_048  # that move in one go, while searches wait
_PAUSE_S = 0.05
_SEED = 0x5EED
_UNKNOWN = np.iinfo(np.uint16).max  # the list of a row


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Empty lists, and the number of the one that each vector is to come into, by rid.

    ``_UNKNOWN`` and what is beyond: still to be found out.
    """

    lists: InvertedLists
    assigned: NDArray[np.uint16]


def plain_plan(old: InvertedLists) -> Plan:
    """Lists without centroids."""
    return Plan(InvertedLists(old.dimensions), np.empty(0, np.uint16))


def trained_plan(old: InvertedLists, lock: ReadWriteLock, task: BackgroundTask) -> Plan | None:
    """Lists with what k-means finds in a sample of ``old``, and with short codes where there can be some.

    None: there are too few vectors, or ``task`` is to stop.
    """
    with lock.read:
        rids = np.flatnonzero(old.places >= 0)
    lists = list_count(len(rids))
    wanted = min(len(rids), lists * TRAIN_PER_LIST)
    chosen = np.sort(np.random.default_rng(_SEED).choice(rids, size=wanted, replace=False))
    end = int(rids[-1]) + 1 if len(rids) else 0
    del rids
    sample = _gathered(old, chosen, lock)
    if len(sample) < lists or task.stopping:
        return None
    made = InvertedLists.trained(sample, lists)
    made.give_codes(sample)
    del sample
    assigned = np.full(end, _UNKNOWN, dtype=np.uint16)
    for ids, rows in _decoded(old, lock, task):
        inside = ids < end
        assigned[ids[inside]] = made.assign(rows)[inside]
    return None if task.stopping else Plan(made, assigned)


class Move:
    """Vectors on their way from ``old`` lists into others, which are searched together meanwhile.

    ``touched``: to it the lane adds the rids of every change that it makes, under its lock.
    """

    def __init__(self, old: InvertedLists, plan: Plan) -> None:
        self.old = old
        self.touched: list[Rids] = []
        self._made = plan.lists
        self._assigned = plan.assigned
        self._counts = np.bincount(plan.assigned, minlength=plan.lists.lists)[: plan.lists.lists]
        self._held, self._left = old.sizes.copy(), old.sizes.copy()  # entries of each list: once, and now

    def carry_out(self, lock: ReadWriteLock, task: BackgroundTask) -> bool:
        """Move everything; False: ``task`` is to stop. To be called again after an error."""
        for rids in self._by_lists():
            if not self._may_go_on(task):
                return False
            self._step(rids, self._assigned[rids].astype(np.int64), lock)
        self._assigned = np.empty(0, np.uint16)
        while True:  # what has come under another rid, and what changed just then
            if not self._may_go_on(task):
                return False
            with lock.read:
                rids = self._some()
            if not len(rids):
                return True
            self._step(rids, None, lock)

    def _may_go_on(self, task: BackgroundTask) -> bool:
        """Waits as long as somebody writes the lists out: for them every list that changes is copied."""
        while (self.old.is_frozen or self._made.is_frozen) and not task.stopping:
            time.sleep(_PAUSE_S)
        return not task.stopping

    def _by_lists(self) -> Iterator[Rids]:
        """The rids whose list is known: list after list, about ``MOVE_ROWS`` at a time."""
        order = np.argsort(self._assigned, kind="stable")
        ends = np.cumsum(self._counts)
        last = np.flatnonzero(np.diff(ends // MOVE_ROWS, append=-1))
        start = 0
        for end in ends[last].tolist():
            for at in range(start, end, 2 * MOVE_ROWS):
                yield order[at : min(at + 2 * MOVE_ROWS, end)]
            start = end

    def _some(self) -> Rids:
        held = np.flatnonzero(self.old.sizes)
        return self.old.last_ids(int(held[-1]), MOVE_ROWS) if len(held) else np.empty(0, np.int64)

    def _step(self, rids: Rids, lists: Rids | None, lock: ReadWriteLock) -> None:
        made = self._made
        with lock.read:
            self.touched.clear()  # nobody changes anything now
            there = self.old.has(rids)
            rids = rids[there]
            rows = self.old.gather(rids)
        if not len(rids):
            return
        numbers = made.assign(rows) if lists is None else lists[there]
        flat = made.codes.of(rows) if made.codes is not None else None
        with lock.write:
            if self.touched:
                same = ~np.isin(rids, np.concatenate(self.touched))
                rids, rows, numbers = rids[same], rows[same], numbers[same]
                flat = flat[same] if flat is not None else None
            if lists is not None:
                made.presize(np.unique(numbers), self._counts)
            made.add(rids, rows, numbers, flat)  # first: when there is no memory for it nothing is lost
            self.old.remove(rids)
            self._give_back()

    def _give_back(self) -> None:
        """Let the system have the memory behind the last entry of each list."""
        for number in np.flatnonzero(self.old.sizes < self._left).tolist():
            size, left, held = (int(a[number]) for a in (self.old.sizes, self._left, self._held))
            for values in self.old.memory_of(number, held):
                width = values.strides[0]
                end = min(
                    held * width, left * width + PAGE_BYTES
                )  # a page is given back when all of it is free
                give_back_pages(values.ctypes.data + size * width, end - size * width)
            self._left[number] = size


def _gathered(lists: InvertedLists, rids: Rids, lock: ReadWriteLock) -> Rows:
    """The vectors of those rids that have one."""
    rows = np.empty((len(rids), lists.dimensions), np.float32)
    end = 0
    for start in range(0, len(rids), PIECE_ROWS):
        part = rids[start : start + PIECE_ROWS]
        with lock.read:
            found = lists.gather(part[lists.has(part)])
        rows[end : end + len(found)] = found
        end += len(found)
    return rows[:end]


def _decoded(lists: InvertedLists, lock: ReadWriteLock, task: BackgroundTask) -> Iterator[tuple[Rids, Rows]]:
    """The vectors, a few thousand at a time, while others change them.

    One that changes its place meanwhile can be left out or come twice. Ends early when ``task`` is to stop.
    """
    waiting: list[tuple[Rids, NDArray[np.uint16]]] = []
    rows = 0
    for number in range(lists.lists):
        start = 0
        while not task.stopping:
            with lock.read:
                ids, codes = lists.copy(number, start, PIECE_ROWS)
            if not len(ids):
                break
            start += len(ids)
            rows += len(ids)
            waiting.append((ids, codes))
            if rows >= PIECE_ROWS // 2:
                yield _joined(waiting)
                waiting, rows = [], 0
    if waiting and not task.stopping:
        yield _joined(waiting)


def _joined(pieces: list[tuple[Rids, NDArray[np.uint16]]]) -> tuple[Rids, Rows]:
    ids, codes = zip(*pieces, strict=True)
    return np.concatenate(ids), decoded(np.concatenate(codes))
