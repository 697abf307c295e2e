"""What the small servers of these tests share: faults on demand, and a request counter."""

from __future__ import annotations

import threading
from typing import Literal, Protocol

from strongroom.config import KeysConfig

Fault = Literal["throttle", "deny", "hang", "break", "damage"]


class Faults:
    """``set``: the next ``times`` requests fail (None: all). ``at``: only request number n, from now on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left: int | None = 0
        self._at: int | None = None
        self.requests = 0
        self.released = threading.Event()

    def set(self, fault: Fault, times: int | None = None) -> None:
        with self._lock:
            self._fault, self._left, self._at = fault, times, None
            self.released.clear()

    def at(self, n: int, fault: Fault) -> None:
        with self._lock:
            self._fault, self._at = fault, self.requests + n

    def clear(self) -> None:
        with self._lock:
            self._fault = self._at = None
            self.released.set()

    def next(self) -> Fault | None:
        """Called by a server once per request; waits here when it is to hang."""
        with self._lock:
            self.requests += 1
            fault = self._fault
            if self._at is not None:
                fault = fault if self.requests == self._at else None
            elif self._left is not None and fault is not None:
                self._left -= 1
                if self._left < 0:
                    fault = self._fault = None
        if fault == "hang":
            self.released.wait(5)
        return fault


class Service(Protocol):
    """A key management service of the tests. A key is what ``KeysConfig.key`` takes."""

    faults: Faults

    def config(self, key: str) -> KeysConfig: ...
    def new_key(self) -> str: ...
    def disable(self, key: str) -> None: ...
    def enable(self, key: str) -> None: ...
    def schedule_deletion(self, key: str) -> None: ...
    def cancel_deletion(self, key: str) -> None: ...
    def delete(self, key: str) -> None: ...
    def rotate(self, key: str) -> None: ...
    def stop(self) -> None: ...
