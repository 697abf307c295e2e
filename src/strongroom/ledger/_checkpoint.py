"""Upkeep of the write-ahead log, away from the writers' path.

Two things make a commit slow: a log that grows (the file system must record its new length at each
fsync: 230 us instead of 150 us, measured) and a checkpoint on the committing thread. So a background
thread lengthens the log with zeros ahead of the writers, and when the log has reached its size copies
it into the database file, the last bit of it between two groups, so that the log starts over in place.
Zeros after the last frame are what a log that starts over has there anyway: recovery stops at them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import apsw

from strongroom.errors import ClosedError, StorageError, thread_started
from strongroom.ledger._connect import translated

LOG_BYTES_TARGET = 16 * 1024 * 1024  # from here on the log is copied and starts over
LOG_BYTES_MAX = 8 * LOG_BYTES_TARGET  # other processes write all the time: make them wait once
AHEAD_BYTES_MIN = 1024 * 1024  # prepared space before the end of the log
STEP_BYTES = 1024 * 1024  # written under the write lock in one go
QUIET_BYTES = 512 * 1024  # a process that writes less than this prepares nothing
_WAIT_MS_MAX = 50
_ZEROS = bytes(64 * 1024)

Between = Callable[[Callable[[], None]], None]  # run something while no group of this process writes


class Checkpointer:
    """A background thread that exists only once there is something to do."""

    def __init__(self, path: Path, connect: Callable[[], apsw.Connection], between: Between) -> None:
        self._log = Path(f"{path}-wal")
        self._connect = connect
        self._between = between
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._outworn = False  # the thread's connection is not to be used again
        self._page_bytes = 0
        self._wake_at = QUIET_BYTES
        self._last = 0

    def on_commit(self, connection: apsw.Connection, _: str, pages: int) -> int:
        """The log holds ``pages`` pages now (SQLite's hook after each commit, on the writer's thread)."""
        if not self._page_bytes:
            self._page_bytes = 24 + int(connection.pragma("page_size"))
        size = pages * self._page_bytes
        if size < self._last:  # the log has started over
            self._wake_at = QUIET_BYTES
        self._last = size
        if size >= self._wake_at:
            self._wake_at = size + STEP_BYTES
            self._start()
            self._wake.set()
        return apsw.SQLITE_OK

    def _start(self) -> None:
        if self._thread is None and not self._stopping:
            thread = threading.Thread(target=self._work, name="ledger-checkpoint", daemon=True)
            if thread_started(thread):  # else a later commit asks again: this one has succeeded
                self._thread = thread

    def _work(self) -> None:
        connection: apsw.Connection | None = None
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                break
            if self._outworn:
                self._outworn = False
                _end(connection)
                connection = None
                continue
            try:
                if connection is None:
                    connection = self._connect()
                    connection.set_busy_timeout(_WAIT_MS_MAX)
                with translated(connection):
                    self._once(connection)
            except (StorageError, ClosedError, OSError):
                # Nothing is lost: the log keeps everything, and a later commit asks again. But a file that
                # was opened at a bad moment may be open for reading alone, and no log would ever end.
                _end(connection)
                connection = None
        _end(connection)

    def _once(self, connection: apsw.Connection) -> None:
        used = self._last
        if used < LOG_BYTES_TARGET:
            self._prepare(connection, used)
            return

        def rest() -> None:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

        rest()
        self._between(rest)
        if used >= LOG_BYTES_MAX:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)

    def _prepare(self, connection: apsw.Connection, used: int) -> None:
        """Lengthen the log by steps. The write lock keeps every writer of every process out meanwhile."""
        while not self._stopping and self._log.stat().st_size < min(
            used + AHEAD_BYTES_MIN + STEP_BYTES, LOG_BYTES_TARGET + STEP_BYTES
        ):
            connection.execute("BEGIN IMMEDIATE")
            try:
                handle = os.open(self._log, os.O_WRONLY)
                try:
                    end = os.fstat(handle).st_size
                    for start in range(end, end + STEP_BYTES, len(_ZEROS)):
                        os.pwrite(handle, _ZEROS, start)
                finally:
                    os.close(handle)
            finally:
                connection.execute("ROLLBACK")

    def now(self) -> None:
        """Copy everything and empty the log, as far as readers allow within the busy limit."""
        connection = self._connect()
        try:
            with translated(connection):
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close(True)

    def renew(self) -> None:
        """Let the background thread open the file anew."""
        self._outworn = True
        self._wake.set()

    def close(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()


def _end(connection: apsw.Connection | None) -> None:
    if connection is not None:
        connection.close(True)
