"""How much memory the columns of a process take: what their engine says, shared out among the tables.

The engine knows the sum alone. What a table was told is known for each: its rows and the length of their
texts, as they come in. The engine presses together groups of rows that are full, so that it often needs about
half of that; it is asked now and then how much.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from strongroom.errors import StrongroomError

__all__ = ["EngineWeight", "TableWeight"]

ROW_BYTES: Final = 400  # of a row beside its content, measured
KEY_BYTES: Final = 120  # of a row in memory beside what a snapshot holds of it
WAITING_BYTES: Final = 700  # more of one that is not in the engine yet, measured
TABLE_BYTES: Final = 210 << 10  # of a table in the engine, however few rows it has, measured
ASK_S: Final = 2.0
_HELD: Final = "SELECT CAST(coalesce(sum(memory_usage_bytes), 0) AS BIGINT) FROM duckdb_memory()"


class EngineWeight:
    """The weights of all tables of an engine. Thread-safe.

    ``cursor`` lends a connection to the engine; entering it may raise a ``StrongroomError``.
    """

    def __init__(self, cursor: Callable[[], AbstractContextManager[Any]]) -> None:
        self._cursor = cursor
        self._lock = threading.Lock()
        self._tables: WeakSet[TableWeight] = WeakSet()
        self._share = 1.0
        self._next_s = 0.0  # monotonic

    def table(self) -> TableWeight:
        """The weight of a new table."""
        made = TableWeight(self)
        with self._lock:
            self._tables.add(made)
        return made

    def share(self) -> float:
        """What the engine needs of what its tables were told; at most 1. Small namespaces have none there."""
        with self._lock:
            if monotonic() < self._next_s:
                return self._share
            self._next_s = monotonic() + ASK_S
            tables = [table for table in self._tables if table.in_engine]
        told = sum(table.told for table in tables)
        if told and all(table.is_whole for table in tables):
            with suppress(StrongroomError), self._cursor() as cursor:  # closed: what was known holds
                self._share = min(1.0, int(cursor.execute(_HELD).fetchone()[0]) / told)
        return self._share


class TableWeight:
    """The weight of a table. ``told``: bytes of its rows as they came in."""

    def __init__(self, engine: EngineWeight) -> None:
        self._engine = engine
        self._rows = 0
        self.told = 0
        self.in_engine = False  # whoever makes a table there says so
        self.is_whole = True  # the engine has all that the table was told

    def add(self, contents: Iterable[str | None]) -> None:
        """Rows with these contents came."""
        for content in contents:
            self.told += ROW_BYTES + len(content or "")
            self._rows += 1

    def remove(self, rows: int) -> None:
        if self._rows:
            share = min(1.0, rows / self._rows)
            self.told, self._rows = int(self.told * (1 - share)), max(0, self._rows - rows)

    def restore(self, rows: int, dumped: int) -> None:
        """So many rows come out of a snapshot in which they take ``dumped`` bytes."""
        self.told, self._rows = dumped + KEY_BYTES * rows, rows
        self.in_engine = True  # they go there
        self.is_whole = False  # whoever has put them there says so

    def memory_bytes(self) -> int:
        """About the memory that the rows take."""
        is_there = self.in_engine and self.is_whole
        return int(self.told * self._engine.share()) if is_there else self.told
