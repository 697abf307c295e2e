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
from strongroom.servers.http import Log, WorkerPool, error_response, presented, sign_in
from strongroom.servers.mcp._server import Context, build_server

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

        self._manager = StreamableHTTPSessionManager(
            build_server(_session_of, run, log, version=version),
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
            scope["state"]["session"] = await self._authenticate(scope)
        except StrongroomError as e:
            await _refuse(send, e)
            return
        await self._manager.handle_request(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> Session:
        shown = presented(scope, self._log)
        return await self._workers.run(lambda: sign_in(self._engine, shown, scope, _SURFACE))


def _session_of(context: Context) -> Session:
    if context.request is None:  # the manager always gives one
        raise UnauthenticatedError
    session: Session = context.request.scope["state"]["session"]
    return session


async def _refuse(send: Send, error: StrongroomError, status: int | None = None) -> None:
    code, headers, body = error_response(error, status)
    headers.append((b"content-length", str(len(body)).encode()))
    if code == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
