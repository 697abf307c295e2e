"""The connections to a server: kept, and each request on one as a single write.

httpcore keeps the connections; what httpx puts on top of it, cookies, redirects, authentication flows and
models of URLs and headers, is not needed for one server whose answers are known, and takes as long again.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from strongroom.errors import ConfigurationError, TransportError

__all__ = ["AsyncLine"]

_HELD_BYTES_MAX = 64 * 1024
_CONNECTIONS_MAX = 100
_KEPT_MAX = 20
_KEPT_S = 5.0


class AsyncJoined(httpcore.AsyncNetworkStream):
    """A stream whose small writes leave together, at the latest when an answer is waited for."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
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
        return AsyncJoined(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class AsyncJoining(httpcore.AsyncNetworkBackend):
    """Makes connections whose writes are joined."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return AsyncJoined(
            await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


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
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_CONNECTIONS_MAX,
            max_keepalive_connections=_KEPT_MAX,
            keepalive_expiry=_KEPT_S,
            network_backend=AsyncJoining(),
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

    async def send(self, request: httpcore.Request) -> httpcore.Response:
        """The answer, of which nothing has been read but the head. Close it.

        Raises: what httpcore raises.
        """
        return await self._pool.handle_async_request(request)

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        self._closed = True
        await self._pool.aclose()
