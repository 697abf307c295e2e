"""Connections to the columnar engine, lent for a moment; its errors become ours.

Statements for callers run under the engine's time limit. Our own changes of a table must not: the limit is a
wall clock, so that a loaded or suspended machine would cut them off half-way, and they would never come to
an end however often they are tried. A few connections have no limit; they are made before the
configuration is locked and are lent only for statements of our own making.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import duckdb

from strongroom.errors import (
    ClosedError,
    InternalError,
    LimitExceededError,
    OperationTimeoutError,
    StrongroomError,
)
from strongroom.recall._lockdown import INPUT_ERRORS
from strongroom.recall._watchdog import Watchdog

__all__ = ["BadInputError", "Cursors"]

OWN: Final = 4  # changes of tables that run side by side, the dump of a snapshot included
_LOOK_AGAIN_S: Final = 0.5


class BadInputError(InternalError):
    """A value did not fit an operation; whoever knows whose value it was says so instead."""


class Cursors:
    """The connections of one engine, whose configuration is not locked yet. Thread-safe.

    ``watchdog`` stops statements for callers sooner than the engine itself does.
    """

    def __init__(self, connection: Any, watchdog: Watchdog) -> None:
        self._connection = connection
        self._watchdog = watchdog
        self._idle: deque[Any] = deque()
        self._own: SimpleQueue[Any] = SimpleQueue()
        self.closed = False
        for _ in range(OWN):
            cursor = connection.cursor()
            cursor.execute("SET SESSION max_execution_time = 0")
            self._own.put(cursor)

    @contextmanager
    def lend(self, *, watched: bool = False) -> Iterator[Any]:
        """A connection for statements that callers wait for, under the engine's time limit.

        Raises:
            ClosedError, OperationTimeoutError, LimitExceededError, InternalError.
        """
        if self.closed:
            raise ClosedError()
        try:
            cursor = self._idle.pop()
        except IndexError:
            cursor = self._connection.cursor()
        done = False
        try:
            if watched:
                with self._watchdog.watch(cursor):
                    yield cursor
            else:
                yield cursor
            done = True
        except duckdb.Error as e:
            raise self._translated(e) from None
        finally:
            if done:
                _end_result(cursor)
                self._idle.append(cursor)
            else:  # an interrupt may have left a transaction open, in which others would find old rows
                with suppress(duckdb.Error):
                    cursor.close()
            if self.closed:
                self._close_idle()

    @contextmanager
    def lend_own(self) -> Iterator[Any]:
        """A connection without time limit, for statements of our own making. Not to be asked for twice.

        Raises:
            ClosedError, LimitExceededError, InternalError.
        """
        cursor = self._take_own()
        done = False
        try:
            yield cursor
            done = True
        except duckdb.Error as e:
            raise self._translated(e) from None
        finally:
            if not done:  # Ctrl-C may have come between a transaction and its end
                with suppress(duckdb.Error):
                    cursor.execute("ROLLBACK")
            _end_result(cursor)
            self._own.put(cursor)
            if self.closed:
                self._close_idle()

    def _take_own(self) -> Any:
        while not self.closed:
            with suppress(Empty):
                return self._own.get(timeout=_LOOK_AGAIN_S)
        raise ClosedError()

    def _translated(self, error: duckdb.Error) -> StrongroomError:
        """Our error for one of the engine's; its text could hold data and stays here."""
        if self.closed:
            return ClosedError()
        if isinstance(error, duckdb.InterruptException):
            return OperationTimeoutError(
                "the query took longer than its limit", hint="narrow it with structured filters"
            )
        if isinstance(error, duckdb.OutOfMemoryException):
            return LimitExceededError(
                "the columnar engine reached its memory limit", hint="raise [recall] memory_limit"
            )
        if isinstance(error, INPUT_ERRORS):
            return BadInputError()
        return InternalError(f"the columnar engine failed: {type(error).__name__}")

    def close(self) -> None:
        """Lend no more, and close what is not lent; the rest closes when it comes back."""
        self.closed = True
        self._watchdog.stop()
        self._close_idle()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()
        with suppress(Empty):
            while True:
                self._own.get_nowait().close()


def _end_result(cursor: Any) -> None:
    """Let go of a result that was not read to its end: its transaction stays open as long as the connection
    rests, and the engine keeps every older version of what others change and drop meanwhile."""
    with suppress(duckdb.Error):
        cursor.execute("")
