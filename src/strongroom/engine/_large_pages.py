"""The process's memory in pages of 2 MiB, where the system lets a program ask for them (Linux 6.1 and later).

A search at a million memories reads some thousand places all over two gigabytes: lists, postings, the
weights of the model, objects. In pages of 4 KiB the processor looks up the place of nearly each of them in
tables that are in no cache either. ``madvise(MADV_COLLAPSE)`` moves the pages of a block of 2 MiB together,
at once, and asks for nothing that was not there: only blocks are taken of which most pages are there.

It is done beside the work, a few milliseconds at a time, once an index of some size is loaded and again when
much has changed. What cannot be had is left as it is. An operator's ``never``
(/sys/kernel/mm/transparent_hugepage/enabled) is kept to. The pages of keys (``strongroom.pages``) lie in
regions of their own, smaller than a block, and stay where they are. A process that overwrites what it frees
(``scrubs_freed_memory``) does nothing of this: the page that something was moved from is not its own any
more, to be overwritten.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic, perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import thread_started
from strongroom.pages import scrubs_freed_memory

BLOCK_BYTES: Final = 2 << 20
INDEX_BYTES_MIN: Final = 64 << 20  # of all loaded indexes; less is in the caches anyway
CHANGED_SHARE: Final = 1 / 8  # of these bytes that makes another round worth while ...
ROUND_S: Final = 600.0  # ... or so much time
THERE_MIN: Final = 3 / 4  # of the pages of a block that are there: it must not cost memory
FAILURES_MAX: Final = 64  # one after the other, when memory lies in small pieces: the round ends
RESTS: Final = 40  # times as long as the work took: whoever touches a block meanwhile waits
_MADV_COLLAPSE: Final = 25
_SWITCH: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS: Final = Path("/proc/self/maps")
_OWN: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ 00:00 0\s*(\[heap\]|\[anon.*)?$")

Collapse = Callable[[int], bool]


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return libc


_LIBC: Final = _libc()


def may_be_asked_for() -> bool:
    """Whether the system knows large pages, and its operator and this process have nothing against them."""
    try:
        allowed = "[never]" not in _SWITCH.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return False
    return sys.platform == "linux" and allowed and not scrubs_freed_memory()


def own_blocks() -> Iterator[int]:
    """Addresses of the whole blocks in this process's own memory, of which most pages are there."""
    pages = BLOCK_BYTES // mmap.PAGESIZE
    there: NDArray[np.uint8] = np.empty(pages, np.uint8)
    for line in _MAPS.read_text("ascii", "replace").splitlines():
        found = _OWN.match(line)
        if found is None:
            continue
        start, end = int(found[1], 16), int(found[2], 16)
        for block in range(-(-start // BLOCK_BYTES) * BLOCK_BYTES, end - BLOCK_BYTES + 1, BLOCK_BYTES):
            if _LIBC.mincore(block, BLOCK_BYTES, there.ctypes.data) != 0:
                continue  # it is gone already
            if int(np.count_nonzero(there & 1)) >= THERE_MIN * pages:
                yield block


def collapse(block: int) -> bool:
    """Have the kernel hold a block as one page; whether it does. Whoever touches it meanwhile waits."""
    return bool(_LIBC.madvise(block, BLOCK_BYTES, _MADV_COLLAPSE) == 0)


class LargePages:
    """Sees to it that what searches read lies in large pages; ``told`` hears of it after each round."""

    def __init__(self, told: Callable[[int], object], *, wanted: bool = True) -> None:
        self._told = told
        self._wanted = wanted and may_be_asked_for()
        self._stop = Event()
        self._thread: Thread | None = None
        self._bytes = 0  # of the indexes, at the last round
        self._next_s = 0.0  # monotonic

    def tend(self, index_bytes: int) -> None:
        """Begin a round when one is due; ``index_bytes``: of all loaded indexes."""
        if not self._wanted or index_bytes < INDEX_BYTES_MIN or self._is_busy():
            return
        now_s = monotonic()
        if abs(index_bytes - self._bytes) < CHANGED_SHARE * self._bytes and now_s < self._next_s:
            return
        self._bytes, self._next_s = index_bytes, now_s + ROUND_S
        thread = Thread(target=self._round, name="strongroom-pages", daemon=True)
        if thread_started(thread):
            self._thread = thread

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _round(self) -> None:
        held = one_round(collapse, self._stop)
        if not self._stop.is_set():
            self._told(held)

    def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


def one_round(collapse: Collapse, stop: Event) -> int:
    """Ask for every block that there is, with rests; the bytes that are held in large pages afterwards."""
    held = failures = 0
    try:
        for block in own_blocks():
            started = perf_counter()
            if collapse(block):
                held, failures = held + BLOCK_BYTES, 0
            else:
                failures += 1
            if failures >= FAILURES_MAX or stop.wait(RESTS * (perf_counter() - started)):
                break
    except OSError:  # /proc is not there
        return held
    return held
