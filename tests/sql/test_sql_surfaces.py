# ruff: noqa: E501 - statements are read best as they are
"""SQL over REST, the client, MCP's form and the command line: the same answers and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from click.testing import CliRunner
from tests.servers.served import Served, served
from tests.sql.conftest import OWN, drafts
from tests.support.word_model import WordModel

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Engine
from strongroom.errors import LimitExceededError, SqlForbiddenError, SqlUndefinedError, TransportError

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served") / "data") as out:
        out.owner.store_many(drafts(30))
        out.owner.flush()
        yield out


def post(server: Served, body: Any, key: str | None = None, **headers: str) -> Any:
    with server.http(key) as http:
        return http.post("/v1/sql", json=body, headers=headers)


def test_rest_gives_rows_as_json(server: Served) -> None:
    statement = "SELECT memory_id, content, created_at, tags, importance FROM memories WHERE importance >= ? ORDER BY memory_id LIMIT 3"
    answer = post(server, {"statement": statement, "parameters": [0.1]})
    shown = answer.json()
    assert answer.status_code == 200 and shown["row_count"] == len(shown["rows"]) == 3
    assert [c["type"] for c in shown["columns"]] == [
        "UUID",
        "VARCHAR",
        "TIMESTAMP WITH TIME ZONE",
        "VARCHAR[]",
        "DOUBLE",
    ]
    row = shown["rows"][0]
    assert (
        UUID(row[0]) and row[2].startswith("2026-") and isinstance(row[3], list) and shown["plan"] == "exact"
    )


def test_rest_gives_an_arrow_stream_when_asked(server: Served) -> None:
    answer = post(
        server, {"statement": "SELECT kind, count(*) AS n FROM memories GROUP BY kind"}, accept=ARROW
    )
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["kind", "n"] and sum(table["n"].to_pylist()) == 30


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"statement": "DROP TABLE memories"}, 403, "sql_forbidden"),
        ({"statement": "SELECT * FROM pg_class"}, 400, "sql_undefined"),
        ({"statement": "SELEC 1"}, 400, "sql_syntax"),
        ({"statement": "SELECT CAST(content AS INT) FROM memories"}, 422, "sql_data"),
        ({"statement": "SELECT * FROM range(11)", "rows_max": 10}, 429, "limit_exceeded"),
        ({"statement": ""}, 400, "invalid_input"),
        ({"statement": "SELECT 1", "colour": 1}, 400, "invalid_input"),
        ({"statement": "SELECT 1", "namespaces": ["a b"]}, 400, "invalid_namespace"),
    ],
)
def test_rest_refuses_with_the_typed_error(server: Served, body: Any, status: int, code: str) -> None:
    answer = post(server, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if code.startswith("sql"):
        assert answer.json()["error"]["sqlstate"]


def test_rest_holds_a_key_to_its_grants(server: Served) -> None:
    key = server.key("read-only", OWN[0])
    assert post(server, {"statement": "SELECT DISTINCT namespace FROM memories"}, key).json()["rows"] == [
        [OWN[0]]
    ]
    assert post(server, {"statement": "SELECT 1", "namespaces": [OWN[1]]}, key).status_code == 403


def test_the_client_gives_the_python_values_of_an_embedded_store(server: Served) -> None:
    statement = "SELECT * FROM memories ORDER BY memory_id"
    wanted = server.owner.sql(statement)
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as room:
        found = room.sql(statement)
        assert found.columns == wanted.columns and list(found.rows()) == list(wanted.rows())
        assert room.sql("SELECT ?::INT + 1 AS n, ?", [41, None]).fetch() == [(42, None)]
        assert found.arrow().num_rows == 30 and len(found.fetch(7)) == 7 and len(found.fetch(100)) == 23
        with pytest.raises(SqlForbiddenError) as e:
            room.sql("DELETE FROM memories")
        assert e.value.sqlstate == "25006"
        with pytest.raises(LimitExceededError):
            room.sql("SELECT * FROM range(100)", rows_max=99)
    with pytest.raises(TransportError):
        room.sql("SELECT 1")


def test_the_asynchronous_twins_answer_too(server: Served, tmp_path: Path) -> None:
    async def remote() -> Any:
        async with await strongroom.aconnect(server.url, api_key=server.admin_key, ca=server.ca) as room:
            return (await room.sql("SELECT count(*) FROM memories")).fetch()

    async def embedded() -> Any:
        async with await strongroom.aopen(tmp_path / "d", create=True, provider=WordModel()) as room:
            await room.store("one", namespace="a/b")
            return (await room.sql("SELECT content FROM memories")).fetch()

    assert asyncio.run(remote()) == [(30,)] and asyncio.run(embedded()) == [("one",)]


# -- the command line -------------------------------------------------------------------------------------
@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    directory = tmp_path / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(dimensions=64)))
    original = Engine.open.__func__  # type: ignore[attr-defined]
    opened = classmethod(lambda cls, d, **o: original(cls, d, **{**o, "provider": WordModel()}))
    monkeypatch.setattr(Engine, "open", opened)
    with strongroom.open(directory) as room:
        room.store_many(drafts(6))
        room.flush()

    def command(*args: str, input: str | None = None) -> Any:
        return CliRunner().invoke(cli, ["--data", str(directory), "sql", *args], input=input)

    return command


def test_the_command_prints_a_table_csv_or_json(run: Any) -> None:
    statement = "SELECT namespace, count(*) AS n FROM memories GROUP BY ALL ORDER BY ALL"
    table = run("-c", statement)
    assert table.exit_code == 0 and "company_a/sales" in table.stdout and "(2 rows)" in table.stderr
    assert run("--csv", "-c", statement).stdout == "namespace,n\ncompany_a/sales,3\ncompany_a/support,3\n"
    assert '"row_count":2' in run("--json", "-c", statement).stdout.replace(" ", "")
    assert (
        run("--csv", "-c", "SELECT count(*) AS n FROM memories WHERE kind <> ?", "-p", "x").stdout == "n\n6\n"
    )
    assert run("--csv", input="SELECT 1 AS a;\n").stdout == "a\n1\n"
    refused = run("-c", "DELETE FROM memories")
    assert (
        refused.exit_code == 2
        and "(sql_forbidden)" in refused.stderr
        and "hint: use the operation delete" in refused.stderr
    )


def test_what_is_too_wide_for_a_table_is_printed_as_a_block_for_each_row(run: Any) -> None:
    """No value is cut: every column of SELECT * can be read on a narrow terminal."""
    wide = run("-c", "SELECT * FROM memories ORDER BY memory_id").stdout
    assert "-[ 1 ]-" in wide and "-[ 6 ]-" in wide and "…" not in wide
    lines = [line.split() for line in wide.splitlines()]
    assert sum(line[0] == "memory_id" and len(line[1]) == 36 for line in lines) == 6
    assert sum(line[0] == "created_at" and len(line) > 1 for line in lines) == 6
    narrow = "SELECT namespace, count(*) AS n FROM memories GROUP BY ALL ORDER BY ALL"
    assert "-[ 1 ]-" not in run("-c", narrow).stdout
    assert "-[ 2 ]-" in run("-x", "-c", narrow).stdout
    long = " || ".join(["content"] * 30)
    one = run("-c", f"SELECT {long} AS content, kind FROM memories LIMIT 1").stdout
    assert "-[ 1 ]-" not in one and len(one.splitlines()) > 3  # long content is folded


def test_the_prompt_takes_several_lines_and_goes_on_after_an_error(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.cli._sql._at_terminal", lambda: True)
    answer = run(input="SELECT count(*)\n AS n FROM memories;\nSELEC 1;\n\\d\nSELECT 2 AS two;\n\\q\n")
    assert answer.exit_code == 0
    assert "6" in answer.stdout and "two" in answer.stdout and "memories: memory_id UUID" in answer.stdout
    assert "(sql_syntax)" in answer.stderr


def test_a_name_that_is_not_there_is_told_by_its_class(server: Served) -> None:
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as room:
        with pytest.raises(SqlUndefinedError) as e:
            room.sql("SELECT nothing FROM memories")
        assert e.value.sqlstate == "42703" and e.value.message == "there is no column nothing"
        assert "memory_id, namespace, kind, content" in str(e.value.hint)
