"""Memory that was freed goes back to the system, where the C library can be asked to do so."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


def _find() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_TRIM = _find()


def give_back() -> None:
    """Return what the allocator keeps; does nothing where the C library is not glibc."""
    if _TRIM is not None:
        _TRIM(0)
