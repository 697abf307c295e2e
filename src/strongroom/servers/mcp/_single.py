"""One ``tools/call`` in one POST, answered on the spot.

The SDK's transport for the protocol versions with a handshake sets up a connection for every POST: streams,
a dispatcher, task groups, ten turns of the event loop. A stateless call needs none of that. Here it
goes to the SDK's own single-exchange driver, ``serve_one``, which checks request and result by the
types of the protocol version and calls the same handler. Whatever is not plainly such a call, and every
call that the driver refuses, is answered by the SDK's transport instead, from the same body.

A call of the everyday form, a known tool with its arguments and nothing else, needs not even the driver:
there is nothing in it that the types could refuse, and its answer is put together from the JSON of the
result, which it holds twice, instead of from models that are made, checked and dumped. Tests hold it against
the SDK's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pydantic_core
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_one
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import CallToolResult, JSONRPCRequest, JSONRPCResponse, RequestId, TextContent
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError
from starlette.requests import Request

from strongroom.servers.mcp._server import SPECS
from strongroom.servers.mcp._tools import ToolSpec

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

BODY_BYTES_MAX = 64 * 1024  # read before the key was found good
_JSON_TYPES = frozenset({b"application/json", b"application/*", b"*/*"})
_VERSIONS = {v.encode(): v for v in HANDSHAKE_PROTOCOL_VERSIONS}
_NEEDED = (b"accept", b"content-type", b"content-length", b"mcp-protocol-version")


@dataclass(slots=True)
class _Exchange:
    """The SDK's ``DispatchContext`` of a request without a way back to the client but its answer."""

    request_id: RequestId
    message_metadata: ServerMessageMetadata
    transport: TransportContext
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)
    can_send_request: bool = field(default=False, init=False)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """There is no stream to carry it."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """There is no stream to carry it."""


def call_version(scope: Scope) -> str | None:
    """The protocol version of a POST that may be served here; None: it is for the SDK's transport."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _NEEDED:
            if name in found:
                return None
            found[name] = value
        elif name == b"mcp-session-id":
            return None
    if len(found) != len(_NEEDED):
        return None
    length = found[b"content-length"]
    if not length.isdigit() or len(length) > 6 or int(length) > BODY_BYTES_MAX:
        return None
    if found[b"content-type"].partition(b";")[0].strip().lower() != b"application/json":
        return None
    accepted = {part.partition(b";")[0].strip().lower() for part in found[b"accept"].split(b",")}
    return None if accepted.isdisjoint(_JSON_TYPES) else _VERSIONS.get(found[b"mcp-protocol-version"])


async def read_body(receive: Receive) -> bytes | None:
    """The body, of at most ``BODY_BYTES_MAX``; None when the client has gone or sends more."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body which was read already, then what comes after it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


@dataclass(frozen=True, slots=True)
class PlainCall:
    """A ``tools/call`` of the everyday form."""

    request_id: int | str
    spec: ToolSpec
    arguments: Mapping[str, Any] = field(repr=False)


_CALL_KEYS = frozenset({"jsonrpc", "id", "method", "params"})
_PARAM_KEYS = frozenset({"name", "arguments"})


def plain_call(body: bytes) -> PlainCall | None:
    """The call in a body; None: it is something else, or says more than that."""
    try:
        decoded = pydantic_core.from_json(body)
    except ValueError:
        return None
    if type(decoded) is not dict or decoded.keys() != _CALL_KEYS:
        return None
    params, request_id = decoded["params"], decoded["id"]
    if decoded["jsonrpc"] != "2.0" or decoded["method"] != "tools/call" or type(request_id) not in (int, str):
        return None
    if type(params) is not dict or not params.keys() <= _PARAM_KEYS:
        return None
    name, arguments = params.get("name"), params.get("arguments")
    spec = SPECS.get(name) if type(name) is str else None
    if spec is None or not (arguments is None or type(arguments) is dict):
        return None
    return PlainCall(request_id, spec, arguments or {})


def result_answer(call: PlainCall, raw: bytes) -> bytes:
    """The answer to a call whose result is the JSON ``raw``: as text for a model, and as data."""
    return _answer(call, raw.decode(), raw, is_error=False)


def error_answer(call: PlainCall, result: CallToolResult) -> bytes:
    """The answer to a call that was not carried out: ``result`` as ``tool_error`` makes it."""
    text = "".join(part.text for part in result.content if isinstance(part, TextContent))
    return _answer(call, text, msgspec.json.encode(result.structured_content), is_error=True)


def _answer(call: PlainCall, text: str, data: bytes, *, is_error: bool) -> bytes:
    return (
        b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"text":%b,"type":"text"}],"isError":%b,'
        b'"structuredContent":%b}}'
    ) % (
        msgspec.json.encode(call.request_id),
        msgspec.json.encode(text),
        b"true" if is_error else b"false",
        data,
    )


async def answer_call(server: Server[Any], scope: Scope, version: str, body: bytes) -> bytes | None:
    """The JSON of the answer to a ``tools/call``; None: it is something else, or nothing was called.

    Raises whatever a handler lets through that is no error of the protocol.
    """
    try:
        decoded = pydantic_core.from_json(body)
        if not isinstance(decoded, dict) or decoded.get("method") != "tools/call" or "id" not in decoded:
            return None
        message = JSONRPCRequest.model_validate(decoded, by_name=False)
    except ValueError:  # ValidationError is one
        return None
    exchange = _Exchange(
        message.id,
        ServerMessageMetadata(request_context=Request(scope)),
        TransportContext(kind="streamable-http", can_send_request=False),
    )
    connection = Connection.from_envelope(version, None, None)
    try:
        result = await serve_one(
            server, exchange, message.method, message.params, connection=connection, lifespan_state={}
        )
    except (MCPError, ValidationError):
        return None
    answer = JSONRPCResponse(jsonrpc="2.0", id=message.id, result=result)
    return answer.model_dump_json(by_alias=True, exclude_unset=True).encode()
