"""Types: those of the columnar engine as those of PostgreSQL, by object id.

``PG_TYPES`` is the table that both the wire and pg_type are made from. Object ids, sizes and categories
are those of PostgreSQL's pg_type.dat, because drivers know them by heart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "PG_TYPES",
    "PgType",
    "array_of",
    "duckdb_of",
    "element_of",
    "modifier_of",
    "named",
    "oid_of",
    "type_of",
]


@dataclass(frozen=True, slots=True)
class PgType:
    """``size``: bytes, -1 varies. ``category``: as in pg_type. ``duckdb``: the engine's name, "" none."""

    oid: int
    name: str
    size: int
    category: str
    array: int
    duckdb: str
    sql_name: str  # as format_type writes it


_ROWS: Final = (
    PgType(16, "bool", 1, "B", 1000, "BOOLEAN", "boolean"),
    PgType(17, "bytea", -1, "U", 1001, "BLOB", "bytea"),
    PgType(18, "char", 1, "Z", 1002, "VARCHAR", '"char"'),
    PgType(19, "name", 64, "S", 1003, "VARCHAR", "name"),
    PgType(20, "int8", 8, "N", 1016, "BIGINT", "bigint"),
    PgType(21, "int2", 2, "N", 1005, "SMALLINT", "smallint"),
    PgType(22, "int2vector", -1, "A", 1006, "SMALLINT[]", "int2vector"),
    PgType(23, "int4", 4, "N", 1007, "INTEGER", "integer"),
    PgType(24, "regproc", 4, "N", 1008, "VARCHAR", "regproc"),
    PgType(25, "text", -1, "S", 1009, "VARCHAR", "text"),
    PgType(26, "oid", 4, "N", 1028, "BIGINT", "oid"),
    PgType(30, "oidvector", -1, "A", 1013, "BIGINT[]", "oidvector"),
    PgType(114, "json", -1, "U", 199, "JSON", "json"),
    PgType(700, "float4", 4, "N", 1021, "FLOAT", "real"),
    PgType(701, "float8", 8, "N", 1022, "DOUBLE", "double precision"),
    PgType(705, "unknown", -2, "X", 0, "VARCHAR", "unknown"),
    PgType(1042, "bpchar", -1, "S", 1014, "VARCHAR", "character"),
    PgType(1043, "varchar", -1, "S", 1015, "VARCHAR", "character varying"),
    PgType(1082, "date", 4, "D", 1182, "DATE", "date"),
    PgType(1083, "time", 8, "D", 1183, "TIME", "time without time zone"),
    PgType(1114, "timestamp", 8, "D", 1115, "TIMESTAMP", "timestamp without time zone"),
    PgType(1184, "timestamptz", 8, "D", 1185, "TIMESTAMP WITH TIME ZONE", "timestamp with time zone"),
    PgType(1186, "interval", 16, "T", 1187, "INTERVAL", "interval"),
    PgType(1266, "timetz", 12, "D", 1270, "TIME WITH TIME ZONE", "time with time zone"),
    PgType(1700, "numeric", -1, "N", 1231, "DECIMAL", "numeric"),
    PgType(2205, "regclass", 4, "N", 2210, "VARCHAR", "regclass"),
    PgType(2206, "regtype", 4, "N", 2211, "VARCHAR", "regtype"),
    PgType(2249, "record", -1, "P", 2287, "", "record"),
    PgType(2279, "trigger", 4, "P", 0, "", "trigger"),
    PgType(2278, "void", 4, "P", 0, "", "void"),
    PgType(2950, "uuid", 16, "U", 2951, "UUID", "uuid"),
    PgType(3802, "jsonb", -1, "U", 3807, "JSON", "jsonb"),
    PgType(4089, "regnamespace", 4, "N", 4090, "VARCHAR", "regnamespace"),
)
PG_TYPES: Final[Mapping[int, PgType]] = {t.oid: t for t in _ROWS}
_ELEMENT: Final[Mapping[int, int]] = {t.array: t.oid for t in _ROWS if t.array}

_OID_OF: Final[Mapping[str, int]] = {
    "BOOLEAN": 16,
    "TINYINT": 21,
    "UTINYINT": 21,
    "SMALLINT": 21,
    "USMALLINT": 23,
    "INTEGER": 23,
    "UINTEGER": 20,
    "BIGINT": 20,
    "UBIGINT": 1700,
    "HUGEINT": 1700,
    "UHUGEINT": 1700,
    "BIGNUM": 1700,
    "FLOAT": 700,
    "DOUBLE": 701,
    "VARCHAR": 25,
    "BLOB": 17,
    "DATE": 1082,
    "TIME": 1083,
    "TIME_NS": 1083,
    "TIME WITH TIME ZONE": 1266,
    "TIMESTAMP": 1114,
    "TIMESTAMP_S": 1114,
    "TIMESTAMP_MS": 1114,
    "TIMESTAMP_NS": 1114,
    "TIMESTAMP WITH TIME ZONE": 1184,
    "TIMESTAMPTZ": 1184,
    "INTERVAL": 1186,
    "UUID": 2950,
    "JSON": 114,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_LIST = re.compile(r"(.*)\[\d*\]", re.DOTALL)
_NESTED = ("STRUCT", "MAP", "UNION", "ROW")
_JSON: Final = 114
_TEXT: Final = 25


def type_of(oid: int) -> PgType:
    """The type of an object id; text for one that is not known."""
    return PG_TYPES.get(oid, PG_TYPES[_TEXT])


def element_of(oid: int) -> int:
    """The element type of an array type; 0 when it is no array."""
    return _ELEMENT.get(oid, 0)


def array_of(oid: int) -> int:
    return type_of(oid).array


def oid_of(duckdb: str) -> int:
    """The PostgreSQL type in which a type of the engine is shown; text when there is none nearer."""
    known = _OID_OF.get(duckdb)
    if known is not None:
        return known
    if _LIST.fullmatch(duckdb):
        inner = _LIST.fullmatch(duckdb)[1]  # type: ignore[index]  # matched in the line before
        if _LIST.fullmatch(inner) or inner.startswith(_NESTED):
            return _JSON  # lists of lists need not be rectangular, as arrays of PostgreSQL must be
        return type_of(oid_of(inner)).array or _JSON
    if duckdb.startswith("DECIMAL"):
        return 1700
    if duckdb.startswith(_NESTED):
        return _JSON
    return _TEXT


def modifier_of(duckdb: str) -> int:
    """The type modifier: precision and scale of a decimal; -1 elsewhere."""
    match = _DECIMAL.fullmatch(duckdb)
    return -1 if match is None else (int(match[1]) << 16 | int(match[2])) + 4


_ALIASES: Final = {
    "int": 23, "integer": 23, "bigint": 20, "smallint": 21, "boolean": 16, "real": 700, "decimal": 1700,
    "double": 701, "string": 25, "timestamptz": 1184,
}  # fmt: skip
_BY_NAME: Final[Mapping[str, int]] = {**{t.name: t.oid for t in _ROWS}, **_ALIASES}


def named(name: str) -> int:
    """The type of a name as it stands in a cast; 0 when it is not known."""
    return _BY_NAME.get(name.lower(), 0)


def duckdb_of(oid: int) -> str | None:
    """The engine's name for a type that a client declares; None when the client leaves it open."""
    if oid in (0, 705):
        return None
    element = element_of(oid)
    if element:
        return f"{type_of(element).duckdb or 'VARCHAR'}[]"
    if oid == 1700:
        return "DECIMAL(38,10)"
    return type_of(oid).duckdb or "VARCHAR"
