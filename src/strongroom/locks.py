"""Work under a lock that one may not get, so that no interrupt leaves it taken.

``with lock:`` is safe: the interpreter looks for signals nowhere between taking the lock and entering the
block. Between ``lock.acquire(blocking=False)`` and ``try:`` it does look, and Ctrl-C there leaves the lock
taken for ever. So what was got is noted in the same step of native code that has got it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["work_under"]


class _Lock(Protocol):
    @property
    def acquire(self) -> Callable[..., bool]: ...
    def release(self) -> None: ...


def work_under(
    lock: _Lock, work: Callable[[], object], *, blocking: bool = False, timeout_s: float = -1
) -> bool:
    """Do ``work`` while holding ``lock``; False: it was not free (in time), and nothing was done."""
    taken: list[bool] = []
    try:
        taken.extend(map(lock.acquire, (blocking,), (timeout_s,)))
        if True in taken:
            work()
    finally:
        if True in taken:
            lock.release()
    return True in taken
