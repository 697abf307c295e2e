"""The allow-list of what a ``where`` expression may name: columns, functions, operators, types, clocks.

Everything that is not in these tables is refused. A function is admitted when its result depends on
its arguments alone, cannot grow much beyond them (so no ``repeat``, ``||``, ``replace``), and takes time
at most linear in them. The tables are also what docs/filters.md shows; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["CLOCKS", "COLUMNS", "FUNCTIONS", "FUNCTION_GROUPS", "INFIX", "PREFIX", "TYPES"]

COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "memory_id": "UUID",
        "namespace": "VARCHAR",
        "kind": "VARCHAR",
        "content": "VARCHAR",
        "metadata": "JSON",
        "tags": "VARCHAR[]",
        "subject": "VARCHAR",
        "agent_id": "VARCHAR",
        "session_id": "VARCHAR",
        "sensitivity": "VARCHAR",
        "importance": "DOUBLE",
        "source": "VARCHAR",
        "derived_from": "UUID[]",
        "created_at": "TIMESTAMPTZ",
        "updated_at": "TIMESTAMPTZ",
        "expires_at": "TIMESTAMPTZ",
        "access_count": "BIGINT",
        "last_accessed_at": "TIMESTAMPTZ",
        "has_embedding": "BOOLEAN",
        "version": "BIGINT",
    }
)
"""The columns that an expression may name, with their types."""

FUNCTION_GROUPS: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = MappingProxyType(
    {
        "text": {
            "lower": (1, 1),
            "upper": (1, 1),
            "length": (1, 1),
            "char_length": (1, 1),
            "trim": (1, 2),
            "ltrim": (1, 2),
            "rtrim": (1, 2),
            "left": (2, 2),
            "right": (2, 2),
            "substring": (2, 3),
            "substr": (2, 3),
            "contains": (2, 2),
            "starts_with": (2, 2),
            "ends_with": (2, 2),
            "position": (2, 2),
            "strpos": (2, 2),
            "instr": (2, 2),
            "strip_accents": (1, 1),
            "regexp_matches": (2, 3),
            "regexp_full_match": (2, 3),
            "like_escape": (3, 3),
            "not_like_escape": (3, 3),
            "ilike_escape": (3, 3),
            "not_ilike_escape": (3, 3),
        },
        "numbers": {
            "abs": (1, 1),
            "round": (1, 2),
            "floor": (1, 1),
            "ceil": (1, 1),
            "ceiling": (1, 1),
            "trunc": (1, 1),
            "sign": (1, 1),
            "sqrt": (1, 1),
            "ln": (1, 1),
            "log": (1, 2),
            "log2": (1, 1),
            "log10": (1, 1),
            "exp": (1, 1),
            "pow": (2, 2),
            "power": (2, 2),
            "mod": (2, 2),
            "greatest": (1, 16),
            "least": (1, 16),
            "isnan": (1, 1),
            "isinf": (1, 1),
            "isfinite": (1, 1),
        },
        "time": {
            "date_trunc": (2, 2),
            "datetrunc": (2, 2),
            "date_part": (2, 2),
            "datepart": (2, 2),
            "date_diff": (3, 3),
            "datediff": (3, 3),
            "age": (2, 2),
            "year": (1, 1),
            "quarter": (1, 1),
            "month": (1, 1),
            "week": (1, 1),
            "day": (1, 1),
            "dayofweek": (1, 1),
            "isodow": (1, 1),
            "dayofyear": (1, 1),
            "hour": (1, 1),
            "minute": (1, 1),
            "second": (1, 1),
            "dayname": (1, 1),
            "monthname": (1, 1),
            "last_day": (1, 1),
            "epoch": (1, 1),
            "epoch_ms": (1, 1),
            "epoch_us": (1, 1),
            "timezone": (2, 2),
            "make_date": (3, 3),
            "to_timestamp": (1, 1),
            "to_years": (1, 1),
            "to_months": (1, 1),
            "to_weeks": (1, 1),
            "to_days": (1, 1),
            "to_hours": (1, 1),
            "to_minutes": (1, 1),
            "to_seconds": (1, 1),
            "to_milliseconds": (1, 1),
            "to_microseconds": (1, 1),
        },
        "conditions": {
            "coalesce": (1, 64),
            "nullif": (2, 2),
            "ifnull": (2, 2),
            "if": (3, 3),
        },
        "lists": {
            "list_contains": (2, 2),
            "list_has": (2, 2),
            "list_has_any": (2, 2),
            "list_has_all": (2, 2),
            "array_contains": (2, 2),
            "array_has": (2, 2),
            "array_has_any": (2, 2),
            "array_has_all": (2, 2),
            "list_position": (2, 2),
            "list_value": (0, 1000),
            "len": (1, 1),
            "array_length": (1, 2),
        },
        "JSON": {
            "json_extract": (2, 2),
            "json_extract_string": (2, 2),
            "json_type": (1, 2),
            "json_exists": (2, 2),
            "json_contains": (2, 2),
            "json_array_length": (1, 2),
            "json_keys": (1, 2),
            "json_valid": (1, 1),
        },
    }
)
"""Functions by group: name -> (fewest, most arguments)."""

FUNCTIONS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {name: arity for group in FUNCTION_GROUPS.values() for name, arity in group.items()}
)

INFIX: Final[frozenset[str]] = frozenset(
    {"+", "-", "*", "/", "//", "%", "^", "**", "&", "|", "<<", ">>"}
    | {"~~", "!~~", "~~*", "!~~*", "~~~", "->", "->>", "&&", "@>", "<@", "^@"}
)
"""Operators between two operands, as the parser names them (``~~`` is LIKE, ``~~*`` ILIKE, ``~~~`` GLOB)."""

PREFIX: Final[frozenset[str]] = frozenset({"-", "+", "~"})

CLOCKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "now": "TIMESTAMPTZ",
        "current_timestamp": "TIMESTAMPTZ",
        "transaction_timestamp": "TIMESTAMPTZ",
        "current_date": "DATE",
        "today": "DATE",
    }
)
"""Names for the moment of the request; it is passed in, so that all of one request sees one time."""

TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOLEAN": "BOOLEAN",
        "BOOL": "BOOLEAN",
        "SMALLINT": "SMALLINT",
        "INTEGER": "INTEGER",
        "INT": "INTEGER",
        "BIGINT": "BIGINT",
        "HUGEINT": "HUGEINT",
        "FLOAT": "FLOAT",
        "REAL": "FLOAT",
        "DOUBLE": "DOUBLE",
        "DECIMAL": "DECIMAL",
        "NUMERIC": "DECIMAL",
        "VARCHAR": "VARCHAR",
        "TEXT": "VARCHAR",
        "STRING": "VARCHAR",
        "UUID": "UUID",
        "JSON": "JSON",
        "DATE": "DATE",
        "TIME": "TIME",
        "TIMESTAMP": "TIMESTAMP",
        "DATETIME": "TIMESTAMP",
        "TIMESTAMPTZ": "TIMESTAMPTZ",
        "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
        "INTERVAL": "INTERVAL",
    }
)
"""Types that CAST may name (as the parser spells them) -> as they are written out again."""
