"""A condition on rows (``model.rows``) as SQL over the columns of a namespace's table.

The text has no parameters, because it stands in views. Its constants come from the operator's policies
and from credentials, never from a statement; they are written as literals that the parser cannot misread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from strongroom.errors import InternalError
from strongroom.model.rows import (
    Below,
    Constant,
    Every,
    Facts,
    Like,
    Not,
    OneOf,
    Present,
    Rows,
    Some,
    TagsAll,
    TagsAny,
    TagsWithin,
)

__all__ = ["FACTS_SQL", "behind_barrier", "facts_of", "rows_sql"]

_BARRIER: Final = "LIMIT 1099511627776 OFFSET 0"
"""Behind this no condition of a caller is moved to before ours: the engine keeps it apart. Without it a
condition that fails on a value (a CAST) would tell of rows that the caller may not see."""

_NUMBERS: Final = {
    "importance": "CAST(floor(importance * CAST(1000 AS DOUBLE)) AS BIGINT)",
}
FACTS_SQL: Final = (
    f"memory_id, kind, sensitivity, {_NUMBERS['importance']}, epoch_us(created_at), tags,"
    " subject, agent_id, session_id, source"
)
_TEXTS: Final = frozenset({"kind", "sensitivity"})
_OPTIONAL: Final = frozenset({"subject", "agent_id", "session_id", "source"})
_EARLIEST_US, _LATEST_US = -62_135_596_800_000_000, 253_402_300_800_000_000  # the years 1 to 9999
_ESCAPE: Final = str.maketrans({"%": r"\%", "_": r"\_", "\\": "\\\\"})


def behind_barrier(table: str, rows: Rows, further: str = "") -> str:
    """A subquery of the rows of ``table``, a name of ours; ``further``: expressions beside its columns."""
    columns = f"*, {further}" if further else "*"
    return f"(SELECT {columns} FROM {table} WHERE {rows_sql(rows)} {_BARRIER})"  # noqa: S608


def facts_of(row: tuple[Any, ...] | None) -> Facts | None:
    """What ``FACTS_SQL`` selected."""
    if row is None:
        return None
    memory_id, kind, sensitivity, importance, created_us, tags, subject, agent_id, session_id, source = row
    return Facts(
        memory_id=memory_id.bytes,
        kind=kind,
        sensitivity=sensitivity,
        importance=importance,
        created_us=created_us,
        tags=frozenset(tags),
        subject=subject,
        agent_id=agent_id,
        session_id=session_id,
        source=source,
    )


def rows_sql(rows: Rows) -> str:
    """The condition in brackets; true or false for every row, never NULL.

    Raises:
        InternalError: it names a column that is not for policies.
    """
    match rows:
        case Constant(value):
            return "(1 = 1)" if value else "(1 = 0)"
        case Not(part):
            return f"(NOT {rows_sql(part)})"
        case Every(parts):
            return "(" + " AND ".join(map(rows_sql, parts)) + ")"
        case Some(parts):
            return "(" + " OR ".join(map(rows_sql, parts)) + ")"
        case Present(column):
            return f"({_known(column, _OPTIONAL)} IS NOT NULL)"
        case TagsAll(values):
            return f"list_has_all(tags, {_texts(values)})"
        case TagsAny(values):
            return f"list_has_any(tags, {_texts(values)})"
        case TagsWithin(values):
            return f"list_has_all({_texts(values)}, tags)"
        case Below(column, limit):
            return _below(column, limit)
        case Like(column, parts):
            pattern = "%".join(part.translate(_ESCAPE) for part in parts)
            return _of_text(column, f"LIKE {_literal(pattern)} ESCAPE '\\'")
        case OneOf("memory_id", ids):
            return f"(memory_id IN ({', '.join(_uuid(i) for i in ids)}))"
        case OneOf(column, values):
            return _of_text(column, f"IN ({', '.join(sorted(_literal(v) for v in values))})")


def _below(column: str, limit: int) -> str:
    if column == "created_us":
        if not _EARLIEST_US < limit <= _LATEST_US:
            return "(1 = 1)" if limit > 0 else "(1 = 0)"
        return f"(created_at < make_timestamptz(CAST({int(limit)} AS BIGINT)))"
    if column not in _NUMBERS:
        raise InternalError("a condition on a column that is not for policies")
    return f"({_NUMBERS[column]} < CAST({int(limit)} AS BIGINT))"


def _of_text(column: str, condition: str) -> str:
    if column in _OPTIONAL:  # NULL is in no list and like nothing
        return f"({column} IS NOT NULL AND {column} {condition})"
    return f"({_known(column, _TEXTS)} {condition})"


def _known(column: str, columns: frozenset[str]) -> str:
    if column not in columns:
        raise InternalError("a condition on a column that is not for policies")
    return column


def _texts(values: Iterable[str]) -> str:
    return f"CAST([{', '.join(sorted(map(_literal, values)))}] AS VARCHAR[])"


def _literal(text: object) -> str:
    """A text as SQL: in quotes when it is plain, else by its bytes."""
    if not isinstance(text, str):
        raise InternalError("a condition compares a text with something else")
    if text.isascii() and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return f"decode(unhex('{text.encode('utf-8').hex()}'))"


def _uuid(raw: object) -> str:
    if not isinstance(raw, bytes):
        raise InternalError("a condition compares an id with something else")
    return f"CAST('{UUID(bytes=raw)}' AS UUID)"
