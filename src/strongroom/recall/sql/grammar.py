"""The engine's own parser, in an instance of its own that holds nothing.

Parsing needs no memories, so it does not stand beside them: the instance is locked down like the columnar
store, has one thread and no table. Its few connections have no optimizer, and their two statements are parsed
once; both are most of what a small statement costs otherwise.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import duckdb

from strongroom.errors import ClosedError, OperationTimeoutError
from strongroom.recall._lockdown import LOCKDOWN
from strongroom.recall._watchdog import Watchdog
from strongroom.recall.sql.faults import translate

__all__ = ["Grammar"]

CONNECTIONS: Final = 4
_MEMORY_LIMIT: Final = "512MB"
_WAIT_S: Final = 30.0  # for a connection, when all are at work
_SERIALIZE: Final = (
    "json_serialize_sql(CAST({} AS VARCHAR), skip_default := true, skip_empty := true, skip_null := true)"
)
_PARSE: Final = "SELECT " + _SERIALIZE.format("$1")
_WRITE: Final = (
    "SELECT d, "  # noqa: S608 - constants
    + _SERIALIZE.format("d")
    + " FROM (SELECT json_deserialize_sql(CAST($1 AS JSON)) AS d)"
)


class _Connection:
    """One connection, with its two statements."""

    def __init__(self, cursor: Any) -> None:
        self.cursor = cursor
        (self.parse,) = cursor.extract_statements(_PARSE)
        (self.write,) = cursor.extract_statements(_WRITE)


class Grammar:
    """Texts to trees and back. Thread-safe; made when it is first asked."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._instance: Any = None
        self._idle: queue.LifoQueue[_Connection] = queue.LifoQueue()
        self._closed = False

    def parse(self, statement: str) -> str:
        """The tree of a statement, as JSON text.

        Raises:
            SqlError, OperationTimeoutError, ClosedError.
        """
        with self._connection() as connection:
            return str(connection.cursor.execute(connection.parse, [statement]).fetchone()[0])

    def write(self, tree: str) -> tuple[str, str]:
        """The text of a tree, and the tree of that text again.

        Raises:
            SqlError, OperationTimeoutError, ClosedError.
        """
        with self._connection() as connection:
            text, again = connection.cursor.execute(connection.write, [tree]).fetchone()
            return str(text), str(again)

    @contextmanager
    def _connection(self) -> Iterator[_Connection]:
        if self._instance is None:
            self._open()
        try:
            connection = self._idle.get(timeout=_WAIT_S)
        except queue.Empty:
            raise OperationTimeoutError("too many statements are being read at once") from None
        try:
            if self._closed:
                raise ClosedError
            with self._watchdog.watch(connection.cursor):
                yield connection
        except duckdb.Error as e:
            raise translate(e, "", closed=self._closed) from None
        finally:
            self._idle.put(connection)

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError
            if self._instance is not None:
                return
            instance = duckdb.connect(":memory:")
            instance.execute(f"SET GLOBAL memory_limit = '{_MEMORY_LIMIT}'")
            instance.execute("SET GLOBAL threads = 1")
            made = [instance.cursor() for _ in range(CONNECTIONS)]
            for cursor in made:
                cursor.execute("PRAGMA disable_optimizer")  # of one connection, so before the lock
            for setting in LOCKDOWN:
                instance.execute(f"SET GLOBAL {setting}")
            for cursor in made:
                self._idle.put(_Connection(cursor))
            self._instance = instance

    def close(self) -> None:
        """Let go of the instance; a statement that is being read just now ends first."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            made = 0 if self._instance is None else CONNECTIONS
        for _ in range(made):
            with suppress(queue.Empty, duckdb.Error):
                self._idle.get(timeout=1).cursor.close()
        if self._instance is not None:
            with suppress(duckdb.Error):
                self._instance.close()
