"""A worker process of a load: ``python -c START IN OUT`` with the ``START`` of ``_load``.

It opens the store as any process does, with the configuration and the keys that are there, and keeps its
share of the chunks in the order of all. Plaintext comes to it over a pipe and leaves it sealed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from strongroom.engine import _load_wire as wire
from strongroom.engine._bulk import Given, OutOfTurnError, Share, load_share
from strongroom.engine._core import OWNER, Engine
from strongroom.engine.session import Session
from strongroom.errors import ClosedError, InternalError, StrongroomError, no_memory, require_thread
from strongroom.model import IN_PROCESS

_FLOWN: Final = None  # among the chunks: a commit has ended


class _Ring:
    """Whose turn it is: one byte goes round, from process to process, with each chunk that is durable."""

    def __init__(self, ring: tuple[int, int], *, is_first: bool) -> None:
        self._from, self._to = ring
        self._held = is_first

    def wait(self) -> None:
        if self._held:
            return
        try:
            self._held = bool(os.read(self._from, 1))
        except OSError:
            self._held = False
        if not self._held:
            raise OutOfTurnError

    def done(self) -> None:
        self._held = False
        try:
            os.write(self._to, b"\1")
        except OSError:  # the next one has ended; who waits behind it finds out by itself
            return


class _Chunks:
    """Reads one chunk ahead; what comes in between is that a commit has ended."""

    def __init__(self, pipe: int, settle: Callable[[], None]) -> None:
        self._pipe = pipe
        self._settle = settle
        self._events: SimpleQueue[wire.Frame | StrongroomError | None] = SimpleQueue()
        self._room = threading.Semaphore(1)
        require_thread(threading.Thread(target=self._read, name="strongroom-load-reader", daemon=True))

    def flown(self) -> None:
        self._events.put(_FLOWN)

    def _read(self) -> None:
        kind = wire.CHUNK
        while kind == wire.CHUNK:
            self._room.acquire()
            event = self._received()
            kind = event.kind if isinstance(event, wire.Frame) else wire.END
            self._events.put(event)

    def _received(self) -> wire.Frame | StrongroomError:
        try:
            return wire.receive(self._pipe, wire.CHUNK_BYTES_MAX)
        except wire.PipeBrokenError:
            return ClosedError("the process that loads has ended")
        except MemoryError:  # of a frame: whoever waits for it would wait for ever
            return no_memory()

    def __iter__(self) -> Iterator[Given]:
        while True:
            event = self._events.get()
            if event is _FLOWN:
                self._settle()
                continue
            self._room.release()
            if isinstance(event, StrongroomError):
                raise event
            frame = event
            if frame.kind == wire.END:
                return
            if frame.kind != wire.CHUNK:
                raise ClosedError("the process that loads has ended")
            items = wire.unpack_items(frame.body)
            frame.body[:] = bytes(len(frame.body))
            yield Given(frame.position, items, more=True)


def _work(order: wire.Order, source: int, answers: int, share: Share) -> None:
    """Open the store, and keep what comes.

    Raises:
        StrongroomError: as ``Session.load``.
    """
    engine = Engine.open(Path(order.directory), worker=False, logs_to_stderr=order.logs_to_stderr)
    try:
        context = IN_PROCESS.saying(order.purpose, order.reason)
        if order.key_id is None:
            session = Session(engine, lambda: OWNER, order.surface, order.request_id, context=context)
        else:
            session = engine.doors.by_standing(
                order.key_id, surface=order.surface, request_id=order.request_id, context=context
            )
        chunks = _Chunks(source, share.settle)
        share.flown = chunks.flown
        session._run("store", lambda call: load_share(call, iter(chunks), share))
    finally:
        engine.close()


def main() -> None:
    """Serve one load, and end the process, which is hardened already.

    Not by way of the interpreter: a thread that still waits for chunks holds what DuckDB then calls leaked,
    on the standard error of whoever loads.
    """
    try:
        _serve()
    finally:
        os._exit(0)


def _serve() -> None:
    source, answers = int(sys.argv[1]), int(sys.argv[2])
    _tell(answers, wire.READY)
    try:
        order = msgspec.msgpack.decode(wire.receive(source).body, type=wire.Order)
    except wire.PipeBrokenError:
        return
    share = Share(
        _Ring(order.ring, is_first=order.number == 0),
        lambda count: _tell(answers, wire.KEPT, count),
    )
    failure: StrongroomError
    try:
        _work(order, source, answers, share)
    except StrongroomError as e:
        failure = e
    except MemoryError:
        failure = no_memory()
    except Exception as e:  # noqa: BLE001 - else Python prints a traceback, with texts that could be content
        failure = InternalError(f"unexpected {type(e).__name__} in a worker of a load")
    else:
        _tell(answers, wire.DONE)
        return
    _tell(answers, wire.FAILED, share.position, msgspec.msgpack.encode(failure.as_dict()))


def _tell(answers: int, kind: int, position: int = 0, body: bytes = b"") -> None:
    try:
        wire.send(answers, kind, position, body)
    except wire.PipeBrokenError:  # nobody is there to hear it; the next read ends this process
        return
