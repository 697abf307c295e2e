"""Work that goes on in the background, for which only those wait who need its outcome."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from strongroom.errors import InternalError, failure_of, thread_started

__all__ = ["Later"]

_log = logging.getLogger(__name__)


class Later:
    """At most one piece of work, and the changes that have to come after it. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._wanted = threading.Event()
        self._after: list[Callable[[], None]] = []
        self.failed = False

    def start(self, work: Callable[[], None], *, patience_s: float = 0.0) -> None:
        """Do ``work`` on a thread of its own; only once. It begins late by so much, unless somebody waits."""
        self._busy = True
        self._thread = threading.Thread(
            target=self._run, args=(work, patience_s), name=self._name, daemon=False
        )
        if not thread_started(self._thread):  # then now
            self._thread = None
            self._run(work, 0.0)

    def _run(self, work: Callable[[], None], patience_s: float) -> None:
        if patience_s:
            self._wanted.wait(patience_s)
        failure = failure_of(work)
        with self._lock:
            while self._after and not failure:
                failure = failure_of(self._after.pop(0))
            self.failed = bool(failure)  # whoever waits is told
            self._busy = False
        if failure:
            _log.error("work in the background failed (%s)", failure)

    def after(self, change: Callable[[], None]) -> None:
        """Make ``change`` now, or as soon as the work is done."""
        with self._lock:
            if self._busy:
                self._after.append(change)
                return
        change()

    def wait(self) -> None:
        """Return when nothing is going on.

        Raises:
            InternalError: the work failed.
        """
        if self._busy and self._thread is not None and self._thread is not threading.current_thread():
            self._wanted.set()
            self._thread.join()
        if self.failed:
            raise InternalError("the columns of a namespace could not be restored")
