"""PREPARE, EXECUTE and DEALLOCATE as statements."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.pgwire.wired import Wired


@pytest.fixture
def connection(wire: Wired) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(wire.dsn(), autocommit=True) as made:
        yield made


def test_a_prepared_statement_gives_what_the_statement_with_its_values_gives(connection: Any) -> None:
    connection.execute(
        "PREPARE by_agent(text, bigint) AS SELECT content FROM memories WHERE agent_id = $1"
        " ORDER BY content LIMIT $2"
    )
    found = connection.execute("EXECUTE by_agent('agent-' || 1, 1 + 2)").fetchall()
    wanted = connection.execute(
        "SELECT content FROM memories WHERE agent_id = 'agent-1' ORDER BY content LIMIT 3"
    ).fetchall()
    assert found == wanted and len(found) == 3
    connection.execute("DEALLOCATE PREPARE by_agent")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        connection.execute("EXECUTE by_agent('agent-1', 1)")


def test_types_are_inferred_where_prepare_gives_none(connection: Any) -> None:
    memory_id = connection.execute("SELECT memory_id FROM memories LIMIT 1").fetchone()[0]
    connection.execute(
        "PREPARE one AS SELECT memory_id FROM memories WHERE memory_id = $1 AND importance >= $2"
    )
    assert connection.execute(f"EXECUTE one('{memory_id}', 0)").fetchone() == (memory_id,)
    connection.execute("PREPARE constant AS SELECT 7 AS seven")
    cursor = connection.execute("EXECUTE constant")
    assert cursor.fetchone() == (7,) and cursor.description[0].name == "seven"
    assert cursor.statusmessage == "SELECT 1"


def test_both_kinds_of_preparing_share_their_names(wire: Wired) -> None:
    with psycopg.connect(wire.dsn(), autocommit=True) as connection:
        connection.execute("SELECT kind FROM memories WHERE agent_id = %s LIMIT 1", ["agent-1"], prepare=True)
        name = "_pg3_0"
        assert connection.execute(f"EXECUTE {name}('agent-1')".encode()).fetchone() is not None
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            connection.execute(f"PREPARE {name} AS SELECT 1".encode())


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("PREPARE x AS DELETE FROM memories", "25006"),
        ("PREPARE x AS SELECT * FROM nowhere", "42P01"),
        ("PREPARE x AS BEGIN", "42601"),
        ("PREPARE x AS PREPARE y AS SELECT 1", "42601"),
        ("PREPARE x SELECT 1", "42601"),
        ("PREPARE x(nothing) AS SELECT $1", "42704"),
        ("PREPARE x(int AS SELECT $1", "42601"),
        ("EXECUTE missing", "26000"),
        ("EXECUTE two(1)", "42601"),
        ("EXECUTE two(1, 2, 3)", "42601"),
        ("EXECUTE two(1, (SELECT 2))", "0A000"),
        ("EXECUTE two(1, 'x')", "22P02"),
        ("EXECUTE two(1, 2) garbage", "42601"),
        ("EXECUTE two()", "42601"),
        ("EXECUTE two(1, 2))", "42601"),
        ("EXECUTE two(1, content)", "42703"),
    ],
)
def test_what_is_wrong_is_refused_with_the_code_of_postgresql(
    connection: Any, statement: str, sqlstate: str
) -> None:
    connection.execute("PREPARE two(int, int) AS SELECT $1 + $2")
    with pytest.raises(psycopg.Error) as e:
        connection.execute(statement.encode())
    assert e.value.sqlstate == sqlstate
    assert connection.execute("EXECUTE two(1, 2)").fetchone() == (3,)


def test_through_the_extended_protocol_it_can_be_described_and_fetched_in_parts(wire: Wired) -> None:
    with psycopg.connect(wire.dsn()) as connection:
        connection.execute("PREPARE every AS SELECT content FROM memories ORDER BY content")
        cursor = connection.cursor(binary=True)
        cursor.execute("EXECUTE every", prepare=True)
        assert len(cursor.fetchall()) == 60


def test_a_prepared_statement_dies_with_the_grant(wire: Wired) -> None:
    key = wire.key("read-only", "company_a/*")
    with psycopg.connect(wire.dsn(key), autocommit=True) as connection:
        connection.execute("PREPARE counted AS SELECT count(*) FROM memories")
        assert connection.execute("EXECUTE counted").fetchone() is not None
        wire.owner.keys_revoke(wire.key_id(key))
        with pytest.raises(psycopg.Error):
            connection.execute("EXECUTE counted")


def test_psql_prepares_and_executes(wire: Wired) -> None:
    script = (
        "PREPARE q(text) AS SELECT count(*) FROM memories WHERE kind = $1; EXECUTE q('fact'); DEALLOCATE ALL;"
    )
    done = subprocess.run(
        ["psql", "-X", "-A", "-t", wire.dsn(), "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["PREPARE", "12", "DEALLOCATE", "ALL"]
