"""One statement over the catalogue and memories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.pgwire.wired import Wired


@pytest.fixture
def connection(wire: Wired) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(wire.dsn(), autocommit=True) as made:
        yield made


def test_the_catalogue_is_joined_with_memories(connection: Any) -> None:
    statement = """
        SELECT c.column_name, count(m.memory_id)
        FROM information_schema.columns AS c
        LEFT JOIN memories AS m ON c.column_name = 'content' AND m.kind = %s
        WHERE c.table_name = 'memories' GROUP BY ALL ORDER BY 2 DESC, 1 LIMIT 2"""
    found = connection.execute(statement, ["fact"]).fetchall()
    assert found == [("content", 12), ("access_count", 0)]


def test_relations_of_pg_catalog_are_found_with_and_without_their_schema(connection: Any) -> None:
    statement = """
        WITH tables AS (SELECT relname FROM pg_catalog.pg_class JOIN pg_namespace n ON n.oid = relnamespace
                        WHERE n.nspname = 'public')
        SELECT relname, (SELECT count(*) FROM memories) AS n, current_user FROM tables
        WHERE relname = 'memories'"""
    name, count, user = connection.execute(statement).fetchone()
    assert (name, count) == ("memories", 60) and len(user) == 12


def test_it_shows_the_callers_own_rows_and_roles_alone(wire: Wired) -> None:
    key = wire.key("read-only", "company_b/*")
    with psycopg.connect(wire.dsn(key), autocommit=True) as connection:
        found = connection.execute(
            "SELECT r.rolname, count(*) FROM pg_roles r, memories GROUP BY ALL"
        ).fetchall()
        assert found == [(wire.key_id(key), 6)]
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (6,)


def test_a_parameter_and_settings_work_in_such_a_statement(connection: Any) -> None:
    connection.execute("SET application_name = 'mixed'")
    found = connection.execute(
        "SELECT s.setting, m.kind FROM pg_settings s, memories m"
        " WHERE s.name = %s AND m.importance >= %s LIMIT 1",
        ["application_name", 0.0],
        prepare=True,
    ).fetchone()
    assert found[0] == "mixed"


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT * FROM pg_class, memories, duckdb_tables", "42P01"),
        ("SELECT * FROM pg_nothing, memories", "42P01"),
        ("SELECT nothing FROM pg_class, memories", "42703"),
        ("SELECT pg_get_viewdef(c.oid) FROM pg_class c, memories", "42883"),
        ("DELETE FROM memories USING pg_class", "25006"),
    ],
)
def test_what_is_not_there_is_refused(connection: Any, statement: str, sqlstate: str) -> None:
    with pytest.raises(psycopg.Error) as e:
        connection.execute(statement.encode())
    assert e.value.sqlstate == sqlstate


def test_such_a_statement_can_be_declared_copied_and_prepared(connection: Any) -> None:
    query = "SELECT count(*) FROM pg_class c, memories m WHERE c.relname = 'memories' AND m.kind = 'fact'"
    with connection.transaction():
        connection.execute(f"DECLARE c CURSOR FOR {query}".encode())
        assert connection.execute("FETCH c").fetchone() == (12,)
    with connection.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        assert b"".join(copy) == b"12\n"
    connection.execute(f"PREPARE mixed AS {query}".encode())
    assert connection.execute("EXECUTE mixed").fetchone() == (12,)
