"""The catalogue: a small engine of its own that holds descriptions and nothing else.

No memory, namespace name, key or audit entry ever enters it, so that no statement about the catalogue,
however it is written, can reach one. One instance a process; every connection gets a cursor with its own
roles and settings. Statements are checked all the same: one SELECT, known relations, functions of an
allow-list.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import duckdb
import pyarrow as pa

from strongroom.engine import SqlExtension
from strongroom.errors import ClosedError
from strongroom.model import SqlCancel
from strongroom.model.sql_values import to_rows
from strongroom.recall.sql import Offer, batches, stream
from strongroom.recall.sql.functions import AGGREGATES, FUNCTIONS, WINDOWS
from strongroom.recall.sql.outputs import SCHEMAS
from strongroom.servers.pgwire._catalog_data import EMPTY_TABLES, TABLES, create_tables, table_rows
from strongroom.servers.pgwire._catalog_macros import EXTRA, HELPERS, MACROS, SESSION_MACROS, TABLE_MACROS
from strongroom.servers.pgwire._catalog_views import SESSION_TABLES, VIEWS
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._rewrite import Constants, quoted
from strongroom.servers.pgwire._rows import Row
from strongroom.servers.pgwire._settings import SERVER_VERSION, Settings

__all__ = ["Catalog", "CatalogSession", "Reply"]

_ROWS_MAX: Final = 100_000
_ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024  # in Arrow's form
_BYTES_MAX: Final = 64 * 1024
_TIME_LIMIT_MS: Final = 10_000
_CHECKED_LENGTH_MAX: Final = 4_096
_CHECKED_MAX: Final = 256
_LOCKDOWN: Final = (
    "memory_limit = '256MB'",
    "threads = 1",
    f"max_execution_time = {_TIME_LIMIT_MS}",
    "temp_directory = ''",
    "TimeZone = 'UTC'",
    "autoload_known_extensions = false",
    "autoinstall_known_extensions = false",
    "allow_community_extensions = false",
    "allow_extension_repositories = 'forbidden'",
    "allow_persistent_secrets = false",
    "python_enable_replacements = false",
    "max_expression_depth = 400",
    "enable_external_access = false",
    "lock_configuration = true",
)
_RELATIONS: Final = (
    frozenset(TABLES)
    | frozenset(EMPTY_TABLES)
    | frozenset(VIEWS)
    | frozenset(SESSION_TABLES)
    | {"pg_settings"}
)
_OWN: Final = frozenset(m.partition("(")[0] for m in MACROS)
_FUNCTIONS: Final = frozenset(f.lower() for f in (FUNCTIONS | AGGREGATES | WINDOWS)) | _OWN | EXTRA
_TABLE_FUNCTIONS: Final = frozenset(
    {"unnest", "generate_series", "range", "generate_subscripts"}
    | {m.partition("(")[0] for m in (*TABLE_MACROS, SESSION_MACROS[1])}
)
_CODES: Final[tuple[tuple[type[duckdb.Error], str], ...]] = (
    (duckdb.ParserException, "42601"),
    (duckdb.CatalogException, "42P01"),
    (duckdb.BinderException, "42703"),
    (duckdb.ConversionException, "22P02"),
    (duckdb.OutOfRangeException, "22003"),
    (duckdb.InterruptException, "57014"),
    (duckdb.OutOfMemoryException, "53200"),
    (duckdb.InvalidInputException, "22023"),
    (duckdb.NotImplementedException, "0A000"),
    (duckdb.TypeMismatchException, "42804"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """``columns``: names and the engine's types. ``size``: bytes of the rows."""

    columns: Sequence[tuple[str, str]]
    fetch: Callable[[int], Sequence[Row]]
    size: int


