"""MCP by the official SDK: streamable HTTP at ``/mcp`` and stdio, eight tools (docs/mcp.md)."""

from strongroom.servers.mcp._errors import ADVICE, tool_error
from strongroom.servers.mcp._http import McpEndpoint
from strongroom.servers.mcp._server import build_server
from strongroom.servers.mcp._stdio import run_stdio, session_from_environment
from strongroom.servers.mcp._tools import TOOLS

__all__ = [
    "ADVICE",
    "TOOLS",
    "McpEndpoint",
    "build_server",
    "run_stdio",
    "session_from_environment",
    "tool_error",
]
