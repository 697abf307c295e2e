"""A store behind a server."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from strongroom.client import _wire
from strongroom.client._async._audit import AsyncAuditCalls
from strongroom.client._async._identity import AsyncIdentityCalls
from strongroom.client._async._keyring import AsyncKeyringCalls
from strongroom.client._async._line import AsyncLine
from strongroom.client._async._memories import AsyncMemoryCalls
from strongroom.client._async._rotation import AsyncRotationCalls
from strongroom.client._async._store import AsyncStoreCalls
from strongroom.client._tls import client_context

_CONNECT_S = 5.0


class AsyncRemoteRoom(
    AsyncMemoryCalls,
    AsyncStoreCalls,
    AsyncAuditCalls,
    AsyncIdentityCalls,
    AsyncRotationCalls,
    AsyncKeyringCalls,
):
    """A store behind a server, with the methods of an opened one. Close it, or use ``with``.

    All methods raise what an embedded store raises, and TransportError when the server cannot be
    reached or is not trusted. Calls that change nothing, and ``delete``, are repeated twice when the
    connection breaks; the others only when it could not be made, so that nothing is done twice.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._line.close()

    async def __aenter__(self) -> AsyncRemoteRoom:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def aconnect(
    url: str,
    *,
    api_key: str | None = None,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
    private_key: str | Path | None = None,
    timeout_s: float = 30.0,
    batch_items: int = 1000,
    purpose: str = "",
    reason: str = "",
) -> AsyncRemoteRoom:
    """A store behind a server.

    Args:
        url: ``https://host:port``; there is no other way than TLS 1.3.
        api_key: ``sr_live_...``; may be left out when ``certificate`` says who calls.
        ca: a PEM file of the authorities to trust; without it those of the system.
        certificate, private_key: PEM files of a client certificate to show.
        timeout_s: how long to wait for an answer, seconds.
        batch_items: how many memories ``store_many`` sends in one request.
        purpose, reason: said with every request, at most 256 printable characters each: policies may ask for
            them, and the audit log has them.

    Raises:
        ConfigurationError: the address is not https, or a file cannot be read. UnauthenticatedError: the
        key cannot be one, or there is neither key nor certificate. InvalidInputError: purpose or reason is
        out of its limits. Nothing is sent before the first call.
    """
    said = _wire.spoken(purpose, reason)
    address = _wire.base_url(url)
    context = client_context(ca, certificate, private_key)
    headers = [*_wire.authorization(api_key, certificate is not None), *said.items()]
    line = AsyncLine(address, context, headers, timeout_s, min(timeout_s, _CONNECT_S))
    return AsyncRemoteRoom(address, line, max(1, batch_items))
