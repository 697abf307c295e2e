"""What the protocol asks of whoever drives it. The protocol itself does no I/O: it is a generator of these.

The driver answers ``Receive`` with bytes (empty: the client is gone), ``Send`` and ``StartTls`` when they
are done, ``Work`` with the result of the function or by raising what it raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Receive:
    """Some bytes of the client. ``idle``: nothing is under way, so the idle time limit counts."""

    idle: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartTls:
    """Shake hands; answered with ``TlsInfo``. ``first`` are bytes of the handshake already read."""

    first: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Work:
    """Run a blocking function elsewhere. ``time_limit_ms``: cancel it after that; 0: no limit."""

    run: Callable[[], Any]
    time_limit_ms: int = 0


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """``certificate``: of the client, DER, verified. ``alpn``: the protocol both agreed on.

    ``group``: of the key exchange; empty when the runtime cannot tell.
    """

    version: str
    alpn: str | None
    certificate: bytes | None = field(default=None, repr=False)
    group: str = ""


Effect = Receive | Send | StartTls | Work
Steps = Generator[Effect, Any, T]


class IdleTimeoutError(Exception):
    """Raised into the protocol at a ``Receive``: the client said nothing for too long."""


class ShutdownError(Exception):
    """Raised into the protocol at a ``Receive``: the server stops."""
