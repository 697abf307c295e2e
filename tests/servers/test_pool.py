"""The worker pool: callers take turns, one alone can neither take all threads nor fill the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from strongroom.errors import ClosedError, LimitExceededError
from strongroom.servers.http import CALLER, WorkerPool

T = TypeVar("T")


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(4, "test")
    yield made
    made.close()


async def sent(pool: WorkerPool, caller: bytes, work: Callable[[], T]) -> T:
    CALLER.set(caller)
    return await pool.run(work)


def submit(pool: WorkerPool, caller: bytes, work: Callable[[], T]) -> asyncio.Task[T]:
    return asyncio.create_task(sent(pool, caller, work))


def run(work: Awaitable[T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def test_somebody_who_blocks_all_they_may_holds_up_nobody_else(pool: WorkerPool) -> None:
    """With hundreds of jobs of one caller stuck, another one's job runs at once."""

    async def scene() -> None:
        stuck = threading.Event()
        flood = [submit(pool, b"loud", stuck.wait) for _ in range(100)]
        await asyncio.sleep(0)
        assert await sent(pool, b"quiet", lambda: "answered") == "answered"
        assert not any(job.done() for job in flood)
        stuck.set()
        await asyncio.gather(*flood)

    run(scene())


def test_callers_take_turns(pool: WorkerPool) -> None:
    """Jobs that come after a flood are done in its first part, not behind it."""
    order: list[bytes] = []

    async def scene() -> None:
        start = threading.Event()
        first = [submit(pool, caller, start.wait) for caller in (b"a", b"a", b"a", b"b")]
        await asyncio.sleep(0)
        flood = [submit(pool, b"loud", lambda: order.append(b"loud")) for _ in range(120)]
        await asyncio.sleep(0)
        others = [submit(pool, b"quiet", lambda: order.append(b"quiet")) for _ in range(5)]
        await asyncio.sleep(0)
        start.set()
        await asyncio.gather(*first, *flood, *others)

    run(scene())
    assert len(order) == 125
    assert max(i for i, caller in enumerate(order) if caller == b"quiet") < 40


def test_one_caller_cannot_fill_the_queue(pool: WorkerPool) -> None:
    """The one who sends too much is told that the server is busy; the others are served."""

    async def scene() -> int:
        stuck = threading.Event()
        flood = [submit(pool, b"loud", stuck.wait) for _ in range(400)]
        await asyncio.sleep(0)
        assert await sent(pool, b"quiet", lambda: 7) == 7
        stuck.set()
        done = await asyncio.gather(*flood, return_exceptions=True)
        refused = [e for e in done if isinstance(e, LimitExceededError)]
        assert len(refused) + sum(1 for e in done if e is True) == 400
        return len(refused)

    assert run(scene()) > 100


def test_errors_and_results_reach_their_own_callers(pool: WorkerPool) -> None:
    """What a job raises is raised to whoever sent it, and the thread goes on."""

    async def scene() -> None:
        def fails() -> None:
            raise LookupError("mine")

        for _ in range(8):
            with pytest.raises(LookupError):
                await sent(pool, b"a", fails)
        assert await sent(pool, b"a", lambda: 3) == 3

    run(scene())


def test_closing_cancels_what_waits_and_refuses_the_rest() -> None:
    """What runs is finished; what waits is cancelled; later work is refused."""
    pool = WorkerPool(1, "test")

    async def scene() -> None:
        started, stuck = threading.Event(), threading.Event()

        def work() -> str:
            started.set()
            stuck.wait()
            return "done"

        running = submit(pool, b"a", work)
        waiting = submit(pool, b"a", lambda: "never")
        await asyncio.to_thread(started.wait)
        closing = asyncio.create_task(asyncio.to_thread(pool.close))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stuck.set()
        assert await running == "done"
        await closing
        with pytest.raises(ClosedError):
            await sent(pool, b"a", lambda: 1)

    run(scene())
