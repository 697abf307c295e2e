"""Memory that was freed goes back to the system, where the C library can be asked to do so."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa

PAGE_BYTES = mmap.PAGESIZE


def _find(name: str) -> Callable[..., Any] | None:
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    found.restype = ctypes.c_ssize_t
    called: Callable[..., Any] = found
    return called


LEAVINGS_ROWS = 200_000
_TRIM = _find("malloc_trim")
_SIZE_OF = _find("malloc_usable_size")
_ADVISE = _find("madvise") if sys.platform == "linux" else None  # elsewhere the word means something else


def give_back() -> None:
    """Return what the allocators keep: Arrow's, and the C library's where that is glibc."""
    pa.default_memory_pool().release_unused()
    if _TRIM is not None:
        _TRIM(0)


def give_back_pages(address: int, size: int) -> None:
    """Return the whole pages of a piece of our own memory that holds nothing any more; it reads as zero then.

    Only on Linux.
    """
    first, end = -(-address // PAGE_BYTES) * PAGE_BYTES, (address + size) // PAGE_BYTES * PAGE_BYTES
    if _ADVISE is not None and end > first:
        _ADVISE(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def give_back_behind(address: int, used: int) -> int:
    """Return the whole pages behind the first ``used`` bytes of what the C library's allocator gave out.

    They may have been another's before: then they take memory though nothing was written there yet. Returns
    how many bytes there are; 0 where that cannot be asked.
    """
    if _SIZE_OF is None:
        return 0
    size = int(_SIZE_OF(ctypes.c_void_p(address)))
    give_back_pages(address + used, size - used)
    return size


class Leavings:
    """What reading many rows leaves free in the allocator, in pieces: half a gigabyte a million."""

    def __init__(self) -> None:
        self._rows = 0  # after which it was given back

    def give_back_after(self, rows: int) -> None:
        """So many rows were read: give it back each ``LEAVINGS_ROWS``."""
        if rows >= self._rows + LEAVINGS_ROWS:
            self._rows = rows
            give_back()

    def give_back_last(self) -> None:
        """All were read; nothing to do when they were few, or it was done."""
        if self._rows:
            self._rows = 0
            give_back()
