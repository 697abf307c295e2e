"""Answers to SQL statements as JSON and as an Arrow stream, the same on every surface."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from strongroom.model import SqlResult

__all__ = ["ARROW_STREAM", "TYPES_KEY", "to_arrow_stream", "to_plain_rows", "to_value"]

ARROW_STREAM = "application/vnd.apache.arrow.stream"
TYPES_KEY = b"strongroom.sql"  # metadata of the schema: JSON of the types, the plan, and the notices
_SAFE_INTEGER = 2**53


def to_plain_rows(result: SqlResult) -> dict[str, Any]:
    """``{"columns", "rows", "row_count", "plan", "notices"}`` of plain values."""
    return {
        "columns": [{"name": c.name, "type": c.type} for c in result.columns],
        "rows": [[to_value(v) for v in row] for row in result.rows()],
        "row_count": result.row_count,
        "plan": result.plan,
        "notices": result.notices,
    }


def to_value(value: Any) -> Any:
    """A value as JSON knows it.

    Ids, times, spans (seconds as ``"90.5s"``), DECIMAL, whole numbers beyond 2**53, NaN and infinity
    become text, bytes Base64.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= _SAFE_INTEGER else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g}s"
        case bytes():
            return base64.b64encode(value).decode()
        case list() | tuple():
            return [to_value(v) for v in value]
        case Mapping():
            return {str(k): to_value(v) for k, v in value.items()}
        case UUID() | Decimal():
            return str(value)
    return str(value)


def to_arrow_stream(result: SqlResult) -> bytes:
    """The answer in Arrow's IPC streaming format; the types of the engine stand in the schema's metadata."""
    import pyarrow as pa

    table = result.arrow()
    known = json.dumps(
        {
            "types": [c.type for c in result.columns],
            "plan": result.plan,
            "notices": [asdict(n) for n in result.notices],
        }
    ).encode()
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), TYPES_KEY: known})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw
