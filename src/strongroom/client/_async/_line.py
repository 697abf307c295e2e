"""The connections to a server: kept, and each request on one as a single write.

httpcore keeps the connections; what httpx puts on top of it, cookies, redirects, authentication flows and
models of URLs and headers, is not needed for one server whose answers are known, and takes as long again.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpcore
import httpx

from strongroom.client._ending import AsyncEndings
from strongroom.errors import ConfigurationError, TransportError

__all__ = ["AsyncLine"]

_HELD_BYTES_MAX = 64 * 1024
_CONNECTIONS_MAX = 100
_KEPT_MAX = 20
_KEPT_S = 5.0


class AsyncJoined(httpcore.AsyncNetworkStream):
    """A stream whose small writes leave together, at the latest when an answer is waited for."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, endings: AsyncEndings) -> None:
        self._stream = stream
        self._endings = endings
        self._held = b""
        self._timeout: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._timeout = timeout
        if len(self._held) + len(buffer) <= _HELD_BYTES_MAX:
            self._held += buffer
            return
        await self._leave()
        await self._stream.write(buffer, timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            with suppress(httpcore.WriteError):  # perhaps the server has answered before it closed
                await self._leave()
        return await self._stream.read(max_bytes, timeout)

    async def _leave(self) -> None:
        held, self._held = self._held, b""
        if held:
            await self._stream.write(held, self._timeout)

    async def aclose(self) -> None:
        self._held = b""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:  # httpcore closes it after an error, and not when the call was cancelled
            self._endings.begin(self._stream.aclose)
            raise
        return AsyncJoined(stream, self._endings)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class AsyncJoining(httpcore.AsyncNetworkBackend):
    """Makes connections whose writes are joined."""

    def __init__(self, endings: AsyncEndings) -> None:
        self._backend = httpcore.AnyIOBackend()
        self._endings = endings

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return AsyncJoined(stream, self._endings)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class AsyncKept(httpcore.AsyncConnectionPool):
    """Connections that are used again, of which none is lost when a call is cancelled.

    httpcore cleans up behind a call by awaiting, and a cancellation may come there too: then it keeps the
    connection, and counts it, for ever.
    """

    def __init__(self, endings: AsyncEndings, **settings: Any) -> None:
        super().__init__(**settings)
        self._endings = endings

    async def _close_connections(self, closing: list[httpcore.AsyncConnectionInterface]) -> None:
        for connection in closing:
            self._endings.begin(connection.aclose)

    def _assign_requests_to_connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """Called with every request that comes, goes or tries again: first of all, what no request uses and
        none can is taken out."""
        used = {id(r.connection) for r in self._requests}
        lost = [c for c in self._connections if id(c) not in used and not c.is_idle()]
        self._connections = [c for c in self._connections if c not in lost]
        return lost + super()._assign_requests_to_connections()

    async def leave(self, request: httpcore.Request) -> None:
        """Forget a request that has ended in an exception. It waits nowhere, so nothing can cancel it."""
        with self._optional_thread_lock:
            self._requests = [r for r in self._requests if r.request is not request]
            closing = self._assign_requests_to_connections()
        await self._close_connections(closing)


class AsyncLine:
    """A server's address, the connections to it, and what is said with every request.

    Args:
        url: without a slash at its end.
        timeout_s, connect_s: seconds to wait for an answer, and for a connection.

    Raises:
        ConfigurationError: the address cannot be one.
    """

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        headers: Iterable[tuple[bytes, bytes]],
        timeout_s: float,
        connect_s: float,
    ) -> None:
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL:
            raise ConfigurationError("the address of a server is https://host:port") from None
        self._host = address.raw_host
        self._port = address.port
        self._path = address.raw_path.rstrip(b"/")
        self._headers = [(b"host", address.netloc), (b"user-agent", b"strongroom"), *headers]
        self._timeout = {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        self._closed = False
        self._endings = AsyncEndings()
        self._pool = AsyncKept(
            self._endings,
            ssl_context=context,
            max_connections=_CONNECTIONS_MAX,
            max_keepalive_connections=_KEPT_MAX,
            keepalive_expiry=_KEPT_S,
            network_backend=AsyncJoining(self._endings),
        )

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        params: Mapping[str, Any] | None = None,
        accept: str = "",
        read_s: float = 0.0,
    ) -> httpcore.Request:
        """A request to be sent; ``read_s``: how long to wait for its answer, if not as always.

        Raises:
            TransportError: the connections are closed.
        """
        if self._closed:
            raise TransportError("the client was closed")
        target = self._path + path.encode("ascii")
        if params:
            target += b"?" + str(httpx.QueryParams(params)).encode("ascii")
        headers = [*self._headers, (b"accept", accept.encode("ascii") if accept else b"application/json")]
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        if body is not None or method not in ("GET", "DELETE"):
            headers.append((b"content-length", b"%d" % len(body or b"")))
        timeout = {**self._timeout, "read": read_s} if read_s else self._timeout
        return httpcore.Request(
            method,
            httpcore.URL(scheme=b"https", host=self._host, port=self._port, target=target),
            headers=headers,
            content=body or b"",
            extensions={"timeout": timeout},
        )

    @asynccontextmanager
    async def send(self, request: httpcore.Request) -> AsyncIterator[httpcore.Response]:
        """The answer, of which nothing has been read but the head; it is closed with the block.

        Raises: what httpcore raises.
        """
        try:
            response = await self._pool.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        except BaseException:  # cancellations first of all
            await self._pool.leave(request)
            raise

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        self._closed = True
        await self._pool.aclose()
        await self._endings.ended()
