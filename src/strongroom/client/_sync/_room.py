# Generated from _async/_room.py by script/generate_sync.py; do not edit.
"""A store behind a server."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from strongroom.client import _wire
from strongroom.client._sync._audit import AuditCalls
from strongroom.client._sync._identity import IdentityCalls
from strongroom.client._sync._keyring import KeyringCalls
from strongroom.client._sync._line import Line
from strongroom.client._sync._memories import MemoryCalls
from strongroom.client._sync._rotation import RotationCalls
from strongroom.client._sync._store import StoreCalls
from strongroom.client._tls import client_context

_CONNECT_S = 5.0


class RemoteRoom(
    MemoryCalls,
    StoreCalls,
    AuditCalls,
    IdentityCalls,
    RotationCalls,
    KeyringCalls,
):
    """A store behind a server, with the methods of an opened one. Close it, or use ``with``.

    All methods raise what an embedded store raises, and TransportError when the server cannot be
    reached or is not trusted. Calls that change nothing, and ``delete``, are repeated twice when the
    connection breaks; the others only when it could not be made, so that nothing is done twice.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._url}>"

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._line.close()

    def __enter__(self) -> RemoteRoom:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
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
) -> RemoteRoom:
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
    line = Line(address, context, headers, timeout_s, min(timeout_s, _CONNECT_S))
    return RemoteRoom(address, line, max(1, batch_items))
