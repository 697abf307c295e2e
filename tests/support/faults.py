"""A disk that fails at a chosen step: a file system layer for SQLite, and our own fsyncs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import apsw


class Countdown:
    """``left`` more steps go well, the rest fail until it is set anew; -1: none fails.

    ``full``: they fail as on a full disk.
    """

    def __init__(self) -> None:
        self.left = -1
        self.full = False

    def step(self) -> None:
        if self.left == 0:
            raise apsw.FullError("injected") if self.full else apsw.IOError("injected")
        if self.left > 0:
            self.left -= 1


class _FaultFile(apsw.VFSFile):
    def __init__(self, base: str, name: object, flags: list[int], countdown: Countdown) -> None:
        super().__init__(base, name, flags)  # type: ignore[arg-type]
        self._countdown = countdown

    def xWrite(self, data: bytes, offset: int) -> None:
        self._countdown.step()
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._countdown.step()
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._countdown.step()
        super().xTruncate(size)


class FaultVfs(apsw.VFS):
    """``for_all``: the one that every connection uses that names none."""

    def __init__(self, name: str, countdown: Countdown, *, for_all: bool = False) -> None:
        self._countdown = countdown
        self._base = apsw.vfs_names()[0]  # the default one until now
        super().__init__(name, base=self._base, makedefault=for_all)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # type: ignore[override]
        return _FaultFile(self._base, name, flags, self._countdown)


@contextmanager
def no_space_at_fsync(at: int) -> Iterator[None]:
    """``at`` calls of ``os.fsync`` go well in the ``with`` block; the ones after that find no space."""
    fsync, left = os.fsync, at

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "no space")
        fsync(descriptor)

    with mock.patch.object(os, "fsync", full):
        yield
