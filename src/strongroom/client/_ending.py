"""Closing what somebody has left who cannot wait for it: a call that was cancelled, or interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

__all__ = ["AsyncEndings", "Endings"]


class AsyncEndings:
    """Closes in tasks of its own: whoever is cancelled, once or many times, stops none of that."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    def begin(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have ``close`` called and waited for."""
        task = asyncio.ensure_future(_closed(close))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Wait until everything that was begun is closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    with suppress(Exception):  # of a connection that is broken: nobody uses it any more
        await close()


class Endings:
    """The same for the blocking client, at once."""

    def begin(self, close: Callable[[], None]) -> None:
        """Have ``close`` called."""
        with suppress(Exception):  # as above
            close()

    def ended(self) -> None:
        """Everything that was begun is closed."""
