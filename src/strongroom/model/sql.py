"""What a SQL statement gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.model.memory import Notice

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """A column of an answer; ``type`` is a type of DuckDB, for example ``VARCHAR[]``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class SqlDescription:
    """What a statement takes and gives. ``UNKNOWN`` stands for a parameter whose type is open."""

    parameter_types: tuple[str, ...]
    columns: tuple[SqlColumn, ...]


class SqlResult:
    """The whole answer to a statement; rows are handed out in their order, each once by ``fetch``.

    Args:
        table: a ``pyarrow.Table``, or what has its ``num_rows`` and ``nbytes`` and makes it by ``arrow()``.
        to_rows: makes Python values of ``(table, first row, count)``.
        notices: what the caller should know beside the rows.
    """

    __slots__ = ("_table", "_taken", "_to_rows", "columns", "notices", "plan", "row_count")

    def __init__(
        self,
        columns: tuple[SqlColumn, ...],
        table: Any,
        to_rows: Callable[[Any, int, int], list[Row]],
        plan: str = "",
        notices: Sequence[Notice] = (),
    ) -> None:
        self.columns = columns
        self.row_count: int = table.num_rows
        self.plan = plan
        self.notices = tuple(notices)
        self._table = table
        self._to_rows = to_rows
        self._taken = 0

    def __repr__(self) -> str:
        return f"SqlResult({len(self.columns)} columns, {self.row_count} rows)"

    def __len__(self) -> int:
        return self.row_count

    @property
    def nbytes(self) -> int:
        """Bytes that the answer holds, about."""
        return int(self._table.nbytes)

    def fetch(self, n: int = 1000) -> list[Row]:
        """The next rows, at most ``n``; an empty list at the end.

        Raises:
            SqlDataError: a value has no form in Python (a date beyond the year 9999, for example).
        """
        rows = self._to_rows(self._table, self._taken, max(0, min(n, self.row_count - self._taken)))
        self._taken += len(rows)
        return rows

    def rows(self) -> Iterator[Row]:
        """All rows from the first, as tuples of Python values; does not move ``fetch``."""
        for start in range(0, self.row_count, 1000):
            yield from self._to_rows(self._table, start, min(1000, self.row_count - start))

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def arrow(self) -> Any:
        """The answer as a ``pyarrow.Table``; pandas and polars take it from there."""
        make = getattr(self._table, "arrow", None)
        return self._table if make is None else make()


class SqlCancel:
    """Stops a statement from another thread. One handle for one statement; ``cancel`` may come early."""

    __slots__ = ("_cancelled", "_interrupt", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Ask the statement to stop; it ends with OperationTimeoutError (SQLSTATE 57014)."""
        with self._lock:
            self._cancelled = True
            if self._interrupt is not None:
                self._interrupt()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def watch(self, interrupt: Callable[[], None] | None) -> None:
        """What ``cancel`` has to call while the engine is at work; None: nothing any more."""
        with self._lock:
            self._interrupt = interrupt
