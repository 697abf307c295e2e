"""Two small tools for threads: many readers or one writer, and one piece of background work at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class _Side:
    """One side of a lock as a context manager; stateless, so that threads can share it."""

    __slots__ = ("_enter", "_leave")

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._enter = enter
        self._leave = leave

    def __enter__(self) -> None:
        self._enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()


class ReadWriteLock:
    """Any number of readers, or one writer. A waiting writer goes before new readers.

    Not reentrant on either side. A thread that takes the read side of several locks must take them
    in one order that all threads share.
    """

    __slots__ = ("_changed", "_readers", "_waiting", "_writing", "read", "write")

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers = 0
        self._waiting = 0
        self._writing = False
        self.read = _Side(self._enter_read, self._leave_read)
        self.write = _Side(self._enter_write, self._leave_write)

    def _enter_read(self) -> None:
        with self._changed:
            while self._writing or self._waiting:
                self._changed.wait()
            self._readers += 1

    def _leave_read(self) -> None:
        with self._changed:
            self._readers -= 1
            if not self._readers:
                self._changed.notify_all()

    def _enter_write(self) -> None:
        with self._changed:
            self._waiting += 1
            try:
                while self._writing or self._readers:
                    self._changed.wait()
                self._writing = True
            finally:
                self._waiting -= 1
                if not self._writing:
                    self._changed.notify_all()

    def _leave_write(self) -> None:
        with self._changed:
            self._writing = False
            self._changed.notify_all()


class BackgroundTask:
    """Runs one function at a time on a thread of its own; a start while it runs is dropped.

    The thread is no daemon: native code must not be cut off while the interpreter goes down. The
    function should look at ``stopping`` between its steps.
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
            self._thread = threading.Thread(target=work, name=self._name, daemon=False)
            self._thread.start()
            return True

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
