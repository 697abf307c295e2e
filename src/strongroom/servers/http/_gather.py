"""What leaves a connection in one turn of the event loop leaves it in one write, and a whole answer at once.

uvicorn writes the head of an answer and its body one after the other: two TLS records, two packets, and the
client is woken twice. Here they wait for the end of the answer, at most of the turn, so that an answer that
is there in one piece is one write. It does not wait for what the server has to do behind it: the client
reads it meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Gathering"]


class Gathering:
    """The transport below a protocol of uvicorn. Only ``write`` differs; nothing waits past the turn, a
    ``flush``, a close or a look at what is unsent."""

    __slots__ = ("_loop", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send ``data`` behind what waits."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append(data)

    def close(self) -> None:
        """Close when all is sent. May be called twice: asyncio's transport of TLS does not bear that."""
        self.flush()
        if not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what waits is dropped."""
        self._waiting.clear()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""
        self.flush()
        return self._transport.get_write_buffer_size()

    def flush(self) -> None:
        """Send what waits."""
        data, self._waiting = b"".join(self._waiting), []
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
