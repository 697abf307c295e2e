"""The columnar engine of a process: DuckDB in memory, locked down before the first memory arrives."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final

import duckdb

from strongroom.errors import ClosedError, InvalidFilterError
from strongroom.recall._columns import create_table_sql
from strongroom.recall._cursors import BadInputError, Cursors
from strongroom.recall._in_passing import BARE
from strongroom.recall._lockdown import PARSE, lock_down
from strongroom.recall._watchdog import Watchdog
from strongroom.recall._weight import EngineWeight
from strongroom.recall.where import WHERE_BYTES_MAX, CheckedWhere, WhereChecker

__all__ = ["ColumnEngine"]

_CLOSE_TRIES: Final = 250
_CLOSE_PAUSE_S: Final = 0.02


class ColumnEngine:
    """The one engine of a process.

    ``memory_limit``: as DuckDB writes it, ``"4GB"``. ``query_timeout_ms``: a statement that takes
    longer is stopped, at the next of its batches of 2,048 rows; 0 for no limit. ``sql_timeout_ms``: the
    same for the cursors of ``sql_cursor``, whose owner watches the time.

    Raises:
        ConfigurationError: ``memory_limit`` or ``threads`` is not understood.
    """

    def __init__(
        self,
        *,
        memory_limit: str = "4GB",
        threads: int = 2,
        query_timeout_ms: int = 5_000,
        sql_timeout_ms: int = 0,
        where_bytes_max: int = WHERE_BYTES_MAX,
    ) -> None:
        self._connection: Any = duckdb.connect(":memory:")
        self._secret = secrets.token_hex(8)
        self._catalog_lock = threading.Lock()
        self._given: set[int] = set()  # namespaces that have a table, be it in the engine or not yet
        self._cursors = Cursors(self._connection, Watchdog(query_timeout_ms))
        self.weight = EngineWeight(self.cursor)
        limit_ms = max(query_timeout_ms, sql_timeout_ms) if query_timeout_ms else 0
        lock_down(self._connection, memory_limit, threads, limit_ms)
        with self.own_cursor() as cursor:
            cursor.execute("CREATE SCHEMA bare")
            cursor.execute(create_table_sql(BARE))
        self.checker = WhereChecker(self._parse, self._bind, bytes_max=where_bytes_max)

    def cursor(self, *, watched: bool = False) -> AbstractContextManager[Any]:
        """A connection of its own for the length of a ``with``; errors of the engine become ours.

        ``watched``: stop it when it takes longer than the time limit.
        """
        return self._cursors.lend(watched=watched)

    def own_cursor(self) -> AbstractContextManager[Any]:
        """One without time limit, for changes of a table and other statements of our own making."""
        return self._cursors.lend_own()

    def _parse(self, statement: str) -> str:
        try:
            with self.cursor() as cursor:
                return str(cursor.execute(PARSE, [statement]).fetchone()[0])
        except BadInputError:
            raise InvalidFilterError("where: not a SQL expression") from None

    def _bind(self, checked: CheckedWhere) -> str | None:
        parameters: dict[str, Any] = {}
        if checked.uses_clock:
            parameters["now_us"] = 0
        if "namespace" in checked.columns:
            parameters["namespace"] = ""
        try:
            with self.cursor(watched=True) as cursor:
                # checked.sql was written by _where_tree.write from admitted nodes alone
                cursor.execute(f"SELECT {checked.sql} FROM {BARE} LIMIT 0", parameters)  # noqa: S608
                return str(cursor.description[0][1])
        except BadInputError:
            return None

    def _create(self, ns: int) -> None:
        with self._catalog_lock, self.own_cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema(ns)}")  # perhaps it came no further
            cursor.execute(create_table_sql(f"{self._schema(ns)}.mem"))

    def _schema(self, ns: int) -> str:
        """The schema of a namespace; nobody outside this process can guess its name."""
        return f"n{int(ns)}_{self._secret}"

    def sql_cursor(self) -> Any:
        """A connection for the SQL front end, which is closed by whoever asked for it.

        Raises:
            ClosedError.
        """
        if self.closed:
            raise ClosedError()
        return self._connection.cursor()

    def offer_function(self, name: str, function: Callable[..., Any], takes: list[str], gives: str) -> None:
        """Let statements call ``function`` (Arrow arrays in, one out) by ``name``."""
        self._connection.create_function(
            name, function, takes, gives, type="arrow", null_handling="special", side_effects=False
        )

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._cursors.closed

    def _drop(self, ns: int, *, created: bool) -> None:
        if created:
            with self._catalog_lock, self.own_cursor() as cursor:
                cursor.execute(f"DROP SCHEMA IF EXISTS {self._schema(ns)} CASCADE")
        self._given.discard(ns)

    def close(self) -> None:
        """Forget everything and stop the queries that still run. May be called twice."""
        if self.closed:
            return
        self._cursors.close()
        for _ in range(_CLOSE_TRIES):
            try:
                self._connection.close()
            except duckdb.Error:  # a thread is still at work with it: it is stopped, and asked again
                with suppress(duckdb.Error):  # it may have been closed after all
                    self._connection.interrupt()
                time.sleep(_CLOSE_PAUSE_S)
            else:
                return
