"""What a request is for: said on every surface, asked by policies, kept in the audit log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from tests.pgwire.wired import wired
from tests.policy.conftest import Stage
from tests.servers.served import Served, served

import strongroom
from strongroom import access
from strongroom.cli._main import cli
from strongroom.config import AccessConfig
from strongroom.errors import AccessDeniedError, InvalidInputError
from strongroom.model import check_words
from strongroom.servers.mcp import session_from_environment

NS = "acme/support"
POLICIES = """
@id("with-a-purpose") permit(principal, action in Action::"reading", resource)
  when { context has purpose && context.purpose == "fraud-review" };
"""
SAID: tuple[tuple[dict[str, str], int], ...] = (
    ({}, 0),
    ({"purpose": "curiosity"}, 0),
    ({"reason": "fraud-review"}, 0),
    ({"purpose": "fraud-review"}, 1),
    ({"purpose": " fraud-review ", "reason": "case 7, Zürich"}, 1),
)
BAD = ["p" * 257, "a\nb", "\u202e", "\x00"]
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "search_memory", "arguments": {"query": "word", "namespaces": [NS]}},
}
MCP = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}


def found(work: Callable[[], Any]) -> int:
    """How many memories it finds; 0 when it is refused."""
    try:
        return len(list(work()))
    except AccessDeniedError:
        return 0


def headers_of(said: dict[str, str]) -> dict[str, bytes]:
    return {f"Strongroom-{name.title()}": text.strip().encode() for name, text in said.items()}


def with_policies(directory: Path) -> None:
    (directory / "policies").mkdir()
    (directory / "policies" / "a.cedar").write_text(POLICIES, "utf-8")


def by_rest(server: Served, key: str, said: dict[str, str]) -> int:
    with server.http(key) as http:
        body = {"query": "word", "namespaces": [NS]}
        answer = http.post("/v1/memories:search", json=body, headers=headers_of(said))
        assert answer.status_code in (200, 403)
        return len(answer.json().get("hits", ()))


def by_mcp(server: Served, key: str, said: dict[str, str]) -> int:
    with server.http(key) as http:
        result = http.post("/mcp", json=CALL, headers={**MCP, **headers_of(said)}).json()["result"]
        return 0 if result.get("isError") else len(result["structuredContent"]["hits"])


async def by_aconnect(server: Served, key: str, said: dict[str, str]) -> int:
    async with await strongroom.aconnect(server.url, api_key=key, ca=str(server.ca), **said) as room:
        try:
            return len(await room.search("word", namespaces=[NS]))
        except AccessDeniedError:
            return 0


def test_one_policy_decides_the_same_on_every_surface(tmp_path: Path) -> None:
    """REST, MCP, both clients: a search only with the purpose; the audit log has purpose and reason."""
    with served(tmp_path / "data", access=AccessConfig(policy_directory="policies")) as server:
        with_policies(server.directory)
        server.owner.store("a word", namespace=NS)
        key = server.key("read-only", "acme/*")
        for said, want in SAID:
            with strongroom.connect(server.url, api_key=key, ca=str(server.ca), **said) as room:
                assert found(lambda r=room: r.search("word", namespaces=[NS])) == want, said
                assert found(lambda r=room: r.sql("SELECT 1 FROM memories").rows()) == want, said
            assert asyncio.run(by_aconnect(server, key, said)) == want, said
            assert by_rest(server, key, said) == by_mcp(server, key, said) == want, said
        details = [dict(e.details) for e in server.owner.audit(limit=20) if e.surface in ("rest", "mcp")][-2:]
        assert {(d["purpose"], d["purpose_reason"]) for d in details} == {("fraud-review", "case 7, Zürich")}
        with server.http(key) as http:
            for path, body in (("/v1/memories:search", {"query": "w", "namespaces": [NS]}), ("/mcp", CALL)):
                for text in [*(t.encode() for t in BAD[:1]), b"\xff", "\u202e".encode()]:
                    bad = http.post(path, json=body, headers={**MCP, "Strongroom-Purpose": text})
                    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_input"), path
            twice = [("strongroom-reason", "a"), ("strongroom-reason", "fraud-review")]
            assert http.get("/v1/stats", headers=twice).status_code == 400
            stranger = access.generate_key(os.urandom).text
            refused = {"authorization": f"Bearer {stranger}", "strongroom-purpose": "planted"}
            assert http.get("/v1/stats", headers=refused).status_code == 401
        assert not any("planted" in str(e.details) for e in server.owner.audit(limit=1000))


def test_the_same_embedded_and_by_command(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """strongroom.open, the options and the environment of the command line, and MCP over stdio."""
    stage.policies(POLICIES)
    stage.room.store("a word", namespace=NS)
    stage.room.flush()
    _, key = stage.room.keys_create("k", "read-only", ["acme/*"])
    monkeypatch.setenv("STRONGROOM_API_KEY", key)
    for said, want in SAID:
        for name in ("purpose", "reason"):
            monkeypatch.delenv(f"STRONGROOM_{name.upper()}", raising=False)
        with strongroom.open(stage.directory, api_key=key, provider=None, **said) as room:
            assert found(lambda r=room: r.list(namespaces=[NS]).memories) == want, said
        options = [part for name, text in said.items() for part in (f"--{name}", text)]
        listing = ["list", "-n", NS, "--json"]
        at = ["--data", str(stage.directory)]
        by_option = CliRunner().invoke(cli, [*at, *options, *listing])
        for name, text in said.items():
            monkeypatch.setenv(f"STRONGROOM_{name.upper()}", text)
        by_variable = CliRunner().invoke(cli, [*at, *listing])
        assert [("a word" in r.output) for r in (by_option, by_variable)] == [bool(want)] * 2, said
        session = session_from_environment(stage.room.engine)
        assert found(lambda s=session: s.list(namespaces=[NS]).memories) == want, said


def test_the_same_on_the_postgres_wire(tmp_path: Path) -> None:
    """SET, SET LOCAL, RESET, and the options of the connection; a value that cannot be is 22023."""
    statement = "SELECT content FROM memories"
    with wired(tmp_path / "data", access=AccessConfig(policy_directory="policies")) as server:
        with_policies(server.directory)
        server.owner.store("a word", namespace=NS)
        dsn = server.dsn(server.key("read-only", "acme/*"))

        def rows(wire: Any) -> int:
            try:
                return len(wire.execute(statement).fetchall())
            except psycopg.errors.InsufficientPrivilege:
                return 0

        with psycopg.connect(dsn, autocommit=True) as wire:
            for said, want in SAID:
                wire.execute("RESET ALL")
                for name, text in said.items():
                    wire.execute(f"SET strongroom.{name} = '{text}'")  # type: ignore[call-overload]
                assert rows(wire) == want, said
            last = [e for e in server.owner.audit(limit=20) if e.action == "sql"][-1]
            assert dict(last.details)["purpose_reason"] == "case 7, Zürich"
            with wire.transaction():
                wire.execute("SET LOCAL strongroom.purpose = 'curiosity'")
                assert wire.execute("SHOW strongroom.purpose").fetchone() == ("curiosity",)
            assert rows(wire) == 1
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                wire.execute(f"SET strongroom.purpose = '{'p' * 257}'")  # type: ignore[call-overload]
            wire.execute("RESET strongroom.purpose")
            assert rows(wire) == 0
        with psycopg.connect(dsn, options="-c strongroom.purpose=fraud-review") as wire:
            assert rows(wire) == 1


@pytest.mark.parametrize("text", [*BAD, 7, b"x", ["x"]], ids=repr)
def test_what_no_auditor_could_read_is_refused_before_anything_happens(tmp_path: Path, text: Any) -> None:
    """Typed, in every way into a store."""
    for name in ("purpose", "reason"):
        with pytest.raises(InvalidInputError):
            strongroom.open(tmp_path / "data", create=True, **{name: text})
        with pytest.raises(InvalidInputError):
            strongroom.connect("https://localhost:1", api_key="sr_live_" + "0" * 61, **{name: text})
    assert not (tmp_path / "data").exists()


def test_words_are_taken_without_the_space_around_them() -> None:
    """As HTTP does with a header, so that every surface says the same."""
    assert [check_words("purpose", t) for t in (None, "", "  ", " a b ", "p" * 256)] == [
        "", "", "", "a b", "p" * 256,
    ]  # fmt: skip
