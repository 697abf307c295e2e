"""Statements of a few everyday forms, which need no columnar engine; ``direct_run`` answers them.

One reference to ``memories``, columns of it by name, and as WHERE nothing or comparisons joined by AND:
``memory_id = id``; ``=`` and ``IN`` with texts on kind, sensitivity, agent_id, subject and session_id;
comparisons of ``importance`` with numbers and of ``created_at`` with times. Then one of

- ``memory_id = id``, with other comparisons beside it or none;
- ``count(*)``;
- ``GROUP BY`` some of those five columns and ``namespace``, with ``count(*)`` and ``sum`` and ``avg`` of
  ``importance``, in an order of what is selected and with a limit, or without (``grouped``);
- ``ORDER BY created_at DESC LIMIT k [OFFSET o]``;
- ``ORDER BY semantic_rank(...) DESC LIMIT k [OFFSET o]``.

Whatever is not exactly that, or has a parameter of another type, goes the general way. So does the first run
of every statement: it tells the names and types of the columns, and the plan is looked at as ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal, cast
from uuid import UUID

from strongroom.recall._columns import to_us
from strongroom.recall._facets import CODED, Compare, Condition, OneOf, Operator
from strongroom.recall.sql.functions import RELATIONS
from strongroom.recall.sql.grouped import Groups, find_groups, is_count
from strongroom.recall.sql.plan import TopK, count_of
from strongroom.recall.sql.scope import Base, Text
from strongroom.recall.sql.tree import Tree
from strongroom.recall.sql.walk import Walk

__all__ = ["Direct", "find_direct", "memory_id_of", "resolved"]

_NODE: Final = frozenset(
    {"type", "modifiers", "cte_map", "select_list", "from_table", "where_clause", "aggregate_handling"}
)
_GROUPING: Final = frozenset({"group_expressions", "group_sets"})
_SHOWN: Final = frozenset(RELATIONS["memories"]) - {"access_count", "last_accessed_at"}
_TESTS: Final[Mapping[str, Operator]] = {
    "COMPARE_EQUAL": "=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_FLIPPED: Final[Mapping[str, Operator]] = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DIGITS_MAX: Final = 15  # a decimal of that many digits is the same number in the engine and in Python
_EXACT_MAX: Final = 2**53
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)

Operand = str | float | Text


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison; ``IN`` is ``=`` with several operands."""

    column: str
    operator: Operator
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Direct:
    """A statement of one of the forms. ``columns``: names of columns; None: the score of ``top``."""

    kind: Literal["id", "count", "newest", "top", "groups"]
    columns: tuple[str | None, ...] = ()
    tests: tuple[Test, ...] = ()
    memory_id: Operand | None = None
    limit: int | Text | None = None
    offset: int | Text = 0
    groups: Groups | None = None


def find_direct(node: Tree, walk: Walk, top: TopK | None) -> Direct | None:
    """What a checked statement is, when it has one of the forms."""
    source = node.get("from_table", {})
    base = walk.bases[0] if len(walk.bases) == 1 else None
    if base is None or base.node is not source or base.relation != "memories" or walk.used:
        return None
    known = node.keys() <= _NODE | _GROUPING
    if node.get("type") != "SELECT_NODE" or not known or node.get("cte_map", {}).get("map"):
        return None
    if (
        node.get("aggregate_handling") != "STANDARD_HANDLING"
        or {"sample", "column_name_alias"} & source.keys()
    ):
        return None
    if base.alias.lower() in RELATIONS["memories"] or _shadows(node["select_list"]):
        return None
    found = _tests(node.get("where_clause"), base)
    if found is None:
        return None
    tests, memory_id = found
    return _form(node, walk, base, top, tests, memory_id)


def _form(
    node: Tree, walk: Walk, base: Base, top: TopK | None, tests: tuple[Test, ...], memory_id: Operand | None
) -> Direct | None:
    items, modifiers = node["select_list"], {m["type"]: m for m in node.get("modifiers", [])}
    if _GROUPING & node.keys():
        groups = None if memory_id is not None else find_groups(node, partial(_column, base=base))
        return None if groups is None else Direct("groups", (), tests, groups=groups)
    if _is_count(items):
        return Direct("count", (), tests) if not modifiers and memory_id is None else None
    columns = _columns(items, walk, base, top)
    if columns is None:
        return None
    cut = modifiers.get("LIMIT_MODIFIER", {})
    if memory_id is not None:
        if None in columns or modifiers.keys() - {"LIMIT_MODIFIER"} or cut.keys() - {"type", "limit"}:
            return None
        limit = count_of(cut["limit"]) if cut else None
        return Direct("id", columns, tests, memory_id, limit) if not cut or limit is not None else None
    orders = modifiers.get("ORDER_MODIFIER", {}).get("orders", [])
    if modifiers.keys() != {"ORDER_MODIFIER", "LIMIT_MODIFIER"} or len(orders) != 1:
        return None
    if top is not None:
        return Direct("top", columns, tests, None, top.limit, top.offset)
    limit, offset = count_of(cut.get("limit")), count_of(cut["offset"]) if "offset" in cut else 0
    newest = (
        orders[0].get("type") == "DESCENDING" and _column(orders[0].get("expression"), base) == "created_at"
    )
    if not newest or limit is None or offset is None or "limit_type" in cut or None in columns:
        return None
    return Direct("newest", columns, tests, None, limit, offset)


def _is_count(items: Sequence[Tree]) -> bool:
    return len(items) == 1 and is_count(items[0])


def _shadows(items: Sequence[Tree]) -> bool:
    """Whether an alias is the name of another column: ORDER BY would mean the alias."""
    for item in items:
        alias = str(item.get("alias", "")).lower()
        if alias in RELATIONS["memories"] and str((item.get("column_names") or [""])[-1]).lower() != alias:
            return True
    return False


