"""Moving the write-ahead log into the database file, away from the writers' path."""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from strongroom.errors import StorageError
from strongroom.ledger._connect import translated

START_PAGES = 2_000  # 16 MiB written since the last time: copy what can be copied, blocking nobody
RESTART_PAGES = 16_000  # 128 MiB in the log: make the writers wait once, so that it starts over


class Checkpointer:
    """A background thread that exists only once there is something to do."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._copied_pages = 0
        self._log_pages = 0

    def on_commit(self, connection: apsw.Connection, name: str, pages: int) -> int:
        """The write-ahead log holds ``pages`` pages now (SQLite's hook after each commit)."""
        if pages < self._log_pages:
            self._copied_pages = 0
        self._log_pages = pages
        if pages - self._copied_pages >= START_PAGES:
            self._copied_pages = pages
            self._start()
            self._wake.set()
        return apsw.SQLITE_OK

    def _start(self) -> None:
        if self._thread is None and not self._stopping:
            self._thread = threading.Thread(target=self._work, name="ledger-checkpoint", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._once()
            except StorageError:
                continue  # the log keeps everything; a later commit asks again

    def _once(self) -> None:
        connection = self._connect()
        try:
            with translated(connection):
                pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                if pages >= RESTART_PAGES:
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        finally:
            connection.close(True)

    def now(self) -> None:
        """Copy everything and empty the log; waits for readers and writers as long as the busy limit."""
        connection = self._connect()
        try:
            with translated(connection):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close(True)

    def close(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
