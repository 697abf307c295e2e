"""The short way to the busiest routes answers as FastAPI does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.servers.served import Served

from strongroom.engine import Session
from strongroom.servers.rest import _direct
from strongroom.servers.rest._direct import Direct

NS = "rest/direct"
JSON = {"content-type": "application/json"}


@pytest.fixture
def through_fastapi(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """While its one element is true, nothing takes the short way."""
    on = [False]
    real = Direct.__call__

    async def either(self: Direct, scope: Any, receive: Any, send: Any) -> None:
        if on[0]:
            await self._app(scope, receive, send)
        else:
            await real(self, scope, receive, send)

    monkeypatch.setattr(Direct, "__call__", either)
    yield on


def _chunks() -> Iterator[bytes]:
    yield b'{"namespaces":["rest/direct"],"query":"a"}'


def _search(**changes: Any) -> dict[str, Any]:
    return {"content": json.dumps({"namespaces": [NS], "query": "a note", **changes}), "headers": JSON}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a search": ("/v1/memories:search", _search()),
    "a list": ("/v1/memories:list", {"content": json.dumps({"namespaces": [NS]}), "headers": JSON}),
    "a statement": (
        "/v1/sql",
        {"content": json.dumps({"statement": "SELECT kind FROM memories"}), "headers": JSON},
    ),
    "not JSON": ("/v1/memories:search", {"content": b"{", "headers": JSON}),
    "an unknown field": ("/v1/memories:search", _search(more=1)),
    "an unknown namespace": ("/v1/memories:search", _search(namespaces=["rest/none"])),
    "another content type": (
        "/v1/memories:search",
        {"content": b"{}", "headers": {"content-type": "text/plain"}},
    ),
    "no body": ("/v1/memories:search", {"headers": JSON}),
    "a body in chunks": ("/v1/memories:search", {"content": _chunks, "headers": JSON}),
    "a parameter": ("/v1/memories:search?k=1", _search()),
    "a malformed key": (
        "/v1/memories:search",
        {**_search(), "headers": {**JSON, "authorization": "Bearer x"}},
    ),
    "no bearer": ("/v1/memories:search", {**_search(), "headers": {**JSON, "authorization": "Basic x"}}),
}


def _shown(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    headers = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "content-length")}
    body = answer.json()
    for hit in body.get("hits", ()):
        hit["memory"]["access_count"] = hit["memory"]["last_accessed_at"] = None
    for memory in body.get("memories", ()):
        memory["access_count"] = memory["last_accessed_at"] = None
    for counted in ("took_ms", "statement_id"):
        body.pop(counted, None)
    return answer.status_code, headers, body


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_that_of_fastapi(
    server: Served, http: httpx.Client, through_fastapi: list[bool], case: str
) -> None:
    """Status, headers and body are the same either way, for answers and for refusals."""
    if not server.owner.namespaces() or NS not in [n.name for n in server.owner.namespaces()]:
        server.owner.store("a note", namespace=NS)
        server.owner.flush()
    path, options = CASES[case]
    content = options.get("content")
    answers = []
    for through_fastapi[0] in (False, True):
        given = {**options, "content": content() if callable(content) else content}
        answers.append(_shown(http.post(path, **given)))
    assert answers[0] == answers[1]


def test_a_fault_that_nobody_foresaw_is_the_same_too(
    server: Served, http: httpx.Client, through_fastapi: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered as an internal error, without its text."""

    def fails(*_: object, **__: object) -> object:
        raise LookupError("content of a memory")

    monkeypatch.setattr(Session, "search", fails)
    answers = []
    for through_fastapi[0] in (False, True):
        answers.append(http.post("/v1/memories:search", **_search()))
    assert [a.status_code for a in answers] == [500, 500]
    assert answers[0].json() == answers[1].json()
    assert "content of a memory" not in answers[0].text + server.log.getvalue()


def test_what_takes_the_short_way(
    monkeypatch: pytest.MonkeyPatch, server: Served, http: httpx.Client
) -> None:
    """A search does and is logged under its route; routes with a part that varies, other methods and routes
    without a key do not."""
    taken: list[str] = []
    real = _direct.Request

    def noted(scope: Any, receive: Any) -> Any:
        taken.append(scope["path"])
        return real(scope, receive)

    monkeypatch.setattr(_direct, "Request", noted)
    server.owner.store("a note", namespace=NS)
    http.post("/v1/memories:search", **_search())
    assert taken == ["/v1/memories:search"]
    assert any(line.get("route") == "/v1/memories:search" for line in server.log_lines())
    http.get("/v1/memories", params={"namespaces": NS})
    http.get(f"/v1/memories/{'0' * 32}", params={"namespace": NS})
    http.put("/v1/memories:search")
    http.get("/healthz")
    http.get("/openapi.json")
    assert taken == ["/v1/memories:search"]
