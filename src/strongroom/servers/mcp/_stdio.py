"""MCP over stdio, for one session: the owner's, or that of the key in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult

from strongroom.model import IN_PROCESS
from strongroom.servers.http import Log, WorkerPool, make_log
from strongroom.servers.mcp._server import build_server

if TYPE_CHECKING:
    from strongroom.engine import Engine, Session

KEY_VARIABLE = "STRONGROOM_API_KEY"
PURPOSE_VARIABLE = "STRONGROOM_PURPOSE"
REASON_VARIABLE = "STRONGROOM_REASON"
_THREADS = 4


def session_from_environment(engine: Engine) -> Session:
    """A session held to the key in ``STRONGROOM_API_KEY``; the owner's when that is not set.

    ``STRONGROOM_PURPOSE`` and ``STRONGROOM_REASON`` are said with every call.

    Raises:
        UnauthenticatedError: the key is not good. An empty variable is refused, not taken for the owner.
        InvalidInputError: purpose or reason is not at most 256 printable characters.
    """
    key = os.environ.get(KEY_VARIABLE)
    context = IN_PROCESS.saying(os.environ.get(PURPOSE_VARIABLE), os.environ.get(REASON_VARIABLE))
    if key is None:
        return engine.owner_session("mcp", context)
    return engine.authenticate(key, surface="mcp", context=context)


def run_stdio(session: Session, *, log: Log | None = None, version: str = "") -> None:
    """Serve MCP on stdin and stdout until the client closes stdin. Logs go to stderr."""
    if log is None:
        from strongroom.config import LogConfig

        log = make_log(LogConfig())
    workers = WorkerPool(_THREADS, "strongroom-mcp")

    async def run(work: Callable[[], CallToolResult]) -> CallToolResult:
        return await workers.run(work)

    server = build_server(lambda _: session, run, log, version=version)

    async def serve() -> None:
        async with stdio_server() as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())

    try:
        anyio.run(serve)
    finally:
        workers.close()
