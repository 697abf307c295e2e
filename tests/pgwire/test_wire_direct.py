"""Short statements over the wire: the bytes are those of the columnar engine's answer, in either format."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.pgwire.wired import wired

from strongroom.recall.sql import SqlEngine

COLUMNS = (
    "memory_id, namespace, kind, content, metadata, tags, subject, agent_id, session_id, sensitivity,"
    " importance, source, derived_from, created_at, updated_at, expires_at, has_embedding, version"
)
LATE = datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)
STRANGE: list[dict[str, Any]] = [
    {
        "content": "plain",
        "importance": 0.1 + 0.2,
        "metadata": {"a": 1e300, "b": [None, {"c": "\u2028"}]},
    },
    {
        "content": "ümlaut 🙂 e\u0301\t\n\\'\"",
        "tags": ['a"b', "c,d", "{x}", "NULL", " "],
        "importance": 5e-324,
    },
    {
        "content": "ends late",
        "expires_at": LATE,
        "importance": 1.0,
    },
    {"content": "a" * 100_000, "subject": "it's", "session_id": " ", "source": "\\x41", "importance": 1 / 3},
    {"content": "derived", "derived_from": [UUID(int=1), UUID(int=2**128 - 1)], "importance": 0.0},
]


def test_the_bytes_are_the_same_with_the_columnar_engine_and_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column of strange memories, by id and newest first, as text and binary."""
    runs = 0
    general = SqlEngine._run

    def run(engine: SqlEngine, request: Any) -> Any:
        nonlocal runs
        runs += 1
        return general(engine, request)

    monkeypatch.setattr(SqlEngine, "_run", run)
    with wired(tmp_path / "data") as wire:
        made = wire.owner.store_many([{**m, "namespace": "company_a/strange"} for m in STRANGE])
        ids = [r.memory_id for r in made]
        wire.owner.flush()
        with psycopg.connect(wire.dsn(wire.key("read-only", "company_a/strange")), autocommit=True) as c:

            def answer(statement: str, parameters: list[Any], binary: bool) -> list[Any]:
                with c.cursor(binary=binary) as cursor:
                    result = cursor.execute(statement, parameters, prepare=True).pgresult
                    assert result is not None
                    return [
                        [result.get_value(row, column) for column in range(result.nfields)]
                        for row in range(result.ntuples)
                    ]

            cases = [(f"SELECT {COLUMNS} FROM memories WHERE memory_id = %s", [i]) for i in [*ids, uuid4()]]
            cases.append((f"SELECT {COLUMNS} FROM memories ORDER BY created_at DESC LIMIT %s", [2]))
            for binary in (False, True):
                for statement, parameters in cases:
                    plain = f"SELECT * FROM ({statement.replace('SELECT', 'SELECT /**/', 1)}) AS t"
                    before = runs
                    wanted = answer(plain, parameters, binary)
                    assert runs > before
                    answer(statement, parameters, binary)
                    before = runs
                    assert answer(statement, parameters, binary) == wanted
                    assert runs == before, "not answered directly"
