"""Types of parameters, from what stands beside them."""

from __future__ import annotations

from typing import Any, Final

from strongroom.recall.sql.functions import RELATIONS, RESULT_TYPES
from strongroom.recall.sql.plan import Plan
from strongroom.recall.sql.scope import Base, Scope
from strongroom.recall.sql.tree import Tree

__all__ = ["UNKNOWN", "parameter_types", "sample"]

UNKNOWN: Final = "UNKNOWN"
_LITERALS: Final = {"INTEGER": "BIGINT", "NUMERIC": "DOUBLE", "STRING": "VARCHAR", "BOOLEAN": "BOOLEAN"}
_SAME: Final = frozenset({"+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*", "~~~", "^@"})
_TEXTUAL: Final = frozenset(
    {
        "contains",
        "starts_with",
        "ends_with",
        "regexp_matches",
        "regexp_full_match",
        "lower",
        "upper",
        "like_escape",
    }
)
_ALIASES: Final = {
    "INT": "INTEGER", "INT4": "INTEGER", "INT8": "BIGINT", "INT2": "SMALLINT", "TEXT": "VARCHAR",
    "STRING": "VARCHAR", "BPCHAR": "VARCHAR", "CHAR": "VARCHAR", "BOOL": "BOOLEAN", "FLOAT8": "DOUBLE",
    "FLOAT4": "FLOAT", "REAL": "FLOAT", "BYTEA": "BLOB", "DATETIME": "TIMESTAMP", "NUMERIC": "DECIMAL",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
}  # fmt: skip
_SAMPLES: Final = {
    "BOOLEAN": "true", "UUID": "00000000-0000-0000-0000-000000000000", "DATE": "2000-01-01",
    "TIMESTAMP": "2000-01-01", "TIMESTAMP WITH TIME ZONE": "2000-01-01+00", "TIME": "00:00",
    "INTERVAL": "1 day",
}  # fmt: skip


def parameter_types(plan: Plan, given: tuple[str, ...]) -> tuple[str, ...]:
    """A type for each parameter of a plan; ``given`` ones go first, an empty text stands for none.

    A parameter takes the type of its cast, or of what it is compared with, listed with, or counted by.
    ``UNKNOWN`` where nothing tells.
    """
    count = max(map(int, plan.walk.parameters), default=0)
    types = [*given[:count], *[""] * (count - len(given[:count]))]
    for name, parent, scope in plan.walk.parameter_parents:
        number = int(name) - 1
        if not types[number] or types[number] == UNKNOWN:
            types[number] = _from_parent(parent, scope) or UNKNOWN
    return tuple(t or UNKNOWN for t in types)


def _from_parent(parent: Tree, scope: Scope) -> str | None:
    match parent.get("class"):
        case "TEXT":
            return "VARCHAR"
        case "CAST":
            return _cast(parent)
        case "COMPARISON" | "BETWEEN":
            return _of_others([parent.get(k) for k in ("left", "right", "input", "lower", "upper")], scope)
        case "OPERATOR" if str(parent.get("type")) in ("COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE"):
            return _of_others(parent.get("children", []), scope)
        case "FUNCTION":
            name = str(parent.get("function_name")).lower()
            if name in _TEXTUAL:
                return "VARCHAR"
            if name in _SAME:
                return _of_others([a.get("expression") for a in parent.get("arguments", [])], scope)
            return None
        case "CONJUNCTION":
            return "BOOLEAN"
        case None if parent.get("type") in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
            return "BIGINT"
    return None


def _cast(node: Tree) -> str:
    given = node.get("type_expr", {})
    name = str(given.get("type_name")).upper()
    if name == "LIST" and given.get("children"):
        return _cast({"type_expr": given["children"][0]}) + "[]"
    return _ALIASES.get(name, name)


def _of_others(nodes: list[Any], scope: Scope) -> str | None:
    for node in nodes:
        if isinstance(node, dict) and node.get("class") != "PARAMETER":
            found = _type(node, scope)
            if found is not None:
                return found
    return None


def _type(node: Tree, scope: Scope) -> str | None:
    match node.get("class"):
        case "CONSTANT":
            return _LITERALS.get(str(node.get("literal", {}).get("kind")))
        case "CAST":
            return _cast(node)
        case "COLUMN_REF":
            return _column([str(n).lower() for n in node["column_names"]], scope)
        case "FUNCTION" | "WINDOW":
            name = str(node.get("function_name")).lower()
            if name in RESULT_TYPES:
                return _ALIASES.get(RESULT_TYPES[name], RESULT_TYPES[name])
            if name in ("min", "max", "any_value", "coalesce", "abs", *_SAME):
                return _of_others([a.get("expression") for a in node.get("arguments", [])], scope)
    return None


def _column(path: list[str], scope: Scope | None) -> str | None:
    while scope is not None:
        for relation in scope.relations:
            if len(path) > 1 and relation.alias.lower() != path[-2]:
                continue
            found = relation.types.get(path[-1])
            if found is None and isinstance(relation.source, Base):
                found = RELATIONS[relation.source.relation].get(path[-1])
            if found is not None:
                return _ALIASES.get(found, found)
        scope = scope.parent
    return None


def sample(type_: str) -> str | int | None:
    """A value that binds as a parameter of this type, so that the engine can tell the columns."""
    if type_ in (
        "BIGINT",
        "INTEGER",
        "SMALLINT",
        "TINYINT",
        "HUGEINT",
        "DOUBLE",
        "FLOAT",
    ) or type_.startswith("DECIMAL"):
        return 1
    if type_.endswith("]") or type_ in (UNKNOWN, "STRUCT", "MAP"):
        return None
    return _SAMPLES.get(type_, "1")
