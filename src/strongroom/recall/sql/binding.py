"""What stands between a plan and the engine: values for parameters, and a look at the engine's own plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from strongroom.errors import InternalError
from strongroom.recall._columns import text_key
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.sql.scope import Text
from strongroom.recall.sql.tree import words

__all__ = ["check_scans", "narrowed", "number_of", "rows_condition"]

RID_MAX: Final = 2**62
KEY_MIN, KEY_MAX = -(2**63), 2**63 - 1
_LEAVES: Final = words(
    """ARROW_SCAN PYTHON_ARROW_SCAN DUMMY_SCAN EMPTY_RESULT COLUMN_DATA_SCAN CTE_SCAN RECURSIVE_CTE_SCAN
    REC_CTE_SCAN DELIM_SCAN RANGE GENERATE_SERIES UNNEST JSON_EACH JSON_TREE EXPRESSION_SCAN"""
)
"""Leaves of a plan that read no table of the engine."""


def check_scans(nodes: Any, allowed: frozenset[str]) -> None:
    """Every leaf of the engine's plan reads one of ``allowed``, or no table at all.

    Raises:
        InternalError: it does not.
    """
    for node in nodes if isinstance(nodes, list) else [nodes]:
        table = node.get("extra_info", {}).get("Table")
        name = str(node.get("name")).strip().upper()
        children = node.get("children", [])
        if table is not None:
            if table not in allowed:
                raise InternalError("a statement would have read what is not the caller's")
        elif not children and name not in _LEAVES:
            raise InternalError(f"a statement would have read by {name[:40]}")
        check_scans(children, allowed)


def number_of(value: int | Text, parameters: Sequence[Any]) -> int:
    """A whole number of a statement; -1: the parameter is something else, or was not given."""
    if isinstance(value, int):
        return value
    number = int(str(value.parameter))
    given = parameters[number - 1] if number <= len(parameters) else None
    return given if type(given) is int else -1


def narrowed(
    number: int, column: str, text: Text, parameters: Sequence[Any], indexes: Sequence[NamespaceIndex]
) -> dict[str, Any]:
    """Values for the conditions of ``plan._narrow``; such that all rows pass where nothing follows."""
    value = text.literal
    if text.parameter is not None:
        value = parameters[int(text.parameter) - 1]
    if column != "memory_id":
        if not isinstance(value, str):
            return {f"l{number}": KEY_MIN, f"h{number}": KEY_MAX}
        return dict.fromkeys((f"l{number}", f"h{number}"), text_key(value))
    try:
        memory_id = value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError):
        return {f"l{number}": 0, f"h{number}": RID_MAX}
    rids = [r for index in indexes if (r := index.rid_of(memory_id.bytes)) is not None]
    return {f"l{number}": min(rids, default=-1), f"h{number}": max(rids, default=-1)}


def rows_condition(rid: str, place: str, rows: Mapping[int, Sequence[int]], *, single: bool) -> str:
    """A condition for the rows ``{member: rids}``: integers of ours and names of ours, as SQL.

    The engine turns ``IN (VALUES ...)`` into a join that skips what it does not need; a list it would
    compare with every row.
    """
    if not rows:
        return "(1 = 0)"
    every = sorted({int(r) for rids in rows.values() for r in rids})
    values = f'("{rid}" IN (VALUES {", ".join(f"({r})" for r in every)}))'
    if single:
        return values
    parts = [
        f'("{place}" = {int(number)} AND "{rid}" IN ({", ".join(str(int(r)) for r in rids)}))'
        for number, rids in rows.items()
    ]
    return f"({values} AND ({' OR '.join(parts)}))"
