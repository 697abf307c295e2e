"""One turn for each caller, at work that keeps the interpreter busy.

Threads of one interpreter do not compute side by side. A caller that has many statements taken apart at once
gains nothing by it, and everybody else waits behind each of its threads in turn (5 ms, CPython's switch
interval): forty-five connections that parsed without pause kept others out for seconds. So such work is
done for one thread of a caller at a time.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

__all__ = ["Turns"]


class Turns:
    """Locks by caller, each kept for as long as somebody holds on to it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def of(self, caller: str) -> threading.Lock:
        """The turn of a caller."""
        with self._guard:
            lock = self._locks.get(caller)
            if lock is None:
                lock = self._locks[caller] = threading.Lock()
            return lock
