"""The answer to a SQL statement out of an Arrow stream."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from strongroom.errors import TransportError
from strongroom.model import SqlColumn, SqlResult
from strongroom.model.sql_values import to_rows

ARROW_STREAM = "application/vnd.apache.arrow.stream"
_TYPES_KEY = b"strongroom.sql"


def result_of(raw: bytes) -> SqlResult:
    """The answer in an Arrow stream of a server.

    Raises:
        TransportError: it is not of the form that this client knows.
    """
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(raw).read_all()
        known = json.loads(table.schema.metadata[_TYPES_KEY])
        types = tuple(str(t) for t in known["types"])
        columns = tuple(SqlColumn(n, t) for n, t in zip(table.column_names, types, strict=True))
    except (pa.ArrowInvalid, ValueError, KeyError, TypeError):
        raise TransportError("the answer is not of the form that this client knows") from None
    return SqlResult(columns, table, partial(_rows, types), str(known.get("plan", "")))


def _rows(types: tuple[str, ...], table: Any, start: int, count: int) -> list[tuple[Any, ...]]:
    return to_rows(table, start, count, types)
