"""Where each memory id is: a map from 16 bytes to a row number without an object per entry.

Most entries lie in two sorted arrays (a 64-bit mixture of the id, and the row), 12 bytes each; the newest
ones wait in a dictionary and are merged in when they are many. An entry whose row was given up is passed
over and dropped at the next merge. The mixture uses numbers of this process, so that chosen ids do not
collide; the id itself is compared in any case.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import thread_started

ID_BYTES = 16
ROWS_MIN = 16  # that there is room for: most namespaces of a store may be small
AHEAD_ROWS_MIN = 50_000  # from here on they are sorted on a thread of its own
WAITING_MIN = 8_192  # entries that wait before a merge ...
WAITING_SHARE = 1 / 16  # ... and this share of all


class IdTable:
    """The id of each row, and the row of each id. Not thread-safe."""

    def __init__(self) -> None:
        self.ids: NDArray[np.uint8] = np.zeros((0, ID_BYTES), dtype=np.uint8)  # by rid
        self.rows = 0  # that were ever given out
        self._live = np.zeros(0, dtype=np.bool_)  # by rid
        self._count = 0
        self._hashes = np.empty(0, dtype=np.uint64)  # sorted
        self._rids = np.empty(0, dtype=np.uint32)
        self._waiting: dict[bytes, int] = {}
        self._mix = (secrets.randbits(64) | 1, secrets.randbits(64) | 1)
        self._sorting: threading.Thread | None = None
        self._twice = False
        self._failure: MemoryError | None = None

    def __len__(self) -> int:
        return self._count

    def get(self, memory_id: bytes) -> int | None:
        """The live row of an id."""
        rid = self._waiting.get(memory_id)
        if rid is not None:
            return rid
        if self._sorting is not None:
            self.is_distinct()
        hashes = self._hashes
        if not len(hashes):
            return None
        low, high = int.from_bytes(memory_id[:8], "little"), int.from_bytes(memory_id[8:], "little")
        wanted = np.uint64((low * self._mix[0] + high * self._mix[1]) & 0xFFFFFFFFFFFFFFFF)
        at = int(hashes.searchsorted(wanted))
        while at < len(hashes) and hashes[at] == wanted:
            rid = int(self._rids[at])
            if self._live[rid] and self.ids[rid].tobytes() == memory_id:
                return rid
            at += 1
        return None

    def id_at(self, rid: int) -> bytes:
        return bytes(self.ids[rid].data)

    def add(self, memory_id: bytes) -> int:
        """A new row for an id that has none (any more)."""
        rid = self.rows
        if rid >= len(self._live):
            self._grow(max(rid + 1, rid + rid // 2, ROWS_MIN))
        self.ids[rid] = np.frombuffer(memory_id, dtype=np.uint8)
        self._live[rid] = True
        self.rows = rid + 1
        self._count += 1
        self._waiting[memory_id] = rid
        if len(self._waiting) > max(WAITING_MIN, int(self._count * WAITING_SHARE)):
            self._merge()
        return rid

    def retire(self, rid: int) -> None:
        """The row stands for no memory any more; its id stays readable."""
        self._live[rid] = False
        self._count -= 1
        memory_id = self.id_at(rid)
        if self._waiting.get(memory_id) == rid:
            del self._waiting[memory_id]

    def live(self) -> NDArray[np.int64]:
        """The live rows, ascending."""
        return np.flatnonzero(self._live[: self.rows])

    def _grow(self, size: int) -> None:
        ids = np.zeros((size, ID_BYTES), dtype=np.uint8)
        ids[: self.rows] = self.ids[: self.rows]
        live = np.zeros(size, dtype=np.bool_)
        live[: self.rows] = self._live[: self.rows]
        self.ids, self._live = ids, live

    def _merge(self) -> None:
        """Put everything that is live into the sorted arrays."""
        self.is_distinct()
        waiting = np.fromiter(self._waiting.values(), dtype=np.uint32, count=len(self._waiting))
        hashes = self._mixed(waiting)
        order = np.argsort(hashes)
        hashes, waiting = hashes[order], waiting[order]
        keep = self._live[self._rids]
        old_hashes, old_rids = self._hashes[keep], self._rids[keep]
        at = np.searchsorted(old_hashes, hashes)
        self._hashes, self._rids = np.insert(old_hashes, at, hashes), np.insert(old_rids, at, waiting)
        self._waiting = {}

    def _mixed(self, rids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        halves = self.ids[rids].view("<u8")
        with np.errstate(over="ignore"):
            mixed: NDArray[np.uint64] = halves[:, 0] * np.uint64(self._mix[0])
            mixed += halves[:, 1] * np.uint64(self._mix[1])
        return mixed

    def fill(self, ids: NDArray[np.uint8]) -> None:
        """Become the table of ``ids``, shape (rows, 16), all live. Many are sorted on a thread of its own.

        Whoever looks one up waits for that; ``is_distinct`` tells whether they may be looked up at all.
        """
        self.ids, self.rows, self._count = ids, len(ids), len(ids)
        self._live = np.ones(len(ids), dtype=np.bool_)
        if len(ids) < AHEAD_ROWS_MIN:
            self._sort()
        else:
            sorting = threading.Thread(target=self._sort, name="strongroom-ids", daemon=True)
            if thread_started(sorting):
                self._sorting = sorting
            else:
                self._sort()

    def _sort(self) -> None:
        try:
            hashes = self._mixed(np.arange(self.rows, dtype=np.uint32))
            order = np.argsort(hashes)
            self._hashes, self._rids = hashes[order], order.astype(np.uint32)
            self._twice = any(self._twins())
        except MemoryError as e:
            self._failure = e

    def is_distinct(self) -> bool:
        """Wait for the sorting; False when an id of ``fill`` occurs twice. Raises: MemoryError."""
        sorting = self._sorting
        if sorting is not None:
            sorting.join()
            self._sorting = None
        if self._failure is not None:
            raise self._failure
        return not self._twice

    def _twins(self) -> Iterator[bool]:
        """Whether rows of equal hashes have equal ids, for each such pair of neighbours."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        if len(same) > 1_000:  # no accident
            yield True
        for at in same.tolist():
            yield bool(np.array_equal(self.ids[self._rids[at]], self.ids[self._rids[at + 1]]))

    def memory_bytes(self) -> int:
        return (
            self.ids.nbytes
            + self._live.nbytes
            + self._hashes.nbytes
            + self._rids.nbytes
            + len(self._waiting) * 150
        )
