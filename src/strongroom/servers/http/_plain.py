"""Requests of the everyday form, read and answered without a state machine.

What nearly every client sends is a head that is whole when it comes, with a length or no body, on a kept
connection; and nearly every answer has its length too and is there in one piece. Such a request is
matched by one expression and its answer leaves as one write, so as one TLS record where it fits. Whatever
is not plainly of that form goes to h11, from the same bytes: a head in pieces or a long one, chunks,
``Expect``, ``Upgrade``, ``Connection: close``, a body of more than 64 KiB. So does an answer that is
streamed: h11 is told of the request first. What is accepted here is a part of what h11 accepts; a test
holds it.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import h11
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol, RequestResponseCycle

__all__ = ["HEAD_BYTES_MAX", "PlainProtocol", "PlainRequest", "plain_request"]

HEAD_BYTES_MAX: Final = 8 * 1024
BODY_BYTES_MAX: Final = 64 * 1024
_HEAD: Final = re.compile(
    rb"(GET|POST|PATCH|DELETE) (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: ?[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*\r\n)+)\r\n"
)
_FIELD: Final = re.compile(rb"([^:]+): ?([^\r]+)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,6}")
_BEYOND: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_SPECIAL: Final = frozenset({b"host", b"content-length", b"connection", *_BEYOND})
_BODILESS: Final = frozenset({204, 304})

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request whose head has come. ``head_bytes``: how much of the data it was."""

    method: str
    target: bytes
    headers: Headers
    length: int
    head_bytes: int


def plain_request(data: bytes) -> PlainRequest | None:
    """The request that ``data`` begins with, when it is of the everyday form."""
    found = _HEAD.match(data, 0, HEAD_BYTES_MAX)
    if found is None:
        return None
    headers = [(name.lower(), value) for name, value in _FIELD.findall(found[3])]
    hosts = lengths = length = 0
    for name, value in headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            hosts += 1
        elif name == b"content-length" and _LENGTH.fullmatch(value):
            lengths += 1
            length = int(value)
        elif name != b"connection" or value.lower() != b"keep-alive":
            return None
    if hosts != 1 or lengths > 1 or length > BODY_BYTES_MAX:
        return None
    return PlainRequest(found[1].decode("ascii"), found[2], headers, length, found.end())


class PlainProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn with a short way for plain requests."""

    _missing = 0  # bytes of the body of a plain request that have not come yet
    _later = b""  # what came behind a plain request that is under way
    _raw = bytearray()  # the plain request under way, for h11, should it have to know

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        cycle = self.cycle
        if isinstance(cycle, _PlainCycle) and not cycle.by_h11:
            if self._missing:
                self._unset_keepalive_if_required()
                data = self._more_of(cycle, data)
                if not data:
                    return
            if not cycle.response_complete:
                self._later += data
                self.flow.pause_reading()
                return
        request = plain_request(data) if self._is_idle() else None
        if request is None:
            super().data_received(data)
        else:
            self._unset_keepalive_if_required()
            self._begin(request, data)

    def _is_idle(self) -> bool:
        """Whether h11 waits for the head of a request and has seen nothing of it."""
        conn = self.conn
        return (
            conn.their_state is h11.IDLE
            and conn.our_state is h11.IDLE
            and not conn.trailing_data[0]
            and (self.cycle is None or self.cycle.response_complete)
        )

    def _begin(self, request: PlainRequest, data: bytes) -> None:
        raw_path, _, query = request.target.partition(b"?")
        path = raw_path.decode("ascii")
        self.headers = request.headers
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]  # set when the connection was made
            "method": request.method,
            "root_path": self.root_path,
            "path": self.root_path + (unquote(path) if "%" in path else path),
            "raw_path": self.root_path.encode("ascii") + raw_path,
            "query_string": query,
            "headers": request.headers,
            "state": self.app_state.copy(),
        }
        app: Any = self.app
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            app = service_unavailable
            self.logger.warning("Exceeded concurrency limit.")
        self.cycle = cycle = _PlainCycle(self)
        self._raw = bytearray(data[: request.head_bytes])
        self._missing = request.length
        rest = self._more_of(cycle, data[request.head_bytes :])
        if rest:
            self._later = rest
            self.flow.pause_reading()
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _more_of(self, cycle: _PlainCycle, data: bytes) -> bytes:
        """Take what belongs to the body; the rest."""
        part = data[: self._missing]
        self._missing -= len(part)
        if not cycle.response_complete:
            cycle.body += part
            self._raw += part
        if not self._missing:
            cycle.more_body = False
            cycle.message_event.set()
        return data[len(part) :]

    def tell_h11(self, cycle: _PlainCycle) -> None:
        """Let h11 go on from where the plain request is: it knows how to frame any answer."""
        cycle.by_h11 = True
        self.conn.receive_data(bytes(self._raw) + self._later)
        self._raw, self._later, self._missing = bytearray(), b"", 0
        while type(self.conn.next_event()) in (h11.Request, h11.Data):
            pass  # the application has these already

    def on_response_complete(self) -> None:
        """An answer has left; go on with what came behind its request."""
        super().on_response_complete()
        self._raw = bytearray()
        if self._later and not self.transport.is_closing():
            data, self._later = self._later, b""
            self.data_received(data)


class _PlainCycle(RequestResponseCycle):
    """A plain request and its answer; ``by_h11``: the answer is not plain."""

    def __init__(self, protocol: PlainProtocol) -> None:
        super().__init__(
            scope=protocol.scope,
            conn=protocol.conn,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=protocol.on_response_complete,
        )
        self.by_h11 = False
        self._protocol = protocol
        self._start: Any = None

    async def send(self, message: Any) -> None:
        """A message of the application; the head waits for the body, so that they leave together."""
        if self.by_h11:
            await super().send(message)
        elif self._start is None:
            if message["type"] == "http.response.start" and _has_length(message):
                self._start = message
                self.response_started = True
            else:
                await self._by_h11(message)
        elif self.response_complete or message["type"] != "http.response.body" or message.get("more_body"):
            await self._by_h11(message)
        else:
            await self._answer(self._start, message.get("body", b""))

    async def _answer(self, start: Any, body: bytes) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        headers = [*self.default_headers, *start["headers"]]
        status: int = start["status"]
        lines = [b"HTTP/1.1 %d %b\r\n" % (status, STATUS_PHRASES[status])]
        lines += [b"%b: %b\r\n" % header for header in headers]
        head = b"".join(lines) + b"\r\n"
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
            raise RuntimeError("a header of an answer cannot be sent")
        if next(int(v) for k, v in headers if k.lower() == b"content-length") != len(body):
            raise RuntimeError("an answer is not as long as it says")
        self.transport.write(head + body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def _by_h11(self, message: Any) -> None:
        """As h11 does it, which begins with the head that was held back."""
        if self.response_complete:
            raise RuntimeError("an answer goes on after its end")
        self._protocol.tell_h11(self)
        self.response_started = False
        if self._start is not None:
            await super().send(self._start)
        await super().send(message)


def _has_length(start: Any) -> bool:
    """Whether an answer says its length, once, and nothing of how it or the connection goes on."""
    names = [name.lower() for name, _ in start.get("headers", ())]
    return (
        names.count(b"content-length") == 1
        and b"transfer-encoding" not in names
        and b"connection" not in names
        and start["status"] >= 200
        and start["status"] not in _BODILESS
    )
