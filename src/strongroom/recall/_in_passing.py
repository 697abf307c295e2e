"""Questions to the rows of a small namespace, which has no table of its own in the columnar engine.

There a table takes some hundred kilobytes, however few rows it has. So the rows of a small namespace wait as
they came, and go into an empty table that all share for the length of one transaction, which is rolled back:
nobody else ever sees them there. It takes two milliseconds longer than a question to a table of its own, so a
namespace that is asked again and again gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import duckdb

from strongroom.recall._columns import Row, arrow_batch

__all__ = ["ASKED_MAX", "BARE", "SMALL_ROWS", "answer_in_passing"]

BARE: Final = "bare.mem"  # the table that all share: empty, whoever looks at it
SMALL_ROWS: Final = 256  # with more of them a table of their own takes no more memory
ASKED_MAX: Final = 3  # so often a namespace is asked in passing

_T = TypeVar("_T")


def answer_in_passing(
    cursor: Any,
    rows: Sequence[Row],
    statement: str,
    parameters: Mapping[str, Any],
    fetch: Callable[[Any], _T],
) -> _T:
    """What ``fetch`` makes of a statement over ``BARE``, as if ``rows`` lay there; the engine's errors pass
    through, also that of the end: then the cursor is of no more use."""
    try:
        if rows:
            cursor.register("arriving", arrow_batch(rows))
        cursor.execute("BEGIN TRANSACTION")
        if rows:
            cursor.execute(f"INSERT INTO {BARE} SELECT * FROM arriving")  # noqa: S608
        return fetch(cursor.execute(statement, parameters))
    finally:
        with suppress(duckdb.TransactionException):  # the engine may have rolled back by itself
            cursor.execute("ROLLBACK")
        cursor.unregister("arriving")  # last: while a transaction has failed nothing can be taken back
