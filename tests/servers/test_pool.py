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


def test_the_thread_that_has_worked_last_works_next(pool: WorkerPool) -> None:
    """Of several idle threads one does all jobs that come one by one: what it needs is near its processor."""

    async def scene() -> set[int]:
        start = threading.Barrier(3)
        await asyncio.gather(*(sent(pool, b"a", start.wait) for _ in range(3)))  # three threads are there
        used = set()
        for _ in range(12):
            while len(pool._asleep) < 3:
                await asyncio.sleep(0.001)
            used.add(await sent(pool, b"a", threading.get_ident))
        return used

    assert len(run(scene())) == 1


def here(pool: WorkerPool, caller: bytes, work: Callable[[], T], results: list[T]) -> threading.Thread:
    """A thread of its own that has ``work`` done."""

    def body() -> None:
        CALLER.set(caller)
        results.append(pool.run_here(work))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def test_a_thread_that_can_wait_does_its_own_work_while_a_place_is_free(pool: WorkerPool) -> None:
    """The work runs in the asking thread; when the places of its caller are taken, in the pool and later."""
    ran: list[int] = []
    first = here(pool, b"a", threading.get_ident, ran)
    ident = first.ident
    first.join(30)
    assert ran == [ident]

    stuck, begun = threading.Event(), threading.Semaphore(0)

    def block() -> bool:
        begun.release()
        return stuck.wait(30)

    held: list[bool] = []
    blocked = [here(pool, b"loud", block, held) for _ in range(3)]  # three quarters of four
    assert all(begun.acquire(timeout=30) for _ in range(3))
    late: list[int] = []
    waiting = here(pool, b"loud", threading.get_ident, late)
    quiet: list[int] = []
    other = here(pool, b"quiet", threading.get_ident, quiet)
    other.join(30)
    assert len(quiet) == 1 and not late and waiting.is_alive()  # the fourth place is for others
    stuck.set()
    for thread in [*blocked, waiting]:
        thread.join(30)
    assert held == [True] * 3 and late[0] != waiting.ident


def test_threads_that_do_their_own_work_take_places_of_the_pool() -> None:
    """With every place taken by such threads a job of the pool waits until one of them is done."""
    pool = WorkerPool(2, "test")
    stuck, begun = threading.Event(), threading.Semaphore(0)

    def block() -> bool:
        begun.release()
        return stuck.wait(30)

    held: list[bool] = []
    blocked = [here(pool, caller, block, held) for caller in (b"a", b"b")]
    assert all(begun.acquire(timeout=30) for _ in range(2))

    async def scene() -> None:
        job = submit(pool, b"c", lambda: "done")
        await asyncio.sleep(0.1)
        assert not job.done()
        stuck.set()
        assert await job == "done"

    run(scene())
    for thread in blocked:
        thread.join(30)
    pool.close()
    with pytest.raises(ClosedError):
        pool.run_here(lambda: None)


def test_a_pool_that_gets_no_thread_refuses_and_recovers(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no thread will ever carry out is refused and never done; later work is, and closing ends."""
    done: list[str] = []

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(8):
                with pytest.raises(LimitExceededError):
                    await sent(pool, b"a", lambda: done.append("refused"))
        await sent(pool, b"b", lambda: done.append("b"))
        with monkeypatch.context() as patch:  # one thread is there: it does what others cannot be started for
            patch.setattr(threading.Thread, "start", refuse)
            await asyncio.gather(*(sent(pool, b"c", lambda: done.append("c")) for _ in range(8)))

    run(scene())
    pool.close()
    assert done == ["b"] + ["c"] * 8
