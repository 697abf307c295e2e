"""Many rows with one statement.

``executemany`` lets go of the interpreter and asks for it back at each row, and beside a thread that runs
Python each of those is a wait. A statement with many rows of values does so once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import apsw

_COUNTS = (250, 32, 8, 2)  # rows of ten values: at most 16 KiB of text, which is what is kept prepared


@lru_cache(maxsize=8)
def _several(sql: str, count: int) -> str:
    head, values = sql.split(" VALUES ")
    return f"{head} VALUES {', '.join([values] * count)}"


def insert(connection: apsw.Connection, sql: str, rows: Sequence[tuple[int | bytes, ...]]) -> None:
    """``connection.executemany(sql, rows)`` for an INSERT that ends with the values of one row.

    Raises:
        apsw.Error: as there; of the rows before the one that is refused some may have been written.
    """
    at = 0
    for count in _COUNTS:
        while len(rows) - at >= count:
            connection.execute(_several(sql, count), tuple(chain.from_iterable(rows[at : at + count])))
            at += count
    if at < len(rows):
        connection.executemany(sql, rows[at:])
