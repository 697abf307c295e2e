"""Python's cyclic garbage collector kept off while an index is built.

A load makes millions of objects that live on; the collector would look at all of them again and again
and find nothing. Several threads may load at once: the last one turns it on again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_pausing = 0
_was_on = False


@contextmanager
def collector_paused() -> Iterator[None]:
    """No automatic collection inside the ``with`` block; left as it was found afterwards."""
    global _pausing, _was_on  # noqa: PLW0603 - the collector is one for the process, and so is this count
    with _lock:
        if not _pausing:
            _was_on = gc.isenabled()
            gc.disable()
        _pausing += 1
    try:
        yield
    finally:
        with _lock:
            _pausing -= 1
            if not _pausing and _was_on:
                gc.enable()
