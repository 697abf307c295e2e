"""Two small tools for threads: many readers or one writer, and one piece of background work at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from weakref import ref

from strongroom.errors import failure_of, thread_started

_LOOK_AGAIN_S = 0.5
_log = logging.getLogger(__name__)


class _Hold:
    """One entry into a lock, made anew for each ``with``."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self, lock: ReadWriteLock) -> None:
        self._lock = lock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.give_up(self)


class _Reading(_Hold):
    __slots__ = ()

    def __enter__(self) -> None:
        self._lock.enter_read(self)


class _Writing(_Hold):
    __slots__ = ()

    def __enter__(self) -> None:
        self._lock.enter_write(self)


class _Holds(set["ref[_Hold]"]):
    """Entries that are alive; one that goes without a word is taken out by native code, in one step."""

    def enter(self, hold: _Hold) -> None:
        self.add(ref(hold, self.discard))

    def leave(self, hold: _Hold) -> None:
        self.discard(ref(hold))


class ReadWriteLock:
    """Any number of readers, or one writer: ``with lock.read:``, ``with lock.write:``. A waiting writer
    goes before new readers.

    Not reentrant on either side. A thread that takes the read side of several locks must take them
    in one order that all threads share.

    Ctrl-C may strike between any two steps, also between entering and the first line inside. Nothing stays
    held then: an entry counts only as long as its object lives, and whoever waits looks again by itself.
    """

    __slots__ = ("_changed", "_mutex", "_reading", "_waiting", "_writing")

    def __init__(self) -> None:
        # Taken by itself and not through the condition, whose Python code an interrupt could leave with the
        # mutex taken.
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._reading = _Holds()
        self._waiting = _Holds()
        self._writing = _Holds()  # at most one

    @property
    def read(self) -> _Reading:
        return _Reading(self)

    @property
    def write(self) -> _Writing:
        return _Writing(self)

    def enter_read(self, hold: _Hold) -> None:
        with self._mutex:
            while self._writing or self._waiting:
                self._changed.wait(_LOOK_AGAIN_S)
            self._reading.enter(hold)

    def enter_write(self, hold: _Hold) -> None:
        with self._mutex:
            self._waiting.enter(hold)
            while self._writing or self._reading:
                self._changed.wait(_LOOK_AGAIN_S)
            self._writing.enter(hold)
            self._waiting.leave(hold)

    def give_up(self, hold: _Hold) -> None:
        with self._mutex:
            self._reading.leave(hold)
            self._writing.leave(hold)
            self._changed.notify_all()


class BackgroundTask:
    """Runs one function at a time on a thread of its own; a start while it runs is dropped.

    The thread is no daemon: native code must not be cut off while the interpreter goes down. The
    function should look at ``stopping`` between its steps. What it raises is logged, by type.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """True once ``close`` was called."""
        return self._stopping

    @property
    def running(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self, work: Callable[[], None]) -> bool:
        """Run ``work`` in the background unless something runs already; True when it was started."""
        with self._lock:
            if self._stopping or self.running:
                return False
            thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=False)
            if not thread_started(thread):  # who asks again is heard
                return False
            self._thread = thread
            return True

    def _run(self, work: Callable[[], None]) -> None:
        failure = failure_of(work)
        if failure:
            _log.error("%s failed (%s)", self._name, failure)
        with self._lock:  # kept, it would take more memory than a small namespace may
            self._thread = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for what runs now; False when the time was up."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def close(self) -> None:
        """Refuse further starts and wait for what runs."""
        with self._lock:
            self._stopping = True
        self.wait()
