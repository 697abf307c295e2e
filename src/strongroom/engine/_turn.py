"""Turns among processes: of several that are about to make the same thing one makes it, the others find it.

It saves work and what a loser would leave behind. Nothing rests on it: the ledger decides who was first.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WAIT_S = 5.0
_PAUSE_S: Final = 0.002
_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, pid
_PLACES = 1 << 62


@contextmanager
def turn(path: Path, place: bytes) -> Iterator[None]:
    """Wait until nobody else is at this ``place`` (at least 8 bytes), at most ``WAIT_S``; then go on anyway.

    One byte of the file ``path`` is locked, for this open file alone (an open file description lock), and is
    free again when the process ends, however.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # a full disk, no more files: whoever comes second finds out when it commits
        yield
        return
    try:
        _lock(descriptor, int.from_bytes(place[:8]) % _PLACES, time.monotonic() + WAIT_S)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, at: int, deadline: float) -> None:
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(_PAUSE_S)
        except OSError:  # a file system without such locks
            return
        else:
            return
