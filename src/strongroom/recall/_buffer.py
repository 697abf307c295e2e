"""Changes of one table that wait for the next query."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom.errors import InternalError
from strongroom.recall._columns import ACCESS_COUNT, HAS_EMBEDDING, INT64_MAX, LAST_ACCESSED_AT, RID, Row

__all__ = ["Batch", "ChangeBuffer"]

TIME_US_MAX: Final = 2**58  # about nine thousand years on either side of 1970
_NO_RID: Final = -1


@dataclass(slots=True)
class Batch:
    """What one transaction applies: rows to add and rids to take away never meet in one batch."""

    rows: dict[int, Row] = field(default_factory=dict, repr=False)
    removed: set[int] = field(default_factory=set)
    embedded: dict[int, bool] = field(default_factory=dict)
    access: dict[int, tuple[int, int | None]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.rows or self.removed or self.embedded or self.access)


class ChangeBuffer:
    """Collects changes; a row that still waits takes its own changes with it.

    A change of a rid that was never appended is dropped: it must not fall on a row that comes later.
    ``expires_us_min``: the earliest ``expires_at`` ever seen, in microseconds UTC; None: none yet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = Batch()
        self._rid_last = _NO_RID
        self.expires_us_min: int | None = None

    def append(self, rows: Sequence[Row], expires_us: int | None) -> None:
        """Add rows in the order of their growing rids; all or none."""
        with self._lock:
            last = self._rid_last
            for row in rows:
                if row[RID] <= last:
                    raise InternalError("row ids must grow")
                last = row[RID]
            self._rid_last = last
            self._waiting.rows.update((row[RID], row) for row in rows)
            if expires_us is not None and (self.expires_us_min is None or expires_us < self.expires_us_min):
                self.expires_us_min = expires_us

    @property
    def rid_last(self) -> int:
        """The greatest rid that was ever appended; -1: none."""
        return self._rid_last

    @property
    def rows(self) -> int:
        """How many rows wait to be added."""
        return len(self._waiting.rows)

    def few(self, rows_max: int) -> list[Row] | None:
        """Copies of all rows that wait, in their order; None when they are more than that."""
        with self._lock:
            rows = self._waiting.rows
            return None if len(rows) > rows_max else [row.copy() for row in rows.values()]

    def continue_after(self, rid_last: int, expires_us_min: int | None) -> None:
        """The table was filled from elsewhere up to ``rid_last``; for an empty buffer."""
        with self._lock:
            self._rid_last = rid_last
            self.expires_us_min = expires_us_min

    def remove(self, rids: Sequence[int]) -> None:
        with self._lock:
            for rid in rids:
                if rid <= self._rid_last:
                    _remove(self._waiting, int(rid))

    def set_embedded(self, rids: Sequence[int], embedded: bool) -> None:
        with self._lock:
            for rid in rids:
                row = self._waiting.rows.get(int(rid))
                if row is not None:
                    row[HAS_EMBEDDING] = bool(embedded)
                elif rid <= self._rid_last:
                    self._waiting.embedded[int(rid)] = bool(embedded)

    def set_access(self, rid: int, count: int, last_us: int | None) -> None:
        if not 0 <= count <= INT64_MAX or abs(last_us or 0) > TIME_US_MAX:
            raise InternalError("an access counter is out of range")
        with self._lock:
            row = self._waiting.rows.get(int(rid))
            if row is not None:
                row[ACCESS_COUNT], row[LAST_ACCESSED_AT] = int(count), last_us
            elif rid <= self._rid_last:
                self._waiting.access[int(rid)] = (int(count), last_us)

    def clear(self) -> None:
        with self._lock:
            self._waiting = Batch()

    def take(self, *, counters: bool, counters_max: int) -> Batch | None:
        """What has to be applied now, or None.

        Changes of ``has_embedding`` and the access counters stay back when ``counters`` is false,
        unless more than ``counters_max`` of them wait.
        """
        with self._lock:
            waiting = self._waiting
            if len(waiting.embedded) + len(waiting.access) > counters_max:
                counters = True
            if not (waiting.rows or waiting.removed) and not (counters and not waiting.is_empty):
                return None
            self._waiting = Batch()
            if not counters:
                self._waiting.embedded, waiting.embedded = waiting.embedded, {}
                self._waiting.access, waiting.access = waiting.access, {}
            return waiting

    def put_back(self, batch: Batch) -> None:
        """Undo ``take`` after the transaction failed; changes made meanwhile come on top."""
        with self._lock:
            later, self._waiting = self._waiting, batch
            for rid in later.removed:
                _remove(batch, rid)
            for rid, embedded in later.embedded.items():
                row = batch.rows.get(rid)
                if row is None:
                    batch.embedded[rid] = embedded
                else:
                    row[HAS_EMBEDDING] = embedded
            for rid, access in later.access.items():
                row = batch.rows.get(rid)
                if row is None:
                    batch.access[rid] = access
                else:
                    row[ACCESS_COUNT], row[LAST_ACCESSED_AT] = access
            batch.rows.update(later.rows)


def _remove(batch: Batch, rid: int) -> None:
    batch.embedded.pop(rid, None)
    batch.access.pop(rid, None)
    if batch.rows.pop(rid, None) is None:
        batch.removed.add(rid)
