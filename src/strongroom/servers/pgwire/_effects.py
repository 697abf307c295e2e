"""What the protocol asks of whoever drives it. The protocol itself does no I/O: it is a generator of these.

The driver answers ``Receive`` with bytes (empty: the client is gone), ``Send`` and ``StartTls`` when they
are done, ``Work`` with the result of the function or by raising what it raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from strongroom.errors import StrongroomError
from strongroom.servers.pgwire._errors import PgError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Receive:
    """Some bytes of the client. ``idle``: nothing is under way, so the idle time limit counts."""

    idle: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Many messages were handled in one go: let others have the interpreter, and the caller's turn."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Shake hands; answered with ``TlsInfo``. ``first`` are bytes of the handshake already read."""

    first: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Work:
    """Run a blocking function elsewhere. ``time_limit_ms``: cancel it after that; 0: no limit.

    ``encodes``: it does nothing but write rows down, which keeps the interpreter busy.
    """

    run: Callable[[], Any]
    time_limit_ms: int = 0
    encodes: bool = False


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """``certificate``: of the client, DER, verified. ``alpn``: the protocol both agreed on.

    ``group``: of the key exchange; empty when the runtime cannot tell.
    """

    version: str
    alpn: str | None
    certificate: bytes | None = field(default=None, repr=False)
    group: str = ""


Effect = Receive | Send | Pause | StartTls | Work
Steps = Generator[Effect, Any, T]


class IdleTimeoutError(Exception):
    """Raised into the protocol at a ``Receive``: the client said nothing for too long."""


class ShutdownError(Exception):
    """Raised into the protocol at a ``Receive``: the server stops."""


async def drive(steps: Steps[T], carry_out: Callable[[Effect], Awaitable[Any]]) -> T:
    """Run a conversation to its end; its result.

    Errors that are its business are raised into it where it stands, others end it.
    """
    answer: Any = None
    error: Exception | None = None
    try:
        while True:
            effect = steps.send(answer) if error is None else steps.throw(error)
            answer, error = None, None
            try:
                answer = await carry_out(effect)
            except (PgError, StrongroomError, IdleTimeoutError, ShutdownError) as e:
                error = e
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        steps.close()


def drive_here(steps: Steps[T], carry_out: Callable[[Effect], Any]) -> T:
    """``drive`` on a thread that waits, with effects that are carried out by blocking calls."""

    async def carried_out(effect: Effect) -> Any:
        return carry_out(effect)

    try:
        drive(steps, carried_out).send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("nothing was awaited")
