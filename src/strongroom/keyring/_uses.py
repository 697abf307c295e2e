"""How often each key has sealed: counted in memory, written in batches, never understated.

A process keeps at most ``USES_BUFFERED_MAX`` uses of one key in memory. Before its first use it adds
one to ``sessions.unflushed`` in the file, and takes it off again when it ends after a last flush. So

    uses of a key <= uses in the file + USES_BUFFERED_MAX * unflushed

whatever crashed and whoever else runs; the right side is what is held against the limit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final

from strongroom.errors import InvalidInputError, KeyExhaustedError, KeyStateError
from strongroom.keyring._book import Book
from strongroom.keyring._rows import KEY_ID_MAX

USES_MAX: Final = 2**32
USES_BUFFERED_MAX: Final = 4096
KEYS_BUFFERED_MAX: Final = 16_384


class UseCounter:
    """The counters of one process. Lock order: this lock, then the book's."""

    def __init__(self, book: Book, uses_max: int) -> None:
        if not 1 <= uses_max <= USES_MAX:
            raise InvalidInputError(f"a key has a limit of 1 to {USES_MAX} uses")
        self._book = book
        self._uses_max = uses_max
        self._lock = threading.Lock()
        self._pending: dict[int, int] = {}
        self._admitted: set[int] = set()
        self._in_session = False

    def count(self, key_id: int, n: int) -> None:
        """Note ``n`` uses before they happen.

        Raises:
            KeyExhaustedError: they might pass the limit. KeyStateError: there is no such key.
            StorageError: a flush was due and failed; then the uses are not counted and must not happen.
        """
        self.count_all(((key_id, n),))

    def count_all(self, uses: Iterable[tuple[int, int]]) -> None:
        """``count`` for each ``(key_id, n)``; of those before one that is refused more may have been noted.

        Raises:
            As ``count``.
        """
        with self._lock:
            for key_id, n in uses:
                pending = self._pending.get(key_id, 0) + n
                if (
                    self._in_session
                    and key_id in self._admitted
                    and pending <= USES_BUFFERED_MAX
                    and len(self._pending) < KEYS_BUFFERED_MAX
                ):
                    self._pending[key_id] = pending
                else:
                    self._count_slowly(key_id, n)

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            StorageError: it stays pending.
        """
        with self._lock:
            self._flush()

    def admit_new(self, key_ids: Iterable[int]) -> None:
        """Keys that were just made need no look at their counters."""
        with self._lock:
            if self._headroom(0) >= USES_BUFFERED_MAX:
                if len(self._admitted) > 8 * KEYS_BUFFERED_MAX:
                    self._admitted.clear()
                self._admitted.update(key_ids)

    def end(self) -> None:
        """Flush, and say that nothing of this process is pending any more."""
        with self._lock:
            self._flush()
            self._admitted.clear()
            if self._in_session:
                with self._book.count() as db:
                    db.execute("UPDATE sessions SET unflushed = max(unflushed - 1, 0)")
                self._in_session = False

    def upper_bounds(self, ns: int | None = None) -> tuple[dict[int, int], int]:
        """(uses in the file and in this process by key, what every key may have on top of that).

        With ``ns`` of the keys of one namespace; what is pending of others is there all the same.
        """
        where = "" if ns is None else " WHERE key_id IN (SELECT key_id FROM data_keys WHERE ns = ?)"
        with self._lock:
            values = () if ns is None else (ns,)
            totals = dict(self._book.rows(f"SELECT key_id, uses FROM key_uses{where}", values))  # noqa: S608
            for key_id, n in self._pending.items():
                totals[key_id] = totals.get(key_id, 0) + n
            return totals, USES_BUFFERED_MAX * (self._sessions() - self._in_session)

    def _count_slowly(self, key_id: int, n: int) -> None:
        if n < 1:
            raise InvalidInputError("a key is used at least once")
        self._begin()
        if n > USES_BUFFERED_MAX:
            self._reserve(key_id, n)
            return
        if self._pending.get(key_id, 0) + n > USES_BUFFERED_MAX or len(self._pending) >= KEYS_BUFFERED_MAX:
            self._flush()
        if key_id not in self._admitted:
            self._admit(key_id)
        self._pending[key_id] = self._pending.get(key_id, 0) + n

    def _begin(self) -> None:
        if not self._in_session:
            with self._book.count() as db:
                db.execute("UPDATE sessions SET unflushed = unflushed + 1")
            self._in_session = True

    def _admit(self, key_id: int) -> None:
        found = 0 < key_id <= KEY_ID_MAX and self._book.rows(
            "SELECT ifnull(uses, 0) FROM data_keys LEFT JOIN key_uses USING (key_id) WHERE key_id = ?",
            (key_id,),
        )
        if not found:
            raise KeyStateError("the keyring holds no key with that number")
        if self._headroom(found[0][0]) < 0:
            raise KeyExhaustedError
        self._admitted.add(key_id)

    def _reserve(self, key_id: int, n: int) -> None:
        """Write more uses at once than may be pending."""
        self._flush()
        self._admit(key_id)
        with self._book.count() as db:
            uses = int(
                db.execute("SELECT ifnull(max(uses), 0) FROM key_uses WHERE key_id = ?", (key_id,)).get
            )
            if self._headroom(uses + n) < 0:
                self._admitted.discard(key_id)
                raise KeyExhaustedError
            db.execute(_ADD, (key_id, n))

    def _flush(self) -> None:
        if not self._pending:
            return
        with self._book.count() as db:
            totals = dict(db.executemany(_ADD, list(self._pending.items())))
            floor = self._headroom(0)
        self._pending.clear()
        self._admitted.difference_update(k for k, uses in totals.items() if uses > floor)

    def _headroom(self, uses: int) -> int:
        return self._uses_max - uses - USES_BUFFERED_MAX * self._sessions()

    def _sessions(self) -> int:
        return int(self._book.rows("SELECT unflushed FROM sessions")[0][0])


_ADD: Final = (
    "INSERT INTO key_uses VALUES (?, ?) ON CONFLICT (key_id) DO UPDATE SET uses = uses + excluded.uses "
    "RETURNING key_id, uses"
)
