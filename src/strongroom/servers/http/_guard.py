"""The one piece of ASGI in front of every application: pure ASGI, because it is on every request's path.

It gives the request its id, refuses foreign ``Host`` and ``Origin`` headers (DNS rebinding), bounds the
body while it streams in, adds the security headers, writes one log line without paths, queries or
content, and turns whatever comes up unexpectedly into a typed 500 that says nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import perf_counter
from typing import Any

from strongroom.errors import (
    AccessDeniedError,
    ContentTooLargeError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    StrongroomError,
)
from strongroom.servers.http._backlog import Incoming
from strongroom.servers.http._errors import error_response
from strongroom.servers.http._logs import Log

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", re.ASCII)
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_OUR_HEADERS = frozenset({b"x-request-id", b"cache-control", *(name for name, _ in _SECURITY_HEADERS)})
_NO_STORE = (b"cache-control", b"no-store")
_BEARER = b"bearer "
METADATA_PATH = "/.well-known/oauth-protected-resource"  # RFC 9728
MCP_PATH = "/mcp"
_PROBES = frozenset({"/healthz", "/readyz"})  # their successes would fill the log


def bearer_text(found: list[bytes]) -> str | None:
    """The text after ``Bearer`` in the values of ``Authorization``; None: there is not one alone."""
    if len(found) != 1 or found[0][: len(_BEARER)].lower() != _BEARER:
        return None
    try:
        return str(found[0][len(_BEARER) :].strip(b" ").decode("ascii"))
    except UnicodeDecodeError:
        return None


def request_id_of(scope: Scope) -> str:
    """The id that the guard gave to this request."""
    return str(scope["state"]["request_id"])


class Guard:
    """See the module's text. ``allowed_hosts`` are without port; ``allowed_origins`` are whole origins.

    ``arrival`` counts the requests of an address and raises LimitExceededError. ``incoming``: bodies of all
    requests. ``metadata``: refusals of credentials name the metadata of the protected resource.
    """

    def __init__(
        self,
        app: App,
        *,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        request_bytes_max: int,
        log: Log,
        arrival: Callable[[str], None] | None = None,
        incoming: Incoming | None = None,
        metadata: bool = False,
    ) -> None:
        self._app = app
        self._hosts = frozenset(h.lower() for h in allowed_hosts)
        self._origins = frozenset(allowed_origins)
        self._bytes_max = request_bytes_max
        self.log = log
        self._arrival = arrival
        self.incoming = incoming
        self.metadata = metadata

    def arrived(self, scope: Scope) -> None:
        """Count a request of a source.

        Raises:
            LimitExceededError: too many come from there.
        """
        client = scope.get("client")
        if self._arrival is not None and client and scope["path"] not in _PROBES:
            self._arrival(str(client[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _Request(self, scope, receive, send).serve()
        else:  # no surface speaks WebSocket
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Scope) -> tuple[StrongroomError, int] | None:
        """Why a request is refused before any application sees it."""
        hosts: list[bytes] = []
        origins: list[bytes] = []
        length = b"0"
        for key, value in scope["headers"]:
            if key == b"host":
                hosts.append(value)
            elif key == b"origin":
                origins.append(value)
            elif key == b"content-length":
                length = value
        if len(hosts) != 1 or not self._host_allowed(hosts[0]):
            hint = "add it to [server] allowed_hosts if it is yours"
            return AccessDeniedError("this server does not go by the name in the Host header", hint=hint), 421
        if origins and (len(origins) > 1 or not self._origin_allowed(origins[0], hosts[0])):
            hint = "add it to [server] allowed_origins if it is yours"
            return AccessDeniedError("requests from this Origin are not taken", hint=hint), 403
        if not length.isdigit():
            return InvalidInputError("Content-Length is not a number"), 400
        if len(length) > 15 or int(length) > self._bytes_max:
            return self.too_large(), 413
        return None

    def too_large(self) -> ContentTooLargeError:
        return ContentTooLargeError("the request is too large", hint=f"at most {self._bytes_max} bytes")

    @property
    def app(self) -> App:
        return self._app

    @property
    def bytes_max(self) -> int:
        return self._bytes_max

    def _host_allowed(self, raw: bytes) -> bool:
        match = _HOST.fullmatch(raw.decode("latin-1").lower())
        return match is not None and match[1] in self._hosts

    def _origin_allowed(self, raw: bytes, host: bytes) -> bool:
        origin = raw.decode("latin-1")
        return origin in self._origins or origin == "https://" + host.decode("latin-1")


class _Request:
    """One request on its way through the guard."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard = guard
        self._scope = scope
        self._receive = receive
        self._send = send
        self._read = self._taken = 0
        self._status = 0
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        fits = _REQUEST_ID.fullmatch(given) is not None
        self._id = given if fits else secrets.token_hex(8).encode("ascii")

    async def serve(self) -> None:
        started = perf_counter()
        scope = self._scope
        scope.setdefault("state", {})["request_id"] = self._id.decode("ascii")
        refused = self._guard.refusal(scope)
        try:
            if refused is not None:
                await self._answer(*refused)
            else:
                self._guard.arrived(scope)
                await self._guard.app(scope, self.receive, self.send)
        except (ContentTooLargeError, LimitExceededError) as e:
            await self._answer(e)
        except Exception as e:  # noqa: BLE001  # the outermost boundary: by type, without the text
            self._guard.log.error("unexpected_error", type=type(e).__name__, request_id=self._id.decode())
            await self._answer(InternalError())
        finally:
            if self._guard.incoming is not None:
                self._guard.incoming.give_back(self._taken)
        if scope["path"] in _PROBES and self._status == 200:
            return
        route = scope.get("route")
        self._guard.log.info(
            "request",
            request_id=self._id.decode(),
            method=scope["method"],
            route=getattr(route, "path_format", None),
            status=self._status,
            duration_ms=round((perf_counter() - started) * 1000, 2),
        )

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._read += size
            if self._read > self._guard.bytes_max:
                raise self._guard.too_large()
            if self._guard.incoming is not None:
                self._guard.incoming.take(size, self._taken)
                self._taken += size
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = list(message.get("headers", ()))
            names = {k.lower() for k, _ in headers}
            headers.append((b"x-request-id", self._id))
            if names.isdisjoint(_OUR_HEADERS):
                headers += _SECURITY_HEADERS
                headers.append(_NO_STORE)
            else:
                headers.extend(h for h in (*_SECURITY_HEADERS, _NO_STORE) if h[0] not in names)
            if self._status == 401 and self._guard.metadata:
                headers = [h for h in headers if h[0].lower() != b"www-authenticate"]
                headers.append((b"www-authenticate", self._challenge()))
            if self._status == 413:
                headers.append((b"connection", b"close"))  # the rest of the body is not read
            message = {**message, "headers": headers}
        await self._send(message)

    def _challenge(self) -> bytes:
        """Where the metadata of the protected resource is (RFC 9728, section 5.1). The host was checked."""
        host = next(v for k, v in self._scope["headers"] if k == b"host").decode("latin-1")
        path = METADATA_PATH + (MCP_PATH if self._scope["path"].rstrip("/") == MCP_PATH else "")
        return f'Bearer realm="strongroom", resource_metadata="https://{host}{path}"'.encode("latin-1")

    async def _answer(self, error: StrongroomError, status: int | None = None) -> None:
        if self._status:  # an answer has begun: nothing can be said any more
            return
        code, headers, body = error_response(error, status)
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": code, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})
