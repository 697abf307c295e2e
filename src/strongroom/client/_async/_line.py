"""A server, the connections to it, and what is said with every request.

httpcore's pool keeps the connections; what httpx puts on top of it, cookies, redirects, authentication flows
and models of URLs and headers, is not needed for one server whose answers are known, and takes as long again.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore
import httpx

from strongroom.client._async._connection import AsyncConnection
from strongroom.errors import ConfigurationError, TransportError

__all__ = ["AsyncLine"]

_CONNECTIONS_MAX = 100
_KEPT_MAX = 20
_KEPT_S = 5.0


class AsyncPool(httpcore.AsyncConnectionPool):
    """Connections to one server."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(max_connections=_CONNECTIONS_MAX, max_keepalive_connections=_KEPT_MAX)
        context.set_alpn_protocols(["http/1.1"])
        self._context = context
        self._backend = httpcore.AnyIOBackend()

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return AsyncConnection(origin, self._context, self._backend, _KEPT_S)


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
        self._pool = AsyncPool(context)

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
            extensions={"timeout": timeout, "body": body or b""},
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
