"""Which of several processes on one directory picks up what nobody is embedding."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path


def _close_all(opened: list[int]) -> None:
    while opened:
        os.close(opened.pop())


class SweeperLock:
    """An advisory lock on a file (``flock``): one holder, released when its process ends, however.

    Called without arguments it tries to take the lock and tells whether it is held:
    ``EmbeddingPipeline(..., sweeper=SweeperLock(path))``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._mutex = threading.Lock()
        self._closed = False

    def __call__(self) -> bool:
        """True when this object holds the lock, now or already. A place that cannot be locked: False."""
        with self._mutex:
            if self._closed:
                return False
            if self._descriptor is not None:
                if self._is_current(self._descriptor):
                    return True
                self._let_go()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            opened: list[int] = []
            try:
                opened.extend(map(os.open, (self._path,), (flags,), (0o600,)))  # one step: see ``locks``
                fcntl.flock(opened[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                _close_all(opened)
                return False
            except BaseException:  # an interrupt: a descriptor that nobody knows of would hold it for ever
                _close_all(opened)
                raise
            self._descriptor = opened[0]
            return True

    def _is_current(self, descriptor: int) -> bool:
        """False when the file was replaced, so that another process may hold the new one."""
        try:
            there = self._path.lstat()
        except OSError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def release(self) -> None:
        """Give the role up. May be called twice."""
        with self._mutex:
            self._closed = True
            self._let_go()
