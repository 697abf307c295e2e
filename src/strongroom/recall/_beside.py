"""One piece of work beside the caller's own, on a thread that waits for it.

A search has two halves that do not need each other: the model's native code embeds the question without the
interpreter while another thread looks up keywords. There is one helper in a process: searches at the same
time keep all cores busy by themselves, and only one of them is helped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Beside(Generic[T]):
    """``with Beside(work) as other: ...; other.result()``: ``work`` runs during the block, if there is a free
    thread.

    It has ended when the block is left, however that happens. Work that no thread was free for runs in
    ``result``. What it raises, ``result`` raises.
    """

    __slots__ = ("_done", "_failure", "_given", "_result", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._done = threading.Lock()
        self._given = False
        self._result: T | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Beside[T]:
        self._given = _HELPER.take(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._given:
            self._wait()

    def result(self) -> T:
        """What ``work`` returned. May be asked for once."""
        if not self._given:
            return self._work()
        self._wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._result  # type: ignore[return-value]  # it has ended, and not by failing

    def _wait(self) -> None:
        """Wait for the end; an interrupt meanwhile is raised after it."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self._done:
                    break
            except BaseException as e:  # noqa: BLE001 - a signal's handler may raise anything
                interrupt = e
        if interrupt is not None:
            raise interrupt

    def start(self) -> None:
        """For the helper's side, before ``run``: the end can be waited for."""
        self._done.acquire()

    def run(self) -> threading.Lock:
        """Carry it out; for the helper, which releases what this returns."""
        try:
            self._result = self._work()
        except BaseException as e:  # noqa: BLE001 - it belongs to whoever asked
            self._failure = e
        return self._done


class _Helper:
    """A thread that carries out one piece of work at a time; started when it is first needed.

    It is a daemon, because it only ever waits when nobody waits for it. An interrupt that strikes ``take``
    may leave it taken for good: then every caller does its own work.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the thread: after a fork there is none."""
        self._free = threading.Lock()
        self._work: SimpleQueue[Beside[object]] = SimpleQueue()
        self._started = False
        self._alone = len(os.sched_getaffinity(0)) < 2  # with one core nothing is gained

    def take(self, work: Beside[T]) -> bool:
        """Whether it was free and will carry out ``work``."""
        if self._alone or not self._free.acquire(blocking=False):
            return False
        if not self._started:
            try:
                threading.Thread(target=self._run, name="strongroom-beside", daemon=True).start()
            except RuntimeError:  # no more threads: the caller does it
                self._free.release()
                return False
            self._started = True
        work.start()
        self._work.put(work)  # type: ignore[arg-type]  # what it returns is no matter here
        return True

    def _run(self) -> None:
        waiting, free = self._work, self._free
        while True:
            work = waiting.get()
            ended = work.run()
            del work  # a question must not stay here until the next one comes
            free.release()
            ended.release()


_HELPER = _Helper()
os.register_at_fork(after_in_child=_HELPER.reset)
