"""A bounded pool of threads for the engine's blocking operations, shared fairly between callers.

Each caller has a queue of its own and the queues take turns, so that somebody who sends much waits behind
himself alone. No caller has more than three quarters of the threads, and none fills the whole queue.
Who a caller is, is set for the task that serves a request (``CALLER``): the tenant of the credential, or its
holder where it has none (``Session.share``), on all surfaces alike.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from strongroom.errors import ClosedError, LimitExceededError, thread_started

T = TypeVar("T")
_WAITING_PER_THREAD = 64
_CALLER_SHARE = 0.75  # of the threads, and of the places in the queue

CALLER: ContextVar[bytes] = ContextVar("strongroom_caller", default=b"")


class _Waiter:
    """Where a task of an event loop waits for a result: a ``Future`` without what nobody uses here."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()

    async def result(self) -> Any:
        return await self._future

    def set_running_or_notify_cancel(self) -> bool:
        return not self._future.done()  # from the pool's thread: that it was cancelled just now does no harm

    def set_result(self, result: Any) -> None:
        self._tell(self._future.set_result, result)

    def set_exception(self, error: BaseException) -> None:
        self._tell(self._future.set_exception, error)

    def cancel(self) -> None:
        self._tell(lambda _: self._future.cancel(), None)

    def _tell(self, what: Callable[[Any], object], value: object) -> None:
        def tell() -> None:
            if not self._future.done():
                what(value)

        with suppress(RuntimeError):  # the loop was closed: nobody waits
            self._loop.call_soon_threadsafe(tell)


_Job = tuple["Future[Any] | _Waiter", Callable[[], Any]]


class WorkerPool:
    """Runs operations in ``threads_max`` threads; refuses work when too much is waiting already."""

    def __init__(self, threads_max: int, name: str) -> None:
        self._threads_max = max(1, threads_max)
        self._name = name
        self._running_max = max(1, int(self._threads_max * _CALLER_SHARE))  # of one caller
        self._waiting_max = self._threads_max * _WAITING_PER_THREAD
        self._mutex = threading.Lock()
        self._ended = threading.Condition(self._mutex)
        self._queues: OrderedDict[bytes, deque[_Job]] = OrderedDict()  # whose turn it is comes first
        self._running: dict[bytes, int] = {}
        self._busy = 0  # places that are taken, also by threads that are not of the pool
        self._waiting = 0
        self._asleep: list[threading.Lock] = []  # idle threads, each behind its own; the last one is woken
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, made in a thread of the pool.

        Raises:
            LimitExceededError: too much is waiting. ClosedError: the pool was closed.
        """
        waiter = _Waiter()
        self._submit(CALLER.get(), waiter, work)
        result: T = await waiter.result()
        return result

    def run_here(self, work: Callable[[], T]) -> T:
        """The result of ``work``, for a thread that can wait: made there when a place is free, as if it were
        one of the pool's; else by the pool, in turn.

        Raises:
            LimitExceededError, ClosedError, as ``run``; and what ``work`` raises.
        """
        caller = CALLER.get()
        with self._mutex:
            if self._closed:
                raise ClosedError
            here = not self._waiting and self._may_run(caller)
            if here:
                self._begin(caller)
        if not here:
            try:
                future: Future[T] = Future()
                self._submit(caller, future, work)
                return future.result()
            except CancelledError:
                raise ClosedError from None
        try:
            return work()
        finally:
            with self._mutex:
                self._end(caller)
                if self._waiting:
                    self._wake()

    def _submit(self, caller: bytes, future: Future[Any] | _Waiter, work: Callable[[], object]) -> None:
        with self._mutex:
            if self._closed:
                raise ClosedError
            queue = self._queues.get(caller, ())
            if self._waiting >= self._waiting_max or len(queue) >= self._waiting_max * _CALLER_SHARE:
                raise LimitExceededError("the server is busy", hint="repeat the request shortly")
            self._queues.setdefault(caller, deque()).append((future, work))
            self._waiting += 1
            if not self._wake() and len(self._threads) < self._threads_max:
                number = len(self._threads)
                thread = threading.Thread(target=self._serve, name=f"{self._name}_{number}", daemon=True)
                if thread_started(thread):
                    self._threads.append(thread)
                elif not self._threads:  # nobody would ever come for it
                    self._drop_last(caller)
                    raise LimitExceededError("the server is busy", hint="repeat the request shortly")

    # The five below are called with the lock held.
    def _wake(self) -> bool:
        """Wake the idle thread that has worked last: what it needs is still near its processor. False: none
        is idle."""
        if not self._asleep:
            return False
        self._asleep.pop().release()
        return True

    def _drop_last(self, caller: bytes) -> None:
        """Take back what a caller has sent last."""
        self._queues[caller].pop()
        self._waiting -= 1
        if not self._queues[caller]:
            del self._queues[caller]

    def _may_run(self, caller: bytes) -> bool:
        return self._busy < self._threads_max and self._running.get(caller, 0) < self._running_max

    def _begin(self, caller: bytes) -> None:
        self._busy += 1
        self._running[caller] = self._running.get(caller, 0) + 1

    def _end(self, caller: bytes) -> None:
        self._busy -= 1
        left = self._running[caller] - 1
        if left:
            self._running[caller] = left
        else:
            del self._running[caller]
        if self._closed:
            self._ended.notify_all()

    def _serve(self) -> None:
        """One thread: take the next job in turn, for ever."""
        while True:
            taken = self._next()
            if taken is None:
                return
            caller, (future, work) = taken
            _carry_out(future, work)
            del future, work, taken  # a waiting thread keeps nothing alive
            with self._mutex:
                self._end(caller)  # it looks itself for what may begin now

    def _next(self) -> tuple[bytes, _Job] | None:
        """The first job of the caller whose turn it is; None: the pool was closed."""
        gate = threading.Lock()
        gate.acquire()
        with self._mutex:
            while True:
                for caller, queue in self._queues.items():
                    if self._may_run(caller):
                        job = queue.popleft()
                        self._waiting -= 1
                        if queue:
                            self._queues.move_to_end(caller)
                        else:
                            del self._queues[caller]
                        self._begin(caller)
                        return caller, job
                if self._closed:
                    return None
                self._asleep.append(gate)
                self._mutex.release()
                try:
                    gate.acquire()
                finally:
                    self._mutex.acquire()

    def close(self) -> None:
        """Wait for what is running; what waits is cancelled, and nothing new is taken."""
        with self._mutex:
            self._closed = True
            dropped = [job for queue in self._queues.values() for job in queue]
            self._queues.clear()
            self._waiting = 0
            while self._wake():
                pass
        for future, _ in dropped:
            future.cancel()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        with self._ended:
            while self._busy:
                self._ended.wait()


def _carry_out(future: Future[Any] | _Waiter, work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as e:  # noqa: BLE001 - it belongs to whoever waits for the future
        future.set_exception(e)
    else:
        future.set_result(result)
