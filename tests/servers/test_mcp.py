"""MCP by the official SDK's own client, over HTTPS and over stdio."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
import jsonschema
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from tests.servers.served import Served, make_store

from strongroom import access
from strongroom.client._tls import client_context

NS = "mcp/tools"
NAMES = {
    "store_memory",
    "search_memory",
    "get_memory",
    "reveal_memory",
    "list_memories",
    "update_memory",
    "delete_memory",
    "memory_stats",
    "query_memories",
}


@asynccontextmanager
async def connected(server: Served, key: str | None = None, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {server.admin_key if key is None else key}"}
    async with (
        httpx2.AsyncClient(
            headers=headers, verify=client_context(server.ca), trust_env=False, timeout=30
        ) as http,
        Client(streamable_http_client(server.url + "/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def run(work):
    """Drive a coroutine function; a group of exceptions shows its only one."""

    async def unwrapped():
        try:
            return await work()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    return anyio.run(unwrapped)


def with_client(server, work, **options):
    async def body():
        async with connected(server, **options) as client:
            return await work(client)

    return run(body)


def call(server, tool, key=None, **arguments):
    return with_client(server, lambda c: c.call_tool(tool, arguments), key=key)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_stores_finds_changes_and_forgets(server, mode):
    """The whole life of a memory through the tools, in both eras of the protocol."""

    async def work(client):
        async def tool(name, **arguments):
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result.content
            assert json.loads(result.content[0].text) == result.structured_content
            return result.structured_content

        made = await tool(
            "store_memory", content="Ada prefers tea", namespace=NS, subject="user:ada", tags=["drink"]
        )
        key = {"memory_id": made["memory_id"], "namespace": NS}
        asked = {"query": "what does Ada drink: tea?", "namespaces": [NS], "k": 1, "explain": True}
        hits = (await tool("search_memory", **asked))["hits"]
        assert hits[0]["explanation"]["keyword_rank"] == 1
        assert hits[0]["memory"]["memory_id"] == made["memory_id"]
        changed = await tool(
            "update_memory", **key, content="Ada prefers coffee", expected_version=1, tags=[]
        )
        assert (changed["content"], changed["tags"], changed["subject"]) == (
            "Ada prefers coffee",
            [],
            "user:ada",
        )
        assert (await tool("get_memory", **key))["version"] == 2
        page = await tool("list_memories", namespaces=["mcp/*"], subjects=["user:ada"])
        assert [m["memory_id"] for m in page["memories"]] == [made["memory_id"]]
        stats = await tool("memory_stats")
        assert NS in [n["name"] for n in stats["namespaces"]]
        assert await tool("delete_memory", **key) == {"deleted": True}
        assert await tool("delete_memory", **key) == {"deleted": False}

    with_client(server, work, mode=mode)


def test_the_tools_describe_themselves(server):
    """Every tool and every parameter has a text for the agent; hints and schemas are there and valid."""
    tools = with_client(server, lambda c: c.list_tools()).tools
    assert {t.name for t in tools} == NAMES
    for tool in tools:
        assert tool.title and len(tool.description) > 30
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        assert tool.input_schema["additionalProperties"] is False
        for name, parameter in tool.input_schema["properties"].items():
            assert parameter.get("description"), f"{tool.name}.{name} says nothing"
        hints = tool.annotations
        assert hints.read_only_hint == (
            tool.name in ("search_memory", "get_memory", "list_memories", "memory_stats", "query_memories")
        )
        assert hints.destructive_hint == (tool.name in ("update_memory", "delete_memory"))
        assert hints.open_world_hint is False


def test_results_match_the_schemas_that_the_tools_declare(server):
    tools = {t.name: t for t in with_client(server, lambda c: c.list_tools()).tools}
    made = call(
        server, "store_memory", content="schema", namespace=NS, metadata={"a": [1]}
    ).structured_content
    key = {"memory_id": made["memory_id"], "namespace": NS}
    for name, arguments in {
        "store_memory": {"content": "schema again", "namespace": NS, "expires_at": "2036-01-01T00:00:00Z"},
        "search_memory": {"query": "schema", "namespaces": ["*"]},
        "get_memory": key,
        "list_memories": {"namespaces": ["*"], "limit": 1},
        "update_memory": {**key, "importance": 1},
        "memory_stats": {},
        "query_memories": {"statement": "SELECT kind, count(*) AS n FROM memories GROUP BY kind"},
        "delete_memory": key,
    }.items():
        result = call(server, name, **arguments)
        checker = jsonschema.Draft202012Validator(tools[name].output_schema)
        assert not result.is_error and not list(checker.iter_errors(result.structured_content))


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("store_memory", {"namespace": NS}, "invalid_input"),
        ("store_memory", {"content": "", "namespace": NS}, "invalid_input"),
        ("store_memory", {"content": "x", "namespace": NS, "colour": "red"}, "invalid_input"),
        ("store_memory", {"content": "x", "namespace": "../x"}, "invalid_namespace"),
        ("store_memory", {"content": "x", "namespace": NS, "importance": 7}, "invalid_input"),
        (
            "store_memory",
            {"content": "x", "namespace": NS, "expires_at": "2036-01-01T00:00:00"},
            "invalid_input",
        ),
        ("store_memory", {"content": "x" * 9_000_000, "namespace": NS}, "content_too_large"),
        ("search_memory", {"query": "x", "namespaces": []}, "invalid_input"),
        ("search_memory", {"query": "x", "namespaces": [NS], "where": "1; DROP"}, "invalid_filter"),
        ("search_memory", {"query": "x", "namespaces": [NS], "k": 101}, "invalid_input"),
        ("search_memory", {"query": "x", "namespaces": ["mcp/none"]}, "namespace_not_found"),
        ("get_memory", {"memory_id": "42", "namespace": NS}, "invalid_input"),
        (
            "get_memory",
            {"memory_id": "00000000-0000-4000-8000-000000000000", "namespace": NS},
            "memory_not_found",
        ),
        ("list_memories", {"namespaces": ["*"], "cursor": "nope"}, "invalid_input"),
        ("memory_stats", {"namespaces": ["a b"]}, "invalid_namespace"),
        ("query_memories", {"statement": "DELETE FROM memories"}, "sql_forbidden"),
        ("query_memories", {"statement": "SELECT * FROM range(101)"}, "limit_exceeded"),
    ],
)
def test_a_bad_call_is_a_tool_error_with_code_and_advice(server, tool, arguments, code):
    result = call(server, tool, **arguments)
    assert result.is_error
    error = result.structured_content["error"]
    assert error["code"] == code and error["next"], error
    assert result.content[0].text.startswith(f"{code}: ")


def test_a_stale_version_is_a_conflict(server):
    made = call(server, "store_memory", content="v", namespace=NS).structured_content
    key = {"memory_id": made["memory_id"], "namespace": NS}
    call(server, "update_memory", **key, kind="fact")
    result = call(server, "update_memory", **key, kind="goal", expected_version=1)
    assert result.structured_content["error"]["code"] == "version_conflict"


def test_lists_and_objects_given_as_text_are_understood(server):
    """Some clients send every argument as a string."""
    made = call(
        server, "store_memory", content="x", namespace=NS, tags='["a"]', metadata='{"b": 1}', importance="0.7"
    )
    body = made.structured_content
    assert (body["tags"], body["metadata"], body["importance"]) == (["a"], {"b": 1}, 0.7)


def test_grants_hold_and_a_denial_says_nothing_about_what_is_there(server):
    call(server, "store_memory", content="theirs", namespace="theirs/x")
    call(server, "store_memory", content="ours", namespace=NS)
    key = server.key("read-only", NS, "fresh/*")
    denied = [
        call(server, "store_memory", key, content="x", namespace=NS),
        call(server, "search_memory", key, query="x", namespaces=["theirs/x"]),
        call(server, "search_memory", key, query="x", namespaces=["theirs/none"]),
        call(
            server, "get_memory", key, memory_id="00000000-0000-4000-8000-000000000000", namespace="theirs/x"
        ),
    ]
    assert {r.structured_content["error"]["code"] for r in denied} == {"access_denied"}
    assert len({r.content[0].text for r in denied}) == 1
    assert call(server, "search_memory", key, query="theirs", namespaces=["theirs/*"]).structured_content == {
        "hits": [],
        "notices": [],
    }
    told = call(server, "memory_stats", key).structured_content
    assert [n["name"] for n in told["namespaces"]] == [NS]
    assert (told["scope"], told["grants"]) == ("read-only", [NS, "fresh/*"])  # where nothing is yet, too


def test_an_unknown_tool_or_method_is_a_protocol_error(server):
    with pytest.raises(MCPError):
        call(server, "drop_database")
    with server.http() as http:
        answer = http.post(
            "/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "no/such", "params": {}},
            headers={"accept": "application/json, text/event-stream"},
        )
        assert answer.json()["error"]["code"] == -32601


def test_calls_are_audited_under_their_surface(server):
    call(server, "memory_stats")
    assert server.owner.audit(limit=1)[0].surface == "mcp" or "mcp" in {
        e.surface for e in server.owner.audit(limit=5)
    }


def test_a_tool_call_is_one_entry_of_the_audit_log(server):
    """What an agent asks for once is one operation: memory_stats too, whose answer has three parts."""
    before = server.owner.audit(limit=1)[0].seq
    told = call(server, "memory_stats").structured_content
    entries = [e for e in server.owner.audit(limit=1000, after=before) if e.surface == "mcp"]
    assert [(e.action, e.outcome) for e in entries] == [("stats", "ok")]
    assert told["scope"] == "admin" and told["grants"] == ["*"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_stream_to_hold_open_and_no_session_to_steal(server, method):
    with server.http() as http:
        answer = http.request(method, "/mcp", headers={"accept": "text/event-stream"})
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"jsonrpc": "1.0"}', b'{"jsonrpc": "2.0", "method": 5}']
)
def test_malformed_messages_are_refused(server, body):
    with server.http() as http:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        answer = http.post("/mcp", content=body, headers=headers)
        assert answer.status_code == 400 and "Traceback" not in answer.text


def test_a_bug_below_a_tool_says_nothing(server, monkeypatch):
    """An exception that should not be is a typed internal error; its text stays out of answer and log."""
    from strongroom.engine import Session

    def broken(self, *args, **kwargs):
        raise ZeroDivisionError("patient-name-of-one")

    monkeypatch.setattr(Session, "overview", broken)
    result = call(server, "memory_stats")
    assert result.is_error and result.structured_content["error"]["code"] == "internal"
    assert "patient" not in result.content[0].text + server.log.getvalue()


STDIO = """
import sys
from pathlib import Path
from tests.support.word_model import WordModel
from strongroom.engine import Engine
from strongroom.errors import StrongroomError
from strongroom.servers.mcp import run_stdio, session_from_environment
engine = Engine.open(Path(sys.argv[1]), provider=WordModel(64))
try:
    run_stdio(session_from_environment(engine))