def _columns(
    items: Sequence[Tree], walk: Walk, base: Base, top: TopK | None
) -> tuple[str | None, ...] | None:
    out: list[str | None] = []
    for item in items:
        rank = walk.ranks.get(id(item))
        if rank is not None and top is not None and rank == (top.base, top.score):
            out.append(None)
            continue
        name = _column(item, base)
        if name is None:
            return None
        out.append(name)
    return tuple(out)


def _column(node: object, base: Base) -> str | None:
    """The column of memories that a node names."""
    if not isinstance(node, dict) or node.get("class") != "COLUMN_REF":
        return None
    path = [str(p).lower() for p in node["column_names"]]
    if len(path) == 2 and path[0] != base.alias.lower():
        return None
    return path[-1] if len(path) <= 2 and path[-1] in _SHOWN else None


# -- conditions -----------------------------------------------------------------------------------------
def _tests(where: object, base: Base) -> tuple[tuple[Test, ...], Operand | None] | None:
    """The comparisons of a WHERE, and that with memory_id; None: there is something else in it."""
    tests: list[Test] = []
    if where is None:
        return (), None
    if not isinstance(where, dict):
        return None
    for condition in where["children"] if where.get("type") == "CONJUNCTION_AND" else [where]:
        found = _test(condition, base)
        if found is None:
            return None
        tests += found
    ids = [test for test in tests if test.column == "memory_id"]
    if len(ids) > 1:
        return None
    return tuple(t for t in tests if t.column != "memory_id"), ids[0].operands[0] if ids else None


def _test(node: Tree, base: Base) -> list[Test] | None:
    if node.get("class") == "BETWEEN" and node.get("type") == "COMPARE_BETWEEN":
        parts = [
            _made(node["input"], ">=", [node["lower"]], base),
            _made(node["input"], "<=", [node["upper"]], base),
        ]
        return None if None in parts else cast(list[Test], parts)
    if node.get("class") == "OPERATOR" and node.get("type") == "COMPARE_IN":
        first, *others = node["children"]
        made = _made(first, "=", others, base) if others else None
        return None if made is None or made.column not in CODED else [made]
    operator = _TESTS.get(str(node.get("type"))) if node.get("class") == "COMPARISON" else None
    if operator is None:
        return None
    made = _made(node["left"], operator, [node["right"]], base)
    made = made or _made(node["right"], _FLIPPED[operator], [node["left"]], base)
    return None if made is None else [made]


def _made(place: Tree, operator: Operator, operands: Sequence[Tree], base: Base) -> Test | None:
    column = _column(place, base)
    if column is None:
        return None
    values = [_operand(node, column) for node in operands]
    if any(v is None for v in values):
        return None
    if column in CODED or column == "memory_id":
        fits = operator == "=" and not any(isinstance(v, float) for v in values)
    elif column == "importance":
        fits = not any(isinstance(v, str) for v in values)
    else:
        fits = column == "created_at" and all(isinstance(v, Text) for v in values)
    return Test(column, operator, tuple(v for v in values if v is not None)) if fits else None


def _operand(node: Tree, column: str) -> Operand | None:
    if column == "memory_id" and node.get("class") == "CAST" and not node.get("try_cast"):
        if str(node.get("type_expr", {}).get("type_name")).upper() != "UUID":
            return None
        node = node["child"]
    if node.get("class") == "PARAMETER":
        return Text(parameter=str(node["identifier"])[1:])
    literal = node.get("literal", {}) if node.get("class") == "CONSTANT" else {}
    text = literal.get("text", "")
    if literal.get("kind") == "STRING":
        return str(text)
    plain = literal.get("kind") in ("INTEGER", "NUMERIC") and re.fullmatch(r"\d*\.?\d*", text, re.ASCII)
    return float(text) if plain and 0 < sum(map(str.isdigit, text)) <= _DIGITS_MAX else None


# -- values of parameters -------------------------------------------------------------------------------
def resolved(direct: Direct, parameters: Sequence[Any]) -> list[Condition] | None:
    """The comparisons with the values of the parameters; None: one is of a type that is not known here."""
    out: list[Condition] = []
    for test in direct.tests:
        values = [_value(operand, parameters) for operand in test.operands]
        if test.column in CODED:
            if not all(type(v) is str and _is_text(v) for v in values):
                return None
            out.append(OneOf(test.column, tuple(values)))
            continue
        number = _number(values[0]) if test.column == "importance" else _moment(values[0])
        if number is None:
            return None
        out.append(Compare(cast(Any, test.column), test.operator, number))
    return out


def _value(operand: Operand, parameters: Sequence[Any]) -> Any:
    if not isinstance(operand, Text):
        return operand
    number = int(str(operand.parameter))
    return parameters[number - 1] if number <= len(parameters) else None


def _number(value: Any) -> float | None:
    if type(value) is int:
        return float(value) if abs(value) <= _EXACT_MAX else None
    return value if type(value) is float and not math.isnan(value) else None


def _is_text(value: str) -> bool:
    """Whether it is valid Unicode; what the engine says of anything else is for the engine to say."""
    try:
        return value.isascii() or bool(value.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _moment(value: Any) -> int | None:
    return to_us(value) if type(value) is datetime and value.utcoffset() is not None else None


def memory_id_of(direct: Direct, parameters: Sequence[Any]) -> bytes | None:
    """The id that is asked for; None: it is not written as an id."""
    value = _value(cast(Operand, direct.memory_id), parameters)
    if type(value) is UUID:
        return value.bytes
    return UUID(value).bytes if type(value) is str and _UUID.fullmatch(value) else None
