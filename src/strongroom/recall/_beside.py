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
from typing import Final, Generic, TypeVar

from strongroom.errors import thread_started

T = TypeVar("T")
_CALLER: Final = "caller"
_THREAD: Final = "helper"


class Beside(Generic[T]):
    """``with Beside(work) as other: ...; other.result()``: ``work`` runs during the block, if there is a free
    thread.

    It has ended when the block is left, however that happens. Work that no thread has begun by then runs in
    ``result``. What it raises, ``result`` raises.

    Caller and helper both claim it, and whoever comes first carries it out. To claim it is one step that
    no interrupt divides, and to do so again changes nothing.
    """

    __slots__ = ("_claims", "_ended", "_failure", "_result", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._claims: dict[str, str] = {}
        self._ended = threading.Lock()
        self._ended.acquire()  # the helper releases it
        self._result: T | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Beside[T]:
        try:
            _HELPER.offer(self)
        except BaseException:  # an interrupt: it was perhaps offered already
            self._withdraw()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._withdraw()

    @property
    def has_ended(self) -> bool:
        """Whether another thread has carried it out: ``result`` need not wait."""
        return self._claims.get("") is _THREAD and not self._ended.locked()

    def result(self) -> T:
        """What ``work`` returned. May be asked for once."""
        if self._claim(_CALLER):
            return self._work()
        self._wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._result  # type: ignore[return-value]  # it has ended, and not by failing

    def _claim(self, who: str) -> bool:
        return self._claims.setdefault("", who) is who

    def _withdraw(self) -> None:
        """Let nobody begin it any more, and wait for the end of what was begun."""
        if not self._claim(_CALLER):
            self._wait()

    def _wait(self) -> None:
        """Wait for the end; an interrupt meanwhile is raised after it."""
        interrupt: BaseException | None = None
        while True:
            try:
                with self._ended:
                    break
            except BaseException as e:  # noqa: BLE001 - a signal's handler may raise anything
                interrupt = e
        if interrupt is not None:
            raise interrupt

    def run(self) -> threading.Lock | None:
        """Carry it out, for the helper, which releases what this returns; None: the caller does it."""
        if not self._claim(_THREAD):
            return None
        try:
            self._result = self._work()
        except BaseException as e:  # noqa: BLE001 - it belongs to whoever asked
            self._failure = e
        return self._ended


class _Helper:
    """A thread that carries out one piece of work at a time; started when it is first needed.

    It is a daemon, because it only ever waits when nobody waits for it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the thread: after a fork there is none."""
        self._starting = threading.Lock()
        self._offered: SimpleQueue[Beside[object]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._alone = len(os.sched_getaffinity(0)) < 2  # with one core nothing is gained

    def offer(self, work: Beside[T]) -> bool:
        """Whether there is a thread that will carry out ``work``, unless its caller does so first."""
        if self._alone or not self._is_there():
            return False
        self._offered.put(work)  # type: ignore[arg-type]  # what it returns is no matter here
        return True

    def _is_there(self) -> bool:
        thread = self._thread
        if thread is not None and thread.is_alive():
            return True
        with self._starting:
            thread = self._thread
            if thread is None or not thread.is_alive():  # none yet, or an interrupt came before its start
                self._thread = threading.Thread(target=self._run, name="strongroom-beside", daemon=True)
                return thread_started(self._thread)  # else the caller does it
        return True

    def _run(self) -> None:
        offered = self._offered
        while True:
            work = offered.get()
            ended = work.run()
            del work  # a question must not stay here until the next one comes
            if ended is not None:
                ended.release()


_HELPER = _Helper()
os.register_at_fork(after_in_child=_HELPER.reset)
