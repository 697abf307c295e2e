"""A call that is answered on the spot is answered as the SDK's own transport answers it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from tests.servers.served import Served

from strongroom import access
from strongroom.servers.mcp import _http

NS = "mcp/single"
VERSION = "2025-11-25"
TEXT = 'a call\n\x07 "quoted" \\ </script> \u2028 \x7f \U0001f511'
HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": VERSION,
}


def body_of(tool: str = "get_memory", arguments: Any = None, **changes: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params, **changes}


def post(http: httpx.Client, body: object, *, through_sdk: bool = False, **headers: str) -> httpx.Response:
    """``through_sdk``: a body without its length in front is left to the SDK's transport."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def chunks() -> Iterator[bytes]:
        yield raw

    return http.post("/mcp", content=chunks() if through_sdk else raw, headers={**HEADERS, **headers})


def uncounted(answer: httpx.Response) -> str:
    """The body without what each reading of a memory changes."""
    return re.sub(r'"access_count[\\]*":\d+,[\\]*"last_accessed_at[\\]*":([^,]*|null)', "", answer.text)


@pytest.fixture
def driver_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each call that reaches the SDK's driver."""
    calls: list[str] = []
    real = _http.answer_call

    async def counted(*arguments: Any) -> Any:
        calls.append("call")
        return await real(*arguments)

    monkeypatch.setattr(_http, "answer_call", counted)
    return calls


@pytest.fixture
def sdk_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each request that reaches the SDK's transport."""
    calls: list[str] = []
    real = StreamableHTTPSessionManager.handle_request

    async def counted(self: Any, scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["method"])
        await real(self, scope, receive, send)

    monkeypatch.setattr(StreamableHTTPSessionManager, "handle_request", counted)
    return calls


def test_a_plain_call_does_not_go_through_the_transport_and_is_the_same(
    server: Served, sdk_calls: list[str]
) -> None:
    """Answer, status and headers are those of the SDK, for results and for errors of tools."""
    memory = server.owner.store(
        TEXT, namespace=NS, metadata={"none": None, "n": [1, None], "x": 1e-7}, tags=["x"]
    )
    server.owner.flush()
    found = {"memory_id": str(memory.memory_id), "namespace": NS}
    cases = [
        body_of(arguments=found),
        body_of(arguments=found, id="seven"),
        body_of(arguments={**found, "memory_id": "0" * 32}),
        body_of(arguments={"namespace": NS}),
        body_of("query_memories", {"statement": "SELECT content, expires_at FROM memories"}),
        body_of("memory_stats"),
        body_of(
            "search_memory", {"query": "a call \u2028 \x7f \U0001f511", "namespaces": [NS], "explain": True}
        ),
        body_of(params={"name": "memory_stats"}),
        body_of(params={"name": "memory_stats", "arguments": {}, "_meta": {"progressToken": 4}}),
        body_of(params={"name": "memory_stats", "more": 1}),
    ]
    with server.http() as http:
        for case in cases:
            fast = post(http, case)
            assert sdk_calls == []
            slow = post(http, case, through_sdk=True)
            assert sdk_calls.pop() == "POST"
            assert uncounted(fast) == uncounted(slow) and fast.json()["id"] == case["id"]
            assert (fast.status_code, fast.headers["content-type"]) == (200, slow.headers["content-type"])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"\xff",
        body_of("no_such_tool"),
        body_of(params={"name": 5}),
        body_of(params=None),
        body_of(id=None),
        body_of(id=1.5),
        body_of(jsonrpc="1.0"),
        [body_of()],
        body_of(method="tools/list", params={}),
        body_of(method="ping", params={}),
        {k: v for k, v in body_of().items() if k != "id"},
    ],
    ids=repr,
)
def test_everything_else_is_answered_by_the_sdk(server: Served, sdk_calls: list[str], body: object) -> None:
    """Whatever is not plainly a call that can be carried out reaches the transport with its whole body."""
    with server.http() as http:
        answer = post(http, body)
        assert sdk_calls == ["POST"]
        other = post(http, body, through_sdk=True)
    assert (answer.status_code, answer.content) == (other.status_code, other.content)


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-protocol-version": "1999-01-01"},
        {"accept": "text/html"},
        {"content-type": "text/plain"},
        {"mcp-session-id": "x"},
    ],
)
def test_headers_that_the_sdk_must_judge(
    server: Served, sdk_calls: list[str], headers: dict[str, str]
) -> None:
    """Another version, content type or accepted type is the SDK's to refuse."""
    with server.http() as http:
        answer = post(http, body_of("memory_stats"), **headers)
        assert sdk_calls == ["POST"]
        other = post(http, body_of("memory_stats"), through_sdk=True, **headers)
    assert (answer.status_code, answer.content) == (other.status_code, other.content)


def test_a_refused_key_is_refused_before_the_tool(server: Served, sdk_calls: list[str]) -> None:
    """An unknown, a malformed and a missing key get 401 either way, and no tool runs."""
    revoked = server.key("read-only", "*")
    server.owner.keys_revoke(access.parse_key(revoked).key_id)
    before = server.owner.stats().memories
    for key in (revoked, "sr_live_nonsense", ""):
        with server.http(key) as http:
            body = body_of("store_memory", {"content": "x", "namespace": NS})
            fast, slow = post(http, body), post(http, body, through_sdk=True)
        assert fast.status_code == slow.status_code == 401
        assert fast.json()["error"]["code"] == slow.json()["error"]["code"] == "unauthenticated"
        assert "www-authenticate" in fast.headers
    assert sdk_calls == [] and server.owner.stats().memories == before


def test_a_call_takes_one_hop_to_a_worker(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authentication and tool share it; the transport's way takes two."""
    hops: list[object] = []
    real = _http.WorkerPool.run

    async def counted(self: Any, work: Any) -> Any:
        hops.append(work)
        return await real(self, work)

    monkeypatch.setattr(_http.WorkerPool, "run", counted)
    with server.http() as http:
        post(http, body_of("memory_stats"))
        assert len(hops) == 1
        post(http, body_of("memory_stats"), through_sdk=True)
        assert len(hops) == 3


def test_a_call_of_the_everyday_form_needs_not_even_the_driver(
    server: Served, driver_calls: list[str], sdk_calls: list[str]
) -> None:
    """A tool with its arguments is carried out at once; what says more goes to the driver."""
    with server.http() as http:
        assert post(http, body_of("memory_stats")).json()["result"]["isError"] is False
        assert post(http, body_of("memory_stats", {"k": 1})).json()["result"]["isError"] is True
        assert driver_calls == []
        meta = {"name": "memory_stats", "_meta": {"progressToken": 1}}
        assert post(http, body_of(params=meta)).json()["result"]["isError"] is False
        assert driver_calls == ["call"] and sdk_calls == []


def test_a_fault_inside_a_tool_says_nothing_of_itself(
    server: Served, driver_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is told as an internal error, without its text."""

    def fails(*_: object) -> object:
        raise LookupError("content of a memory")

    monkeypatch.setattr(_http, "run_tool", fails)
    with server.http() as http:
        answer = post(http, body_of("memory_stats"))
    assert "content of a memory" not in answer.text
    assert answer.json()["result"]["structuredContent"]["error"]["code"] == "internal"
    assert driver_calls == []
