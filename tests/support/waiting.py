"""Waiting for what happens on another thread or in another process."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(done: Callable[[], bool]) -> None:
    """Wait until something is so, 10 s at most."""
    for _ in range(1_000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")
