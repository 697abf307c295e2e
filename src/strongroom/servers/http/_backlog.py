"""What all connections together may keep in memory: answers that nobody takes, bodies that are not whole.

Each connection is bounded by itself (``_patience``, ``[limits] request_bytes_max``); thousands of them by one
client would still fill the memory within the seconds that each is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from strongroom.errors import LimitExceededError

__all__ = ["Backlog", "Incoming", "Sender"]


class Sender(Protocol):
    """A connection with answers."""

    def unsent_bytes(self) -> int:
        """What its client has not taken yet."""

    def drop(self, reason: str) -> None:
        """Close it at once."""


class Backlog:
    """Answers on their way. Above ``bytes_max`` those go whose clients have taken longest, and the last one
    never. For one event loop."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: dict[Sender, int] = {}  # since when they have been waiting, the longest first
        self.bytes = 0

    def note(self, connection: Sender) -> None:
        """An answer was written, or taken."""
        self._set(connection, connection.unsent_bytes())
        if self.bytes <= self._bytes_max:
            return
        for other in list(self._waiting):  # many will have taken something since
            self._set(other, other.unsent_bytes())
        for other in list(self._waiting):
            if self.bytes <= self._bytes_max or len(self._waiting) == 1:
                return
            self.forget(other)
            other.drop("backlog")

    def forget(self, connection: Sender) -> None:
        """It is closed."""
        self._set(connection, 0)

    def _set(self, connection: Sender, unsent: int) -> None:
        self.bytes += unsent - self._waiting.get(connection, 0)
        if unsent:
            self._waiting[connection] = unsent
        else:
            self._waiting.pop(connection, None)


class Incoming:
    """Bodies that are being read, and requests that are worked on. One alone may always come in."""

    def __init__(self, bytes_max: int, refused: Callable[[], None] | None = None) -> None:
        self._bytes_max = bytes_max
        self._refused = refused
        self.bytes = 0

    def take(self, more: int, own: int) -> None:
        """Bytes of a request that holds ``own`` already.

        Raises:
            LimitExceededError: all together are too many.
        """
        if self.bytes > own and self.bytes + more > self._bytes_max:
            if self._refused is not None:
                self._refused()
            raise LimitExceededError("the server is busy", hint="repeat the request shortly")
        self.bytes += more

    def give_back(self, own: int) -> None:
        """A request has ended."""
        self.bytes -= own
