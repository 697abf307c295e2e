"""What is known of a TLS connection once it stands, and how it reaches the requests on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.errors import InvalidInputError
from strongroom.identity import PeerCertificate, read_peer
from strongroom.model import RequestContext
from strongroom.servers.http._backlog import Backlog
from strongroom.servers.http._patience import PatientProtocol
from strongroom.servers.tls import negotiated_group

__all__ = ["Connection", "connection_of", "connection_protocol", "context_of", "spoken_context_of"]

_STATE: Final = "connection"
_WORDS: Final = {b"strongroom-purpose": "purpose", b"strongroom-reason": "reason"}


@dataclass(frozen=True, slots=True)
class Connection:
    """``peer``: the verified certificate of the client; ``problem``: why it cannot be used, if it cannot."""

    peer: PeerCertificate | None = None
    group: str = ""
    problem: str = ""


NONE: Final = Connection()


class ConnectionProtocol(PatientProtocol):
    """HTTP/1.1 of uvicorn with limits on time; each request carries what is known of its connection."""

    seen: Callable[[Connection], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = _connection(transport.get_extra_info("ssl_object"))
        self.app_state = {**self.app_state, _STATE: connection}
        if self.seen is not None:
            self.seen(connection)


def connection_protocol(
    seen: Callable[[Connection], None],
    *,
    backlog: Backlog | None = None,
    dropped: Callable[[str], None] | None = None,
) -> type[ConnectionProtocol]:
    """The protocol class of a server that wants to see each connection, and to be told why one was closed."""
    told = None if dropped is None else staticmethod(dropped)
    own = {"seen": staticmethod(seen), "backlog": backlog, "dropped": told}
    return type("Connections", (ConnectionProtocol,), own)


def _connection(tls: Any) -> Connection:
    if tls is None:
        return NONE
    group = negotiated_group(tls) or ""
    der = tls.getpeercert(True)
    if der is None:
        return Connection(None, group)
    try:
        return Connection(read_peer(der), group)
    except InvalidInputError as e:
        return Connection(None, group, e.message)


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """The connection of a request."""
    found = scope.get("state", {}).get(_STATE, NONE)
    return found if isinstance(found, Connection) else NONE


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """How a request came in."""
    client = scope.get("client")
    return RequestContext(
        source_address=str(client[0]) if client else "", tls_group=connection_of(scope).group
    )


def spoken_context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """How a request came in, with what its headers ``Strongroom-Purpose`` and ``Strongroom-Reason`` say.

    Raises:
        InvalidInputError: one is given twice, is not UTF-8, or not at most 256 printable characters.
    """
    words: dict[str, str] = {}
    for header, value in scope["headers"]:
        name = _WORDS.get(header)
        if name is None:
            continue
        if name in words:
            raise InvalidInputError(f"the {name} of a request is given twice")
        try:
            words[name] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInputError(f"the {name} of a request is not UTF-8") from None
    context = context_of(scope)
    return context.saying(**words) if words else context
