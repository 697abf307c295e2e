"""Stops queries that run for too long, or that their caller has given up.

The engine's own ``max_execution_time`` is looked at only between its tasks, and one task may scan a
whole namespace; an interrupt is seen after every batch of 2,048 rows. One that comes before the engine has
begun, or while it binds, is lost: so it is repeated until the query has ended.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from strongroom.errors import failure_of, require_thread

__all__ = ["Watchdog"]


class Interruptible(Protocol):
    def interrupt(self) -> None: ...


class Cancellable(Protocol):
    @property
    def cancelled(self) -> bool: ...


class Watchdog:
    """One thread for all queries; it sleeps while there are none, and a query costs it nothing else.

    ``limit_ms`` is the time that a query may take; 0 for no limit.
    """

    def __init__(self, limit_ms: int) -> None:
        self._limit_s = limit_ms / 1000
        self._period_s = max(0.02, min(0.25, self._limit_s / 4)) if self._limit_s else 0.25
        self._running: dict[Interruptible, tuple[float, Cancellable | None]] = {}
        self._wake = threading.Condition()
        self._asleep = False
        self._thread: threading.Thread | None = None
        self._stopped = False

    @contextmanager
    def watch(self, query: Interruptible, cancel: Cancellable | None = None) -> Iterator[None]:
        """Interrupt ``query`` when the block takes longer than the limit, or once it is cancelled."""
        if not self._limit_s and cancel is None:
            yield
            return
        try:  # from here on, so that no interrupt leaves a query in the table that is over
            with self._wake:
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._run, name="strongroom-watchdog", daemon=True)
                    require_thread(thread)
                    self._thread = thread
                self._running[query] = time.monotonic() + (self._limit_s or math.inf), cancel
                if self._asleep:
                    self._wake.notify()
            yield
        finally:
            with self._wake:  # once out of the table it cannot be interrupted any more
                self._running.pop(query, None)

    def stop(self) -> None:
        """End the thread, and interrupt what still runs."""
        with self._wake:
            self._stopped = True
            for query in self._running:
                failure_of(query.interrupt)
            self._wake.notify()

    def _run(self) -> None:
        with self._wake:
            while not self._stopped:
                self._asleep = not self._running
                self._wake.wait(None if self._asleep else self._period_s)
                self._interrupt_late()

    def _interrupt_late(self) -> None:  # apart from _run, whose frame would keep the last query alive
        now = time.monotonic()
        for query, (deadline, cancel) in self._running.items():
            if now >= deadline or (cancel is not None and cancel.cancelled):
                failure_of(query.interrupt)  # one that is over already must not end the thread for all others
