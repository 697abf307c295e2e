"""The grammar of what the SQL front end takes, as tables over the tree of the engine's own parser.

Every node must be of a kind that stands here, with no key that does not stand here: what a new version
of the engine could mean by anything else is refused. Values say how a key is walked; see ``check``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from strongroom.errors import SqlForbiddenError

__all__ = [
    "COLLATION",
    "EXPRESSIONS",
    "MODIFIERS",
    "OPERATORS",
    "QUERIES",
    "TABLES",
    "Tree",
    "call",
    "column",
    "compare",
    "either",
    "every",
    "exactly",
    "integer",
    "parameter",
    "select",
    "table",
    "text",
    "unsupported",
    "words",
]

Tree = dict[str, Any]


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


COMMON: Final = frozenset({"class", "type", "alias", "query_location", "query_location_length"})

EXPRESSIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "COLUMN_REF": {"column_names": "leaf"},
    "CONSTANT": {"literal": "literal"},
    "COMPARISON": {"left": "expr", "right": "expr"},
    "CONJUNCTION": {"children": "exprs"},
    "OPERATOR": {"children": "exprs"},
    "BETWEEN": {"input": "expr", "lower": "expr", "upper": "expr"},
    "CASE": {"case_checks": "cases", "else_expr": "expr"},
    "CAST": {"child": "expr", "type_expr": "type", "try_cast": "leaf"},
    "COLLATE": {"child": "expr", "collation": "collation"},
    "FUNCTION": {
        "function_name": "leaf",
        "qualified_name": "leaf",
        "schema": "leaf",
        "catalog": "leaf",
        "is_operator": "leaf",
        "distinct": "leaf",
        "arguments": "arguments",
        "filter": "expr",
        "order_bys": "modifier",
    },
    "LAMBDA": {"lhs": "expr", "expr": "expr", "syntax_type": "leaf"},
    "PARAMETER": {"identifier": "leaf"},
    "STAR": {
        "relation_name": "leaf",
        "columns": "leaf",
        "exclude_list": "leaf",
        "qualified_exclude_list": "leaf",
        "replace_list": "replacements",
        "rename_list": "leaf",
        "expr": "expr",
    },
    "SUBQUERY": {"subquery_type": "leaf", "subquery": "subquery", "comparison_type": "leaf", "child": "expr"},
    "WINDOW": {
        "function_name": "leaf",
        "qualified_name": "leaf",
        "schema": "leaf",
        "catalog": "leaf",
        "distinct": "leaf",
        "arguments": "arguments",
        "filter_expr": "expr",
        "partitions": "exprs",
        "orders": "orders",
        "arg_orders": "orders",
        "start": "leaf",
        "end": "leaf",
        "start_expr": "expr",
        "end_expr": "expr",
        "offset_expr": "expr",
        "default_expr": "expr",
        "exclude_clause": "leaf",
        "ignore_nulls": "leaf",
        "has_ignore_nulls": "leaf",
    },
}

OPERATORS: Final = words(
    """OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL COMPARE_IN COMPARE_NOT_IN OPERATOR_COALESCE
    OPERATOR_NULLIF ARRAY_EXTRACT ARRAY_SLICE ARRAY_CONSTRUCTOR STRUCT_EXTRACT GROUPING_FUNCTION OPERATOR_TRY
    OPERATOR_UNPACK"""
)

MODIFIERS: Final[Mapping[str, Mapping[str, str]]] = {
    "ORDER_MODIFIER": {"orders": "orders"},
    "LIMIT_MODIFIER": {"limit": "expr", "offset": "expr", "limit_type": "leaf"},
    "LIMIT_PERCENT_MODIFIER": {"limit": "expr", "offset": "expr"},
    "DISTINCT_MODIFIER": {"distinct_on_targets": "exprs"},
}

QUERIES: Final[Mapping[str, frozenset[str]]] = {
    "SELECT_NODE": words(
        """cte_map select_list from_table where_clause group_expressions group_sets aggregate_handling having
        qualify modifiers sample"""
    ),
    "SET_OPERATION_NODE": words("cte_map setop_type setop_all children modifiers"),
    "RECURSIVE_CTE_NODE": words("cte_map cte_name union_all left right aliases key_targets modifiers"),
}

TABLES: Final[Mapping[str, frozenset[str]]] = {
    "BASE_TABLE": words("table_name schema_name catalog_name qualified_name column_name_alias sample"),
    "JOIN": words("left right join_type ref_type using_columns is_implicit condition"),
    "SUBQUERY": words("subquery column_name_alias sample"),
    "TABLE_FUNCTION": words("function column_name_alias with_ordinality sample"),
    "EXPRESSION_LIST": words("values column_name_alias"),
    "EMPTY": frozenset(),
    "PIVOT": words("source aggregates pivots groups unpivot_names include_nulls column_name_alias"),
}

COLLATION: Final = re.compile(r"[A-Za-z]{1,12}(?:[._][A-Za-z]{1,12}){0,3}", re.ASCII)


def exactly(node: object, keys: Mapping[str, object] | frozenset[str], what: str) -> Tree:
    """``node`` as a tree that has no other keys.

    Raises:
        SqlForbiddenError: it has.
    """
    if not isinstance(node, dict) or not all(k in keys or k in COMMON for k in node):
        raise unsupported(what)
    return node


def unsupported(what: str, hint: str | None = None) -> SqlForbiddenError:
    """The error for a part of SQL that is not offered."""
    return SqlForbiddenError(
        f"{what} is not supported", hint=hint or "docs/sql.md shows what is", sqlstate="0A000"
    )


def column(*path: str, alias: str | None = None) -> Tree:
    """A reference to a column."""
    node: Tree = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": list(path)}
    if alias is not None:
        node["alias"] = alias
    return node


def integer(value: int) -> Tree:
    """An integer constant."""
    return {
        "class": "CONSTANT",
        "type": "VALUE_CONSTANT",
        "literal": {"kind": "INTEGER", "text": str(value)},
    }


def text(value: str) -> Tree:
    """A text constant."""
    return {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "STRING", "text": value}}


def parameter(name: str) -> Tree:
    """A parameter ``$name``."""
    return {"class": "PARAMETER", "type": "VALUE_PARAMETER", "identifier": name}


def compare(operator: str, left: Tree, right: Tree) -> Tree:
    """A comparison, for example ``COMPARE_EQUAL``."""
    return {"class": "COMPARISON", "type": operator, "left": left, "right": right}


def every(conditions: list[Tree]) -> Tree:
    """All of them hold."""
    if len(conditions) == 1:
        return conditions[0]
    return {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", "children": conditions}


def either(conditions: list[Tree]) -> Tree:
    """One of them holds."""
    return {"class": "CONJUNCTION", "type": "CONJUNCTION_OR", "children": conditions}


def call(name: str, *arguments: Tree) -> Tree:
    """A call of a function by its plain name."""
    return {
        "class": "FUNCTION",
        "type": "FUNCTION",
        "function_name": name,
        "order_bys": {"type": "ORDER_MODIFIER"},
        "arguments": [{"expression": a} for a in arguments],
        "qualified_name": {"path": [name]},
    }


def table(path: list[str], alias: str) -> Tree:
    """A reference to a table."""
    node: Tree = {
        "type": "BASE_TABLE",
        "alias": alias,
        "table_name": path[-1],
        "qualified_name": {"path": list(path)},
    }
    if len(path) > 1:
        node["schema_name"] = path[-2]
    if len(path) > 2:
        node["catalog_name"] = path[-3]
    return node


def select(select_list: list[Tree], source: Tree, where: Tree | None = None) -> Tree:
    """A plain SELECT."""
    node: Tree = {
        "type": "SELECT_NODE",
        "cte_map": {},
        "select_list": select_list,
        "from_table": source,
        "aggregate_handling": "STANDARD_HANDLING",
    }
    if where is not None:
        node["where_clause"] = where
    return node