class Catalog:
    """The shared instance. Made on first use: a server whose clients never ask does not pay for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._db: Any = None
        self._offer: Offer | None = None
        self._closed = False

    def connect(self, settings: Settings, user: str, process_id: int) -> CatalogSession:
        return CatalogSession(self, settings, user, process_id)

    def cursor(self) -> Any:
        """A connection of its own.

        Raises:
            ClosedError: the server has stopped.
        """
        with self._lock:
            if self._closed:
                raise ClosedError
            if self._db is None:
                self._db = _make()
            return self._db.cursor()

    def offer(self, cursor: Any) -> Offer:
        """The relations of the catalogue, for statements that name memories too; one for all connections.

        ``cursor``: of a connection, which has the relations of sessions.
        """
        with self._lock:
            if self._offer is None:
                names = sorted(_RELATIONS)
                found = {_key(name): _columns_of(cursor, name) for name in names}
                self._offer = Offer(relations=found, schemas=SCHEMAS | {"pg_catalog", "information_schema"})
            return self._offer

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None


def _make() -> Any:
    db = duckdb.connect(":memory:")
    db.execute("CREATE SCHEMA infsch")
    for statement in create_tables():
        db.execute(statement)
    for table, row in table_rows():
        names = ", ".join(row)
        marks = ", ".join("?" for _ in row)
        # names of our own tables
        db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
    for name, body in HELPERS.items():
        db.execute(f"CREATE VIEW {name} AS {body}")
    for macro in (*MACROS, *TABLE_MACROS):
        db.execute(f"CREATE MACRO {macro}")
    for name, body in VIEWS.items():
        db.execute(f"CREATE VIEW {name} AS {body}")
    for setting in _LOCKDOWN:
        db.execute(f"SET GLOBAL {setting}")
    return db


def _key(name: str) -> tuple[str, str]:
    """Schema and name of a relation as a statement may write them."""
    schema, _, plain = name.rpartition(".")
    return ("information_schema" if schema else "pg_catalog", plain)


def _name_of(key: tuple[str, str]) -> str:
    return f"infsch.{key[1]}" if key[0] == "information_schema" else key[1]


def _columns_of(cursor: Any, name: str) -> dict[str, str]:
    found = cursor.execute(f"SELECT * FROM {name} LIMIT 0").description  # noqa: S608 - a name of ours
    return {str(column[0]).lower(): str(column[1]) for column in found}


class CatalogSession:
    """The catalogue as one connection sees it. Blocks; used by one thread at a time."""

    def __init__(self, catalog: Catalog, settings: Settings, user: str, process_id: int) -> None:
        self._catalog = catalog
        self._settings = settings
        self._user = user
        self._process_id = process_id
        self._cursor: Any = None
        self._checked: dict[str, bool] = {}
        self.constants = Constants(self._constant, settings.find)

    def close(self) -> None:
        if self._cursor is not None:
            with suppress(duckdb.Error):
                self._cursor.close()
            self._cursor = None

    def _constant(self, name: str) -> str | int:
        values: dict[str, str | int] = {
            "version": f"PostgreSQL {SERVER_VERSION} (Strongroom), read-only",
            "current_schema": "public",
            "current_database": "strongroom",
            "current_catalog": "strongroom",
            "pg_backend_pid": self._process_id,
        }
        return values.get(name, self._user)

    def describe(self, text: str, types: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """Types of parameters (as given; VARCHAR where open) and columns."""
        cursor = self._ready(text)
        try:
            cursor.execute(f"PREPARE described AS {text}")
            found = cursor.execute(
                "SELECT parameter_types FROM duckdb_prepared_statements() WHERE name = 'described'"
            ).fetchall()
            cursor.execute("DEALLOCATE described")
            inferred = [str(t) for t in (found[0][0] if found else None) or ()]
            values = [_sample(t if t != "UNKNOWN" else i) for t, i in zip(types, inferred, strict=False)]
            shown = cursor.execute(f"DESCRIBE {text}", values or None).fetchall()
        except duckdb.Error as e:
            raise _translated(e) from None
        return inferred, [(str(r[0]), str(r[1])) for r in shown]

    def run(self, text: str, values: Sequence[Any], cancel: SqlCancel) -> Reply:
        """Carry out a statement."""
        cursor = self._ready(text)
        cancel.watch(cursor.interrupt)
        try:
            found, reader = stream(cursor, text, list(values))
            columns = [(c.name, c.type) for c in found]
            table = _bounded(reader)
        except duckdb.Error as e:
            if cancel.cancelled:
                raise PgError("57014", "canceling statement due to user request") from None
            raise _translated(e) from None
        finally:
            cancel.watch(None)
        types = tuple(kind for _, kind in columns)
        at = 0

        def fetch(count: int) -> Sequence[Row]:
            nonlocal at
            out = to_rows(table, at, min(count, table.num_rows - at), types)
            at += len(out)
            return out

        return Reply(columns, fetch, table.nbytes)

    def extension(self) -> SqlExtension:
        """The relations of the catalogue as this connection sees them, beside memories."""
        self._open()
        offer = self._catalog.offer(self._cursor)
        return SqlExtension(offer, {key: partial(self._rows_of, key) for key in offer.relations})

    def _rows_of(self, key: tuple[str, str], _namespaces: Sequence[str]) -> Any:
        if key[1] == "pg_settings":
            self._fill_settings()
        return self._cursor.sql(f"SELECT * FROM {_name_of(key)}").to_arrow_table()  # noqa: S608 - names of ours

    # -- inside -----------------------------------------------------------------------------------------
    def _ready(self, text: str) -> Any:
        if len(text.encode("utf-8", "replace")) > _BYTES_MAX:
            raise PgError("54000", "the statement is too long")
        self._open()
        if text not in self._checked:
            if len(self._checked) >= _CHECKED_MAX:
                self._checked.clear()
            _check(self._cursor, text)
            if len(text) <= _CHECKED_LENGTH_MAX:
                self._checked[text] = True
        if any(name in text for name in _SETTINGS_NAMES):
            self._fill_settings()
        return self._cursor

    def _open(self) -> None:
        if self._cursor is None:
            self._cursor = self._catalog.cursor()
            values = {"$1": quoted(self._user), "$2": "false", "$3": str(self._process_id)}
            for name, body in SESSION_TABLES.items():
                made = re.sub(r"\$[123]", lambda m: values[m[0]], body)
                self._cursor.execute(f"CREATE TEMP TABLE {name} AS {made}")
            self._cursor.execute(_SETTINGS_TABLE)
            for macro in SESSION_MACROS:
                self._cursor.execute(f"CREATE TEMP MACRO {macro}")

    def _fill_settings(self) -> None:
        self._cursor.execute("DELETE FROM pg_settings")
        rows = [(n, v, n, v, v) for n, v in self._settings.all()]
        self._cursor.executemany(
            "INSERT INTO pg_settings (name, setting, short_desc, boot_val, reset_val) VALUES (?, ?, ?, ?, ?)",
            rows,
        )


_SETTINGS_NAMES: Final = ("pg_settings", "current_setting", "pg_show_all_settings")
_SETTINGS_TABLE: Final = """CREATE TEMP TABLE pg_settings (name VARCHAR, setting VARCHAR, unit VARCHAR,
    category VARCHAR DEFAULT 'Strongroom', short_desc VARCHAR, extra_desc VARCHAR,
    context VARCHAR DEFAULT 'user',
    vartype VARCHAR DEFAULT 'string', source VARCHAR DEFAULT 'default', min_val VARCHAR, max_val VARCHAR,
    enumvals VARCHAR[], boot_val VARCHAR, reset_val VARCHAR, sourcefile VARCHAR, sourceline INTEGER,
    pending_restart BOOLEAN DEFAULT false)"""


def _bounded(reader: Any) -> Any:
    """The rows as one table. Raises: PgError: 54000: too many, or too large."""
    parts, rows, size = [], 0, 0
    with reader:
        for batch in batches(reader):
            rows += batch.num_rows
            size += batch.nbytes
            if rows > _ROWS_MAX or size > _ANSWER_BYTES_MAX:
                raise PgError("54000", "the answer about the catalogue is too large")
            parts.append(batch)
        return pa.Table.from_batches(parts, schema=reader.schema)


def _sample(kind: str) -> Any:
    if kind in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"):
        return 0
    return [] if kind.endswith("[]") else None


def _translated(error: duckdb.Error) -> PgError:
    for kind, code in _CODES:
        if isinstance(error, kind):
            first = str(error).splitlines()[0][:300].replace("infsch.", "information_schema.")
            return PgError(code, first.partition(": ")[2] or first)
    return PgError("XX000", "the catalogue failed")


# -- what may be asked -----------------------------------------------------------------------------------
def _check(cursor: Any, text: str) -> None:
    """Raises: PgError: not exactly one SELECT over what is here."""
    try:
        raw = cursor.execute("SELECT json_serialize_sql(CAST($1 AS VARCHAR))", [text]).fetchall()[0][0]
    except duckdb.Error:
        raise PgError("42601", "syntax error") from None
    tree = json.loads(raw)
    if tree.get("error"):
        if "Only SELECT" in str(tree.get("error_message", "")):
            raise PgError("25006", "only SELECT is allowed: this surface is read-only")
        raise PgError("42601", "syntax error: " + str(tree.get("error_message", ""))[:200])
    statements = tree.get("statements") or []
    if len(statements) != 1:
        raise PgError("42601", "exactly one statement is expected")
    names: set[str] = set()
    _ctes(statements, names)
    _walk(statements, names)


def _ctes(node: Any, names: set[str]) -> None:
    todo = [node]
    while todo:
        current = todo.pop()
        if isinstance(current, dict):
            for entry in (current.get("cte_map") or {}).get("map") or ():
                names.add(str(entry.get("key", "")).lower())
            todo.extend(current.values())
        elif isinstance(current, list):
            todo.extend(current)


def _walk(node: Any, ctes: set[str]) -> None:
    todo = [node]
    while todo:
        current = todo.pop()
        if isinstance(current, list):
            todo.extend(current)
            continue
        if not isinstance(current, dict):
            continue
        kind = current.get("type")
        if kind == "BASE_TABLE":
            _check_relation(current, ctes)
        elif kind == "TABLE_FUNCTION":
            name = str((current.get("function") or {}).get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise PgError("42883", f"table function {name[:64]} is not offered")
        elif kind in ("SHOW_REF", "SHOWREF"):
            raise PgError("0A000", "SHOW and DESCRIBE cannot stand in a query")
        elif current.get("class") in ("FUNCTION", "WINDOW"):
            _check_function(current)
        todo.extend(current.values())


def _check_relation(node: dict[str, Any], ctes: set[str]) -> None:
    path = [
        str(p).lower() for p in (node.get("qualified_name") or {}).get("path") or [node.get("table_name", "")]
    ]
    name = ".".join(path)
    if name in _RELATIONS or (len(path) == 1 and name in ctes):
        return
    shown = name.replace("infsch.", "information_schema.", 1)
    raise PgError("42P01", f'relation "{shown[:128]}" does not exist')


def _check_function(node: dict[str, Any]) -> None:
    name = str(node.get("function_name", "")).lower()
    if node.get("schema") or node.get("catalog") or name not in _FUNCTIONS:
        if name in _TABLE_FUNCTIONS:
            return
        raise PgError("42883", f"function {name[:64]} does not exist")
