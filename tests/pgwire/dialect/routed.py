"""Connections for SQLAlchemy's dialect suite on a server that only reads.

The suite makes tables, fills them and asks. What changes something goes to a PostgreSQL of the test's own
(``real``); what asks goes to the server that is looked at (``asked``), with every table that the statement
names put before it as a common table expression of its rows, as they are in ``real`` at that moment:

    SELECT t.id FROM t  ->  WITH t(id) AS (VALUES (CAST('1' AS integer))) SELECT t.id FROM t

The server that is looked at is the Postgres wire, or an empty PostgreSQL for the list of what passes there:
the rewritten statements are the same for both, so that neither is measured by another yardstick.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import ServerCursor, sql

__all__ = ["Routed", "managing", "questions"]

_READS: Final = re.compile(r"(?:\s|\(|--[^\n]*\n)*(select|with|values|show|explain|table)\b", re.IGNORECASE)
_CHANGES: Final = re.compile(
    r"\b(insert\s+into|update|delete\s+from|nextval|into\s+temp\w*)\b", re.IGNORECASE
)
_BOTH: Final = re.compile(r"\s*(savepoint|release|rollback|begin|commit|set|start)\b", re.IGNORECASE)
_WITH: Final = re.compile(r"\s*with\s+(recursive\s+)?", re.IGNORECASE)
_SCHEMA: Final = re.compile(r'\btest_schema\.(?:"([^"]+)"|(\w+))')
_TABLES: Final = """
    SELECT n.nspname, c.relname, a.attname,
        CASE WHEN t.typtype = 'e' THEN 'text' ELSE format_type(a.atttypid, a.atttypmod) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'v', 'm', 'p') AND n.nspname IN ('public', 'test_schema')
    ORDER BY c.oid, a.attnum"""

_managing = 0
questions = [0]  # how many statements the server that is looked at was asked


@contextmanager
def managing() -> Iterator[None]:
    """While tables are made or dropped, questions too go to the server that has them."""
    global _managing
    _managing += 1
    try:
        yield
    finally:
        _managing -= 1


class _RoutedCursor(psycopg.Cursor[Any]):
    """A cursor whose statement runs at one of the two servers."""

    _away: psycopg.Cursor[Any] | None = None

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        text = query if isinstance(query, str) else query.as_string(self)
        self._away = None
        if _BOTH.match(text):
            connection.real.execute(text)
            super().execute(text, params, **options)
            return self
        if _managing or not _READS.match(text) or _CHANGES.search(text):
            self._away = connection.real.cursor()
            self._away.execute(text, params, **options)
            return self
        super().execute(connection.with_tables(text, params is not None), params, **options)
        return self

    def executemany(self, query: Any, params_seq: Any, *, returning: bool = False) -> None:
        self._away = self.connection.real.cursor()  # type: ignore[attr-defined]
        self._away.executemany(query, params_seq, returning=returning)

    @property
    def description(self) -> Any:
        return super().description if self._away is None else self._away.description

    @property
    def rowcount(self) -> int:
        return super().rowcount if self._away is None else self._away.rowcount

    @property
    def statusmessage(self) -> str | None:
        return super().statusmessage if self._away is None else self._away.statusmessage

    def nextset(self) -> bool | None:
        return super().nextset() if self._away is None else self._away.nextset()

    def fetchone(self) -> Any:
        return super().fetchone() if self._away is None else self._away.fetchone()

    def fetchmany(self, size: int = 0) -> list[Any]:
        size = size or self.arraysize
        return super().fetchmany(size) if self._away is None else self._away.fetchmany(size)

    def fetchall(self) -> list[Any]:
        return super().fetchall() if self._away is None else self._away.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if self._away is None else iter(self._away)


class _RoutedServerCursor(ServerCursor[Any]):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        return super().execute(connection.with_tables(query, params is not None), params, **options)


class Routed(psycopg.Connection[Any]):
    """A connection to the server that is looked at, and one to the server that has the tables."""

    real: psycopg.Connection[Any]

    @classmethod
    def to(cls, asked: str, real: str, **options: Any) -> Routed:
        made = cls.connect(asked, **options)
        made.real = psycopg.connect(real, **options)
        made.cursor_factory = _RoutedCursor
        made.server_cursor_factory = _RoutedServerCursor
        return made

    def commit(self) -> None:
        self.real.commit()
        super().commit()

    def rollback(self) -> None:
        self.real.rollback()
        super().rollback()

    def close(self) -> None:
        self.real.close()
        super().close()

    def _set_autocommit(self, value: bool) -> None:
        self.real.autocommit = value
        super().set_autocommit(value)

    set_autocommit = _set_autocommit
    autocommit = property(lambda self: self._autocommit, _set_autocommit)

    def with_tables(self, text: str, has_parameters: bool) -> str:
        """The statement with the tables that it names before it."""
        questions[0] += 1
        tables: dict[tuple[str, str], list[tuple[str, str]]] = {}
        with self.real.cursor() as cursor:
            for schema, name, column, type_ in cursor.execute(_TABLES).fetchall():
                tables.setdefault((schema, name), []).append((column, type_))
            made = []
            for (schema, name), columns in tables.items():
                written = re.escape(name.replace("%", "%%") if has_parameters else name)
                place = f"test_schema__{name}" if schema == "test_schema" else name
                qualified = re.search(rf'\btest_schema\."?{written}\b', text)
                if qualified if schema == "test_schema" else re.search(rf"\b{written}\b", text):
                    made.append(self._table(cursor, schema, name, place, columns))
        text = _SCHEMA.sub(lambda m: f'"test_schema__{m[1] or m[2]}"', text)
        if not made:
            return text
        before = ", ".join(made)
        if has_parameters:
            before = before.replace("%", "%%")
        found = _WITH.match(text)
        if found is None:
            return f"WITH {before} {text}"
        return f"WITH {found[1] or ''}{before}, {text[found.end() :]}"

    def _table(
        self, cursor: Any, schema: str, name: str, place: str, columns: Sequence[tuple[str, str]]
    ) -> str:
        wanted = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c, _ in columns)
        rows = cursor.execute(
            sql.SQL("SELECT {} FROM {}").format(wanted, sql.Identifier(schema, name))
        ).fetchall()
        head = sql.Identifier(place).as_string(cursor) + "(" + ", ".join(
            sql.Identifier(c).as_string(cursor) for c, _ in columns
        ) + ")"  # fmt: skip
        types = [type_ for _, type_ in columns]
        if not rows:
            return f"{head} AS (SELECT {', '.join(f'CAST(NULL AS {t})' for t in types)} WHERE 1 = 0)"
        lines = [
            "(" + ", ".join(f"CAST({_literal(v)} AS {t})" for v, t in zip(row, types, strict=True)) + ")"
            for row in rows
        ]
        return f"{head} AS (VALUES {', '.join(lines)})"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
