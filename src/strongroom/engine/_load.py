"""load with worker processes (ADR 21).

The caller's process reads the items and hands them out in chunks, to each worker in its turn; workers check,
seal and commit. They commit in the order of the items, so what is stored is always a beginning of them,
whoever is killed and whenever.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from strongroom.engine import _load_wire as wire
from strongroom.engine._bulk import Given, Items, Kept, chunks_of, load
from strongroom.errors import (
    ContentTooLargeError,
    InvalidInputError,
    LimitExceededError,
    StrongroomError,
    WorkerLostError,
    from_dict,
)
from strongroom.model import Authentication
from strongroom.pages import overwrite

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._session_base import Operations

WORKERS_MAX: Final = 64
# Hardened before anything else: what the worker imports takes most of a second.
START: Final = (
    "from strongroom.pages import harden_process; harden_process(); "
    "from strongroom.engine._load_worker import main; main()"
)
_END_S: Final = 30.0


def load_by_workers(session: Operations, items: Items, workers: int, kept: Kept) -> int:
    """Keep what ``items`` yields; how many they were.

    Raises:
        As ``Session.load``.
    """
    try:
        chunks = chunks_of(items, "load")
        first = next(chunks)
    except StrongroomError as e:
        _refuse(session, e)
    if not first.more:
        return session._run("store", lambda call: load(call, iter([first]), kept))
    failure: StrongroomError | None = None
    with Crew(_order(session), workers, kept) as crew:
        try:
            crew.give(first)
            for given in chunks:
                crew.give(given)
        except CrewEndedError:
            pass
        except StrongroomError as e:  # the caller's own items
            failure = e
        crew.finish()
        if crew.failure is not None:  # a worker has met it, and has told the audit log
            raise crew.failure
        failure = crew.lost() or failure
    session._engine.models.wake()  # what waits to be embedded was queued by others
    if failure is not None:
        _refuse(session, failure)
    return crew.count


def _order(session: Operations) -> wire.Order:
    """Who loads, for processes that open the store by themselves.

    Raises:
        InvalidInputError: they could not. UnauthenticatedError: the credential was revoked or has expired.
    """
    from strongroom.engine._core import system_clock_us

    engine = session._engine
    engine.ensure_open()
    session.check_standing()
    principal = session._principal()
    if principal.authentication not in (Authentication.OWNER, Authentication.API_KEY):
        raise InvalidInputError(
            "workers load for the owner of a store or for an API key", hint="load without workers"
        )
    if getattr(sys, "frozen", False) or not sys.executable:
        raise InvalidInputError(
            "this program has no interpreter of its own that workers could be started with",
            hint="load without workers",
        )
    if not engine.models.are_configured or engine._clock_us is not system_clock_us:
        raise InvalidInputError(
            "the store was opened with a model or a clock that no other process has",
            hint="load without workers, or configure the model",
        )
    return wire.Order(
        directory=str(engine.directory.resolve()),
        number=0,
        key_id=None if principal.is_owner else principal.id,
        surface=session._surface,
        request_id=session._request_id or os.urandom(8).hex(),
        purpose=session.context.purpose,
        reason=session.context.reason,
        logs_to_stderr=engine.logs_to_stderr,
        ring=(-1, -1),
    )


def _refuse(session: Operations, error: StrongroomError) -> NoReturn:
    """Raise an error that only this process knows of, with an entry of the audit log."""

    def refused(_: Call) -> NoReturn:
        raise error

    session._run("store", refused)
    raise error


class CrewEndedError(Exception):
    """A worker takes no more chunks. ``Crew.finish`` finds out why."""


class _Worker:
    """One worker process, and this end of its pipes."""

    def __init__(self) -> None:
        self.chunks = self.answers = -1
        self.is_ready = self.is_done = False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, order: wire.Order) -> None:
        """Start the process. Where that is interrupted, ``close`` sees to what there is by then.

        Raises:
            LimitExceededError: the system gives no more files or processes.
        """
        (theirs, self.chunks), (self.answers, back) = _pipes(2)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(theirs), str(back)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs, back, *order.ring),
                start_new_session=True,  # Ctrl-C is for this process, which tells them
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError:
            raise LimitExceededError(
                "the system starts no more processes", hint="load with fewer workers, or with one"
            ) from None
        finally:
            os.close(theirs)
            os.close(back)
        try:
            wire.send(self.chunks, wire.ORDER, body=msgspec.msgpack.encode(order))
        except wire.PipeBrokenError:
            return  # it has ended already; whoever listens to it finds out

    def close(self) -> None:
        for end in (self.chunks, self.answers):
            with suppress(OSError):
                os.close(end)
        self.chunks = self.answers = -1

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def wait(self) -> None:
        """Until the process has ended, which it does by itself when its pipes are closed."""
        if self.process is None:
            return
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Crew:
    """The workers of one load; use in a ``with`` block, from one thread.

    ``count``: how many items are durable, from the first one on.
    """

    def __init__(self, order: wire.Order, workers: int, kept: Kept) -> None:
        self.count = 0
        self._kept = kept
        self._given = self._items = 0
        self._failures: list[tuple[int, StrongroomError]] = []
        self._ended = self._is_broken_off = False
        self._untold: StrongroomError | None = None
        self._workers: list[_Worker] = []
        ring = _pipes(workers)  # the one from each worker to the next
        try:
            for number in range(workers):
                ends = ring[number - 1][0], ring[number][1]
                worker = _Worker()
                self._workers.append(worker)
                worker.start(msgspec.structs.replace(order, number=number, ring=ends))
        except BaseException:
            self.close()
            raise
        finally:
            for end in (end for ends in ring for end in ends):
                os.close(end)

    def give(self, given: Given) -> None:
        """Hand a chunk to the worker whose turn it is; waits until that takes it.

        Raises:
            InvalidInputError: an item cannot be handed over. ContentTooLargeError: they are too large for
            that. CrewEndedError.
        """
        body = _packed(given)
        try:
            if len(body) > wire.CHUNK_BYTES_MAX:
                last = given.start + len(given.items) - 1
                raise ContentTooLargeError(
                    f"items {given.start} to {last}: {len(body)} bytes are more than can be handed over",
                    hint=f"at most {wire.CHUNK_BYTES_MAX} bytes; look for an item that is too large",
                )
            worker = self._workers[self._given % len(self._workers)]
            self._listen(wait=False)
            while not worker.is_ready and not self._ended:
                self._listen(wait=True)
            if self._ended:
                raise wire.PipeBrokenError
            wire.send(worker.chunks, wire.CHUNK, given.start, body)
        except wire.PipeBrokenError:
            self._is_broken_off = True
            raise CrewEndedError from None
        finally:
            overwrite(body)
        self._given += 1
        self._items += len(given.items)

    def finish(self) -> None:
        """Say that there is no more, and wait until every worker has ended."""
        for worker in self._workers:
            with suppress(wire.PipeBrokenError):
                wire.send(worker.chunks, wire.END)
        while any(worker.answers >= 0 for worker in self._workers):
            self._listen(wait=True)

    @property
    def failure(self) -> StrongroomError | None:
        """What a worker was refused, or could not do; the first of them in the order of the items."""
        return min(self._failures, key=lambda f: f[0])[1] if self._failures else None

    def lost(self) -> StrongroomError | None:
        """Told when nobody could be told how far it has come, a worker has ended without a word, or items are
        missing that nobody has refused."""
        if self._untold is not None:
            return self._untold
        is_whole = not self._is_broken_off and self.count == self._items
        if is_whole and all(worker.is_done for worker in self._workers):
            return None
        return WorkerLostError(
            f"a worker process of the load has ended; at least the first {self.count} items are stored",
            hint="what is stored is the beginning of the items: see how many there are, and load the rest",
        )

    def _listen(self, *, wait: bool) -> None:
        """Take in what workers have said."""
        by_pipe = {worker.answers: worker for worker in self._workers if worker.answers >= 0}
        listened_to = select.poll()  # ``select`` takes no descriptor from 1024 on
        for pipe in by_pipe:
            listened_to.register(pipe, select.POLLIN)
        while ready := listened_to.poll(None if wait else 0):
            for pipe, _ in ready:
                if not self._hear(by_pipe[pipe]):
                    listened_to.unregister(pipe)
                    del by_pipe[pipe]
            if wait or not by_pipe:
                return

    def _hear(self, worker: _Worker) -> bool:
        """Take in an answer; False: it was the last of this worker."""
        try:
            self._take_in(worker, wire.receive(worker.answers))
        except wire.NonsenseError:  # whatever it does, it does not keep to what was agreed
            worker.kill()
            self._ended = True
        except wire.PipeBrokenError:
            self._ended = True
        else:
            if not worker.is_done:
                return True
        worker.close()
        return False

    def _take_in(self, worker: _Worker, frame: wire.Frame) -> None:
        if frame.kind == wire.READY:
            worker.is_ready = True
        elif frame.kind == wire.KEPT:
            if frame.position > self._items:
                raise wire.NonsenseError
            if frame.position > self.count:
                self.count = frame.position
                self._tell_kept()
        elif frame.kind == wire.FAILED:
            try:
                told = msgspec.msgpack.decode(frame.body, type=dict[str, str])
            except ValueError:  # DecodeError is one, and what is no text
                raise wire.NonsenseError from None
            worker.is_done = self._ended = True
            self._failures.append((frame.position, from_dict(told)))
        elif frame.kind == wire.DONE:
            worker.is_done = self._ended = True
        else:
            raise wire.NonsenseError

    def _tell_kept(self) -> None:
        if self._untold is not None:
            return
        try:
            self._kept(self.count)
        except StrongroomError as e:  # no more chunks are handed out; those that were are waited for
            self._untold, self._ended = e, True

    def close(self) -> None:
        """See that no worker goes on: what has not begun to be committed is left."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.wait()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pipes(count: int) -> list[tuple[int, int]]:
    """So many pipes, or none.

    Raises:
        LimitExceededError: the system gives no more of them.
    """
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError:
        for end in (end for ends in made for end in ends):
            os.close(end)
        raise LimitExceededError(
            "the system opens no more files",
            hint="raise its limit (ulimit -n), load with fewer workers, or with one",
        ) from None
    return made


def _packed(given: Given) -> bytes:
    try:
        return wire.pack_items(given.items)
    except wire.CannotBeHandedError:
        pass
    for place, item in enumerate(given.items):
        try:
            overwrite(wire.pack_items([item]))
        except wire.CannotBeHandedError as e:
            raise InvalidInputError(
                f"item {given.start + place}: it holds a {e}, which no other process can be handed",
                hint="give plain values, or load without workers",
            ) from None
    raise InvalidInputError("the items changed while they were read")
