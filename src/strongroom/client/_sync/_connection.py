# Generated from _async/_connection.py by script/generate_sync.py; do not edit.
"""One connection to a server: requests in one write, and answers of the everyday form read by one expression.

httpcore's pool says which connection serves which request; its own connections ask h11 for every event,
which takes several times as long as what is done here. An answer that is not plainly of one piece, whole
head, a length, on a kept connection, goes to h11 from the same bytes.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock
from typing import Any, Final

import h11
import httpcore

__all__ = ["Connection"]

_READ_BYTES: Final = 64 * 1024
_HEAD_BYTES_MAX: Final = 100 * 1024
_JOINED_BYTES_MAX: Final = 64 * 1024
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) [ -~]*\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: ?[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*\r\n)+)\r\n"
)
_FIELD: Final = re.compile(rb"([^:]+): ?([^\r]+)\r\n")
_TARGET: Final = re.compile(rb"/[!-~]*")
_SPECIAL: Final = frozenset({b"content-length", b"connection", b"transfer-encoding"})
_BODILESS: Final = frozenset({204, 304})

Headers = list[tuple[bytes, bytes]]


def plain_answer(data: bytes) -> tuple[int, Headers, int, int] | None:
    """Status, headers, length of the body and of the head, of an answer of the everyday form."""
    found = _HEAD.match(data)
    if found is None:
        return None
    headers = _FIELD.findall(found[2])
    lengths = [value for name, value in headers if name.lower() in _SPECIAL]  # any other of them: not plain
    if len(lengths) != 1 or not re.fullmatch(rb"[0-9]{1,15}", lengths[0]) or int(found[1]) in _BODILESS:
        return None
    return int(found[1]), headers, int(lengths[0]), found.end()


class Connection(httpcore.ConnectionInterface):
    """A connection of a pool, made at its first request. ``kept_s``: how long it is kept idle."""

    def __init__(
        self,
        origin: httpcore.Origin,
        context: ssl.SSLContext,
        backend: httpcore.NetworkBackend,
        kept_s: float,
    ) -> None:
        self._origin = origin
        self._context = context
        self._backend = backend
        self._kept_s = kept_s
        self._until = 0.0  # monotonic
        self._stream: httpcore.NetworkStream | None = None
        self._lock = Lock()
        self._state = "new"  # then active, idle, closed

    # -- what the pool asks -----------------------------------------------------------------------------
    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return self._state == "idle"

    def is_idle(self) -> bool:
        return self._state == "idle"

    def is_closed(self) -> bool:
        return self._state == "closed"

    def has_expired(self) -> bool:
        if self._state != "idle" or self._stream is None:
            return False
        # what can be read now is the end of the connection, or was not asked for
        return time.monotonic() > self._until or bool(self._stream.get_extra_info("is_readable"))

    def info(self) -> str:
        return self._state

    def close(self) -> None:
        self._state = "closed"
        if self._stream is not None:
            self._stream.close()

    # -- a request --------------------------------------------------------------------------------------
    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        with self._lock:
            if self._state not in ("new", "idle"):
                raise httpcore.ConnectionNotAvailable
            self._state = "active"
        try:
            return self._exchange(request)
        except BaseException:
            self.close()
            raise

    def _exchange(self, request: httpcore.Request) -> httpcore.Response:
        limits: dict[str, float] = request.extensions["timeout"]
        if self._stream is None:
            self._stream = self._connect(limits["connect"])
        body: bytes = request.extensions["body"]
        with suppress(httpcore.WriteError):  # perhaps the server has answered before it closed
            self._write(request_head(request), body, limits["write"])
        data = self._stream.read(_READ_BYTES, limits["read"])
        answer = plain_answer(data)
        if answer is None:
            return self._by_h11(request, body, data)
        status, headers, length, at = answer
        parts, left = [data[at:]], length - (len(data) - at)
        while left > 0:
            parts.append(self._stream.read(_READ_BYTES, limits["read"]))
            if not parts[-1]:
                raise httpcore.RemoteProtocolError("the connection ended before the answer")
            left -= len(parts[-1])
        content = b"".join(parts)[:length]
        self.done(is_kept=left == 0)  # more than that was not asked for
        return httpcore.Response(status, headers=headers, content=content)

    def _connect(self, limit_s: float) -> httpcore.NetworkStream:
        host = self._origin.host.decode("ascii")
        stream = self._backend.connect_tcp(host, self._origin.port, limit_s)
        try:
            return stream.start_tls(self._context, host, limit_s)
        except BaseException:
            stream.close()
            raise

    def _write(self, head: bytes, body: bytes, limit_s: float) -> None:
        stream = self._stream
        assert stream is not None
        if len(head) + len(body) <= _JOINED_BYTES_MAX:
            stream.write(head + body, limit_s)
        else:
            stream.write(head, limit_s)
            stream.write(body, limit_s)

    def _rest(self) -> None:
        self._until = time.monotonic() + self._kept_s
        self._state = "idle"

    # -- other answers ----------------------------------------------------------------------------------
    def _by_h11(self, request: httpcore.Request, body: bytes, data: bytes) -> httpcore.Response:
        conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)
        conn.send(h11.Request(method=request.method, target=request.url.target, headers=request.headers))
        if body:
            conn.send(h11.Data(data=body))
        conn.send(h11.EndOfMessage())
        answer = _Answer(self, conn, request.extensions["timeout"]["read"])
        answer.take(data)
        event = answer.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = answer.next_event()
        if not isinstance(event, h11.Response):
            raise httpcore.RemoteProtocolError("the answer has no head")
        return httpcore.Response(event.status_code, headers=event.headers.raw_items(), content=answer)

    def more(self, limit_s: float) -> bytes:
        """Further bytes of an answer; none: the connection has ended."""
        assert self._stream is not None
        return self._stream.read(_READ_BYTES, limit_s)

    def done(self, *, is_kept: bool) -> None:
        """An answer was read to its end, or given up."""
        if is_kept:
            self._rest()
        else:
            self.close()


class _Answer:
    """The body of an answer that h11 reads."""

    def __init__(self, connection: Connection, conn: Any, limit_s: float) -> None:
        self._connection = connection
        self._conn = conn
        self._limit_s = limit_s
        self._is_over = False

    def take(self, data: bytes) -> None:
        try:
            self._conn.receive_data(data)
        except h11.RemoteProtocolError as e:
            raise httpcore.RemoteProtocolError(str(e)) from None

    def next_event(self) -> Any:
        while True:
            try:
                event = self._conn.next_event()
            except h11.RemoteProtocolError as e:
                raise httpcore.RemoteProtocolError(str(e)) from None
            if event is not h11.NEED_DATA:
                return event
            self.take(self._connection.more(self._limit_s))

    def __iter__(self) -> Iterator[bytes]:
        try:
            while isinstance(event := self.next_event(), h11.Data):
                yield bytes(event.data)
            self._is_over = True
        except BaseException:
            self.close()
            raise
        kept = self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE
        self._connection.done(is_kept=kept and not self._conn.trailing_data[0])

    def close(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._connection.done(is_kept=False)


def request_head(request: httpcore.Request) -> bytes:
    """The head of a request.

    Raises:
        httpcore.LocalProtocolError: it would not be one.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method, request.url.target)]
    lines += [b"%b: %b\r\n" % header for header in request.headers]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise httpcore.LocalProtocolError("a header of the request cannot be sent")
    if _TARGET.fullmatch(request.url.target) is None:
        raise httpcore.LocalProtocolError("the path of the request cannot be sent")
    return head + b"\r\n"
