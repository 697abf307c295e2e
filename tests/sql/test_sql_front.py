"""The front end's cache of statements and its parser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pytest

from strongroom.errors import SqlError


def test_a_statement_that_one_caller_has_asked_is_as_new_as_ever_to_another(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known is known to its caller alone: no time of an answer tells what others have asked."""
    one, two = (room.engine.authenticate(room.keys_create(n, "read-only", ["company_a/*"])[1]) for n in "ab")
    front = room.engine.indexes.sql.front
    parse, read = front._parse, []
    monkeypatch.setattr(front, "_parse", lambda text: read.append(text) or parse(text))
    counted = []
    for session in (one, one, two, two, one):
        list(session.sql("SELECT kind FROM memories WHERE subject = 'a guess'").rows())
        counted.append(len(read))
    assert counted == [1, 1, 2, 2, 2]
    for session in (one, two):  # a refusal is kept in the same way
        for _ in range(2):
            with pytest.raises(SqlError):
                session.sql("SELECT * FROM guessed")
    assert len(read) == 4


def test_statements_are_parsed_where_there_are_no_memories(room: Any) -> None:
    """The instance that parses has no table, no function of ours, no files, and cannot be opened up."""
    grammar = room.engine.indexes.sql._grammar
    list(room.sql("SELECT 1").rows())
    cursor = grammar._instance.cursor()
    assert cursor.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (0,)
    for statement in ("SET lock_configuration = false", "SET enable_external_access = true",
                      "SELECT * FROM read_text('/etc/hostname')", "ATTACH '/tmp/x.db'"):  # fmt: skip
        with pytest.raises(duckdb.Error):
            cursor.execute(statement)


def test_parsing_from_many_threads_gives_each_its_own_tree(room: Any) -> None:
    """Eight threads share four connections of the parser, and every plan is that of its own text."""

    def ask(number: int) -> list[Any]:
        rows = (room.sql(f"SELECT {number * 1000 + i} AS n{i} WHERE true").rows() for i in range(20))
        return [next(iter(r))[0] for r in rows]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[n * 1000 + i for i in range(20)] for n in range(8)]
