"""An answer that is written piece by piece by a thread, no faster than the client takes it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.responses import Response, StreamingResponse

from strongroom.errors import ClosedError
from strongroom.servers.http import WorkerPool

PIECE_CHARACTERS_MIN: Final = 64 * 1024
PIECES_MAX: Final = 4  # that wait for the client
_WAIT_S: Final = 0.5
STALL_S: Final = 60.0  # a client that takes nothing for so long is left


Writer = Callable[[Callable[[str], object]], object]


async def streamed(pool: WorkerPool, work: Writer, media: str) -> Response:
    """Run ``work(write)`` in a thread of ``pool`` and send what it writes.

    What ``work`` raises before its first piece is raised here; later the connection is broken off, so that
    the client sees that the answer is not whole.
    """
    pipe = _Pipe(asyncio.get_running_loop())
    task = asyncio.ensure_future(pool.run(lambda: pipe.fill(work)))
    task.add_done_callback(pipe.finished)
    try:
        first = await pipe.pieces.get()
    except asyncio.CancelledError:
        pipe.abandon()
        raise
    if first is None:
        await task

    async def body() -> AsyncIterator[bytes]:
        piece = first
        try:
            while piece is not None:
                yield piece.encode()
                pipe.taken()
                piece = await pipe.pieces.get()
            await task
        finally:
            pipe.abandon()

    return StreamingResponse(body(), media_type=media)


class _Pipe:
    """Pieces of text on their way from a thread to the event loop; None is the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = loop
        self._room = threading.Semaphore(PIECES_MAX)
        self._abandoned = threading.Event()
        self._parts: list[str] = []
        self._length = 0

    def fill(self, work: Writer) -> None:
        work(self._write)
        self._flush()

    def _write(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        if self._length >= PIECE_CHARACTERS_MIN:
            self._flush()

    def _flush(self) -> None:
        if not self._parts:
            return
        piece = "".join(self._parts)
        self._parts, self._length = [], 0
        waited = 0.0
        while not self._room.acquire(timeout=_WAIT_S):
            waited += _WAIT_S
            if self._abandoned.is_set() or waited >= STALL_S:
                raise ClosedError("nobody takes the answer any more")
        self._send(piece)

    def _send(self, piece: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self.pieces.put_nowait, piece)
        except RuntimeError:
            raise ClosedError("the server has stopped") from None

    def finished(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever waits for the pieces raises it
        self.pieces.put_nowait(None)

    def taken(self) -> None:
        self._room.release()

    def abandon(self) -> None:
        self._abandoned.set()
