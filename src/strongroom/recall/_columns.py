"""The columns of a namespace's table, and how opened memories become an Arrow batch for it.

Beside the columns that ``functions.COLUMNS`` shows to callers (all but ``namespace``, which is a
constant of the table), a table holds ``rid`` (dense row id), ``seq``, and hidden 64-bit keys that make
the common filters cheap: ``kind_key``, ``subject_key``, ``agent_key``, ``session_key`` are hashes of the
text beside them, ``tag_bits`` has two bits set for every tag. They only narrow a scan; the exact
condition always stands beside them. Python's string hash is keyed per process, and so are they.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from strongroom.errors import InvalidInputError
from strongroom.model import Memory

__all__ = [
    "ACCESS_COUNT",
    "CONTENT",
    "HAS_EMBEDDING",
    "INT64_MAX",
    "LAST_ACCESSED_AT",
    "METADATA",
    "RID",
    "TABLE_COLUMNS",
    "Row",
    "arrow_batch",
    "create_table_sql",
    "expires_us",
    "metadata_text",
    "tag_bits",
    "text_key",
    "to_row",
    "to_us",
]

Row = list[Any]

INT64_MAX: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TIME: Final = pa.timestamp("us", "UTC")
_UUID: Final = pa.binary(16)

_SCHEMA: Final[tuple[tuple[str, str, Any], ...]] = (
    ("rid", "BIGINT NOT NULL", pa.int64()),
    ("seq", "BIGINT NOT NULL", pa.int64()),
    ("memory_id", "UUID NOT NULL", _UUID),
    ("kind", "VARCHAR NOT NULL", pa.string()),
    ("content", "VARCHAR", pa.string()),  # null where the namespace is sealed in memory
    ("metadata", "JSON", pa.string()),  # likewise
    ("tags", "VARCHAR[] NOT NULL", pa.list_(pa.string())),
    ("subject", "VARCHAR", pa.string()),
    ("agent_id", "VARCHAR", pa.string()),
    ("session_id", "VARCHAR", pa.string()),
    ("sensitivity", "VARCHAR NOT NULL", pa.string()),
    ("importance", "DOUBLE NOT NULL", pa.float64()),
    ("source", "VARCHAR", pa.string()),
    ("derived_from", "UUID[] NOT NULL", pa.list_(_UUID)),
    ("created_at", "TIMESTAMPTZ NOT NULL", _TIME),
    ("updated_at", "TIMESTAMPTZ NOT NULL", _TIME),
    ("expires_at", "TIMESTAMPTZ", _TIME),
    ("access_count", "BIGINT NOT NULL", pa.int64()),
    ("last_accessed_at", "TIMESTAMPTZ", _TIME),
    ("has_embedding", "BOOLEAN NOT NULL", pa.bool_()),
    ("version", "BIGINT NOT NULL", pa.int64()),
    ("kind_key", "BIGINT NOT NULL", pa.int64()),
    ("subject_key", "BIGINT", pa.int64()),
    ("agent_key", "BIGINT", pa.int64()),
    ("session_key", "BIGINT", pa.int64()),
    ("tag_bits", "UBIGINT NOT NULL", pa.uint64()),
)
TABLE_COLUMNS: Final = tuple(name for name, _, _ in _SCHEMA)
RID: Final = TABLE_COLUMNS.index("rid")
CONTENT: Final = TABLE_COLUMNS.index("content")
METADATA: Final = TABLE_COLUMNS.index("metadata")
EXPIRES_AT: Final = TABLE_COLUMNS.index("expires_at")
ACCESS_COUNT: Final = TABLE_COLUMNS.index("access_count")
LAST_ACCESSED_AT: Final = TABLE_COLUMNS.index("last_accessed_at")
HAS_EMBEDDING: Final = TABLE_COLUMNS.index("has_embedding")

_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def create_table_sql(table: str) -> str:
    """``CREATE TABLE`` for ``table``, a name of our own making."""
    columns = ", ".join(f"{name} {type_}" for name, type_, _ in _SCHEMA)
    return f"CREATE TABLE {table} ({columns})"


def to_us(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; negative before.

    Raises:
        InvalidInputError: ``moment`` has no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidInputError("a time without a time zone", hint="give times in UTC")
    return (moment - _EPOCH) // _MICROSECOND


def text_key(text: str) -> int:
    """The hidden key of a text: signed 64 bits, the same for equal texts within this process."""
    return hash(text)


def tag_bits(tags: Iterable[str]) -> int:
    """Two bits of 64 for every tag: a row can only hold the tags whose bits it has."""
    bits = 0
    for tag in tags:
        key = hash(tag)
        bits |= 1 << (key & 63) | 1 << (key >> 6 & 63)
    return bits


def expires_us(row: Row) -> int | None:
    """When the memory of this row stops matching, in microseconds UTC."""
    value: int | None = row[EXPIRES_AT]
    return value


def metadata_text(memory: Memory) -> str:
    """The metadata of a memory as its column holds it."""
    return _json(dict(memory.metadata)) if memory.metadata else "{}"


def to_row(rid: int, memory: Memory, seq: int) -> Row:
    """One row in the order of ``TABLE_COLUMNS``.

    Everything that could make the engine refuse a batch is looked at here, so that a bad memory
    fails alone and never spoils the buffer that it would have joined.

    Raises:
        InvalidInputError: a text is no valid Unicode, metadata is no JSON, a number is beyond 64 bits,
            or a time has no zone.
    """
    try:
        metadata = metadata_text(memory)
        for text in (memory.content, metadata, memory.kind, memory.sensitivity, *memory.tags):
            text.isascii() or text.encode("utf-8")
        for optional in (memory.subject, memory.agent_id, memory.session_id, memory.source):
            optional is None or optional.isascii() or optional.encode("utf-8")
        importance = float(memory.importance)
        if not 0 <= max(rid, seq, memory.access_count, memory.version) <= INT64_MAX:
            raise ValueError
    except (TypeError, ValueError, AttributeError, RecursionError):
        raise InvalidInputError("a memory holds a value that its columns cannot take") from None
    created = to_us(memory.created_at)
    updated = created if memory.updated_at is memory.created_at else to_us(memory.updated_at)
    last = memory.last_accessed_at
    subject, agent, session = memory.subject, memory.agent_id, memory.session_id
    return [
        rid,
        seq,
        memory.memory_id.bytes,
        memory.kind,
        memory.content,
        metadata,
        list(memory.tags),
        subject,
        agent,
        session,
        memory.sensitivity,
        importance,
        memory.source,
        [m.bytes for m in memory.derived_from],
        created,
        updated,
        None if memory.expires_at is None else to_us(memory.expires_at),
        memory.access_count,
        None if last is None else to_us(last),
        memory.has_embedding,
        memory.version,
        hash(memory.kind),
        None if subject is None else hash(subject),
        None if agent is None else hash(agent),
        None if session is None else hash(session),
        tag_bits(memory.tags) if memory.tags else 0,
    ]


def arrow_batch(rows: Sequence[Row]) -> Any:
    """The rows as a ``pyarrow.Table`` in the order and types of the table."""
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(values, type_) for values, (_, _, type_) in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(TABLE_COLUMNS))
