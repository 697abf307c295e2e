"""The same statement, through the front end and on a plain table that holds the caller's rows alone."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from tests.sql.conftest import OWN, drafts
from tests.sql.selects import Selects

from strongroom.engine.session import Session
from strongroom.errors import StrongroomError
from strongroom.model.sql_values import to_rows

STATEMENTS = 600


def rows_of(table: Any, types: tuple[str, ...]) -> list[str]:
    return sorted(map(repr, to_rows(table, 0, table.num_rows, types)))


@pytest.fixture
def plain(caller: Session) -> Any:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    rows = caller.sql("SELECT * FROM memories")
    columns = ", ".join(f"CAST({c.name} AS {c.type}) AS {c.name}" for c in rows.columns)
    connection.register("arriving", rows.arrow())
    connection.execute(f"CREATE TABLE memories AS SELECT {columns} FROM arriving")
    return connection


def test_the_table_memories_holds_what_was_stored_in_the_callers_namespaces(caller: Session) -> None:
    wanted = sorted((d["content"], d["namespace"], d["importance"], tuple(d["tags"])) for d in drafts(120))
    found = caller.sql("SELECT content, namespace, importance, tags FROM memories")
    assert sorted((c, n, i, tuple(t)) for c, n, i, t in found.rows()) == wanted
    assert {row[0] for row in caller.sql("SELECT DISTINCT namespace FROM memories")} == set(OWN)


def test_600_random_selects_answer_as_a_plain_table_of_the_callers_rows_does(
    caller: Session, plain: Any
) -> None:
    selects = Selects(20261120)
    answered = 0
    for _ in range(STATEMENTS):
        statement = selects.statement()
        try:
            expected = plain.sql(statement)
            wanted = rows_of(expected.to_arrow_table(), tuple(map(str, expected.types)))
        except duckdb.Error as e:
            with pytest.raises(StrongroomError):
                caller.sql(statement)
            print(statement, e)
            continue
        found = caller.sql(statement)
        assert tuple(c.name for c in found.columns) == tuple(expected.columns), statement
        assert rows_of(found.arrow(), tuple(c.type for c in found.columns)) == wanted, statement
        answered += 1
    assert answered >= 500
