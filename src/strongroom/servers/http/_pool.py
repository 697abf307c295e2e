"""A bounded pool of threads for the engine's blocking operations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from strongroom.errors import ClosedError, LimitExceededError

T = TypeVar("T")
_WAITING_PER_THREAD = 64


class WorkerPool:
    """Runs operations in ``threads_max`` threads; refuses work when too much is waiting already."""

    def __init__(self, threads_max: int, name: str) -> None:
        threads = max(1, threads_max)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._admitted_max = threads * (1 + _WAITING_PER_THREAD)
        self._admitted = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, made in a thread of the pool.

        Raises:
            LimitExceededError: too much is waiting. ClosedError: the pool was closed.
        """
        with self._lock:
            if self._admitted >= self._admitted_max:
                raise LimitExceededError("the server is busy", hint="repeat the request shortly")
            self._admitted += 1
        try:
            future = self._executor.submit(work)
        except RuntimeError:
            self._leave()
            raise ClosedError from None
        future.add_done_callback(lambda _: self._leave())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for what is running; nothing new is taken."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        with self._lock:
            self._admitted -= 1