except StrongroomError as e:
    sys.exit(e.code)
finally:
    engine.close()
"""


def stdio(directory, key, work):
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    if key is not None:
        env["STRONGROOM_API_KEY"] = key
    params = StdioServerParameters(command=sys.executable, args=["-c", STDIO, str(directory)], env=env)

    async def body():
        async with Client(stdio_client(params)) as client:
            return await work(client)

    return run(body)


def test_stdio_serves_the_owner_or_the_key_in_the_environment(tmp_path):
    from tests.support.word_model import WordModel

    from strongroom.engine import Engine

    make_store(tmp_path / "data")
    engine = Engine.open(tmp_path / "data", provider=WordModel(64))
    key = engine.owner_session("test").keys_create("k", "read-only", ["a/*"])[1]
    engine.close()

    async def work(client):
        stored = await client.call_tool("store_memory", {"content": "x", "namespace": "a/b"})
        tools = await client.list_tools()
        return stored, {t.name for t in tools.tools}

    stored, names = stdio(tmp_path / "data", None, work)
    assert not stored.is_error and names == NAMES
    stored, _ = stdio(tmp_path / "data", key, work)
    assert stored.structured_content["error"]["code"] == "access_denied"


def test_stdio_with_an_empty_or_bad_key_is_refused_and_does_not_become_the_owner(tmp_path, monkeypatch):
    from tests.support.word_model import WordModel

    from strongroom.engine import Engine
    from strongroom.errors import UnauthenticatedError
    from strongroom.servers.mcp import session_from_environment

    make_store(tmp_path / "data")
    engine = Engine.open(tmp_path / "data", provider=WordModel(64))
    try:
        for value in ("", "sr_live_wrong", access.generate_key(os.urandom).text):
            monkeypatch.setenv("STRONGROOM_API_KEY", value)
            with pytest.raises(UnauthenticatedError):
                session_from_environment(engine)
    finally:
        engine.close()
