"""What a process holds of one namespace's index, and the changes that wait for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, Thread

from strongroom.engine._registry import NamespaceEntry
from strongroom.errors import thread_started
from strongroom.recall import Change, NamespaceIndex


class Slot:
    """One namespace: its index once loaded, what settings it was built with, and offered changes."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.index: NamespaceIndex | None = None
        self.built_for: tuple[int, str, bool, int] | None = None
        self.entry: NamespaceEntry | None = None  # that it was last asked for
        self.tampered = False  # found in the background: every question is refused
        self.pending: dict[int, Change] = {}  # filled without the lock: iterate over copies only
        self._thread: Thread | None = None

    def beside(self, work: Callable[[], None]) -> None:
        """Have a thread do this, unless it does so already, or the system gives none."""
        running = self._thread
        if running is None or not running.is_alive():
            thread = Thread(target=work, name="strongroom-take", daemon=False)
            self._thread = thread if thread_started(thread) else None

    def wait(self) -> None:
        """Until what is done beside has ended."""
        running = self._thread
        if running is not None:
            running.join()
