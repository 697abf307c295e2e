"""docs/sql.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.sql.conftest import drafts

from strongroom.engine.session import Session
from strongroom.errors import SqlError
from strongroom.recall.sql.functions import AGGREGATES, FUNCTION_GROUPS, RELATIONS, TABLE_FUNCTIONS, WINDOWS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sql.md").read_text("utf-8")


def block(name: str) -> str:
    return PAGE.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def examples() -> list[str]:
    text = PAGE.split("<!-- examples")[1].split("```sql\n")[1].split("```")[0]
    return [s.strip() for s in text.split(";") if s.strip()]


def test_every_example_runs(caller: Session) -> None:
    assert len(drafts(1)) == 1 and len(examples()) >= 9
    for statement in examples():
        assert caller.sql(statement).columns, statement


def test_the_tables_of_the_page_are_those_that_are_offered(caller: Session) -> None:
    shown = {
        row[1]: dict(re.findall(r"`(\w+)` ([A-Z\[\]]+)", row[2]))
        for row in re.finditer(r"\| `(\w+)` \| (.*) \|", block("tables"))
    }
    assert shown == {name: dict(columns) for name, columns in RELATIONS.items()}
    for name, columns in RELATIONS.items():
        found = caller.sql(f"SELECT * FROM {name} LIMIT 1").columns
        plain = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}
        assert [(c.name, c.type) for c in found] == [(c, plain.get(t, t)) for c, t in columns.items()], name


def test_the_functions_of_the_page_are_those_of_the_allow_list() -> None:
    shown = set(re.findall(r"`([^`]+)`", block("functions")))
    assert shown == set().union(*FUNCTION_GROUPS.values()) | AGGREGATES | WINDOWS | TABLE_FUNCTIONS


def test_every_function_of_the_allow_list_is_known_to_the_engine(room: Any) -> None:
    """A name that the engine does not have would be a promise that cannot be kept."""
    cursor = room.engine.indexes._columnar.sql_cursor()
    known = {
        r[0].lower()
        for r in cursor.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    }
    cursor.close()
    syntax = {
        "coalesce",
        "ifnull",
        "grouping",
        "grouping_id",
        "percentile_cont",
        "percentile_disc",
        "if",
        "nullif",
    }
    offered = {
        n.lower() for n in set().union(*FUNCTION_GROUPS.values()) | AGGREGATES | WINDOWS | TABLE_FUNCTIONS
    }
    assert offered - known - syntax == set()


@pytest.mark.parametrize(
    "statement",
    ["SELECT repeat('x', 3)", "SELECT version()", "SELECT list_reduce(['a'], lambda a, b: a || b)"],
)
def test_what_the_page_says_is_not_offered_is_not(caller: Session, statement: str) -> None:
    with pytest.raises(SqlError):
        caller.sql(statement)
