"""What attribute policies need to know of the rows of a table, and when rows that wait are many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import StrongroomError
from strongroom.model import Filter
from strongroom.model.rows import ALL, Facts, Rows
from strongroom.recall._buffer import ChangeBuffer
from strongroom.recall._filter_sql import Compiled, looks_inside
from strongroom.recall._rows_sql import FACTS_SQL, facts_of, rows_sql

if TYPE_CHECKING:
    from strongroom.recall.columnar import ColumnarStore

__all__ = ["RowQuestions"]

_T = TypeVar("_T")
WAITING_ROWS_MAX: Final = 20_000


class RowQuestions(ABC):
    """The part of a table that answers them; the table itself supplies the two abstract methods.

    All raise OperationTimeoutError, LimitExceededError, ClosedError.
    """

    _store: ColumnarStore
    _buffer: ChangeBuffer

    @abstractmethod
    def _query(
        self, compiled: Compiled, head: str, tail: str, fetch: Callable[[Any], _T], rows: Rows = ALL
    ) -> _T:
        """What ``fetch`` makes of ``head`` FROM the rows that meet the conditions, ``tail`` behind them."""

    @abstractmethod
    def flush(self) -> None:
        """Apply all changes that wait."""

    def relieve(self) -> None:
        """Apply what waits when it is many rows: outside the table they take several times the memory, and a
        bulk load would leave them all to the next filter. What fails waits on, and that filter is told."""
        if self._buffer.rows >= WAITING_ROWS_MAX:
            with suppress(StrongroomError):
                self.flush()

    def permitted(self, rows: Rows, first: int) -> NDArray[np.int64]:
        """Row ids from ``first`` on, int64, for which the condition holds."""
        compiled = Compiled([f"rid >= {int(first)}", rows_sql(rows)])
        return self._query(
            compiled, "SELECT rid", "", lambda c: np.asarray(c.fetchnumpy()["rid"], dtype=np.int64)
        )

    def tally(self, rows: Rows) -> tuple[int, int]:
        """How many rows there are for which the condition holds, and how many of them have a vector."""
        self.flush()
        head = "SELECT count(*), count(*) FILTER (WHERE has_embedding)"
        found = self._query(Compiled([rows_sql(rows)]), head, "", lambda c: c.fetchone())
        return int(found[0]), int(found[1])

    def labels(self, rids: Sequence[int]) -> dict[int, str]:
        """The sensitivity of some rows, at least one."""
        compiled = Compiled([f"rid IN ({', '.join(str(int(r)) for r in rids)})"])
        return dict(self._query(compiled, "SELECT rid, sensitivity", "", lambda c: c.fetchall()))

    def facts(self, rid: int) -> Facts | None:
        """What policies may ask of one memory."""
        compiled = Compiled([f"rid = {int(rid)}"])
        return self._query(compiled, f"SELECT {FACTS_SQL}", "", lambda c: facts_of(c.fetchone()))

    def looks_inside(self, filter: Filter) -> bool:
        """Whether a filter looks at more of a memory than its id, label, namespace and age.

        Raises:
            InvalidFilterError: its ``where`` is refused.
        """
        return looks_inside(filter, self._store.checker)
