"""MCP over streamable HTTP: stateless, each POST authenticated by the engine, answers as JSON.

There is no session to steal and nothing to push, so GET and DELETE are not taken. The guard in front
checks Host and Origin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import CallToolResult

from strongroom.config import Config
from strongroom.errors import InvalidInputError, StrongroomError, UnauthenticatedError
from strongroom.servers.http import Log, WorkerPool, error_response, presented, request_id_of, sign_in
from strongroom.servers.mcp._server import Context, build_server, refusal, run_tool
from strongroom.servers.mcp._single import (
    PlainCall,
    answer_call,
    call_version,
    error_answer,
    plain_call,
    read_body,
    replayed,
    result_answer,
)
from strongroom.servers.wire import to_json

if TYPE_CHECKING:
    from strongroom.engine import Engine, Session

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_SURFACE = "mcp"


class McpEndpoint:
    """The ASGI application at ``/mcp``; enter ``running()`` for as long as it serves."""

    def __init__(
        self, engine: Engine, config: Config, workers: WorkerPool, log: Log, *, version: str = ""
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._log = log

        async def run(work: Callable[[], CallToolResult]) -> CallToolResult:
            return await workers.run(work)

        self._server = build_server(self._session_of, run, log, version=version)
        self._manager = StreamableHTTPSessionManager(
            self._server,
            json_response=True,
            stateless=True,
            max_request_body_size=max(1, config.limits.request_bytes_max),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while this is entered."""
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "POST":
                await _refuse(send, InvalidInputError("MCP is spoken by POST here"), 405)
                return
            scope["state"]["presented"] = presented(scope, self._log, self._engine, _SURFACE)
            version = call_version(scope)
            if version is not None:
                body = await read_body(receive)
                if body is None:
                    await _refuse(send, InvalidInputError("the body is not as long as the request says"))
                    return
                if await self._answer(scope, version, body, send):
                    return
                receive = replayed(body, receive)
            await self._workers.run(lambda: self._authenticated(scope))
        except StrongroomError as e:
            await _refuse(send, e)
            return
        await self._manager.handle_request(scope, receive, send)

    async def _answer(self, scope: Scope, version: str, body: bytes, send: Send) -> bool:
        """Answer a call in one hop to a worker; False: it is for the SDK's transport."""
        call = plain_call(body)
        if call is not None:
            raw: bytes | None = await self._called(scope, call)
        else:
            raw = await answer_call(self._server, scope, version, body)
        refused = scope["state"].get("refused")
        if refused is not None:
            raise refused
        if raw is None:
            return False
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": raw})
        return True

    async def _called(self, scope: Scope, call: PlainCall) -> bytes:
        def work() -> bytes:
            return result_answer(
                call, to_json(run_tool(call.spec, self._authenticated(scope), call.arguments))
            )

        try:
            return await self._workers.run(work)
        except Exception as e:  # noqa: BLE001  # the door: what comes out of it is a result
            return error_answer(call, refusal(call.spec, e, request_id_of(scope), self._log))

    def _authenticated(self, scope: Scope) -> Session:
        """The session of a request, made once; blocks."""
        state = scope["state"]
        session: Session | None = state.get("session")
        if session is None:
            try:
                session = state["session"] = sign_in(self._engine, state["presented"], scope, _SURFACE)
            except StrongroomError as e:
                state["refused"] = e  # the request is refused, not the tool
                raise
        return session

    def _session_of(self, context: Context) -> Session:
        if context.request is None:  # there always is one
            raise UnauthenticatedError
        return self._authenticated(context.request.scope)


async def _refuse(send: Send, error: StrongroomError, status: int | None = None) -> None:
    code, headers, body = error_response(error, status)
    headers.append((b"content-length", str(len(body)).encode()))
    if code == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
