"""The lock of the indexes survives an interrupt at any step."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from tests.support.interrupts import interrupted_at

from strongroom.recall import _threads
from strongroom.recall._threads import ReadWriteLock

PATIENCE_S = 20
STEPS_MAX = 200


def is_free(lock: ReadWriteLock) -> bool:
    """Whether another thread gets the write side, and after it the read side."""

    def take_both() -> None:
        with lock.write:
            pass
        with lock.read:
            pass

    thread = threading.Thread(target=take_both, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return not thread.is_alive()


@pytest.mark.parametrize("side", ["read", "write"])
def test_no_step_of_entering_or_leaving_leaves_the_lock_taken(side: str) -> None:
    """An interrupt between entering and the first line inside once kept a reader counted for ever."""
    for step in range(1, STEPS_MAX):
        lock = ReadWriteLock()

        def use(lock: ReadWriteLock = lock) -> None:
            with getattr(lock, side):
                pass

        was_interrupted = interrupted_at(step, _threads.__file__, use)
        assert is_free(lock), f"taken for ever after step {step}"
        if not was_interrupted:
            break
    assert 5 < step < STEPS_MAX - 1  # so many steps there are


@pytest.mark.parametrize("side", ["read", "write"])
def test_an_interrupted_wait_keeps_nobody_out(side: str) -> None:
    """A writer, or a reader behind one, that is interrupted while it waits is forgotten."""
    for step in range(1, 40):
        lock = ReadWriteLock()
        inside, leave = threading.Event(), threading.Event()

        def hold(
            lock: ReadWriteLock = lock, inside: threading.Event = inside, leave: threading.Event = leave
        ) -> None:
            with lock.read if side == "write" else lock.write:
                inside.set()
                leave.wait(PATIENCE_S)

        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        assert inside.wait(PATIENCE_S)
        timer = threading.Timer(0.02, leave.set)
        timer.start()

        def use(lock: ReadWriteLock = lock) -> None:
            with getattr(lock, side):
                pass

        was_interrupted = interrupted_at(step, _threads.__file__, use)
        leave.set()
        holder.join(PATIENCE_S)
        assert is_free(lock), f"taken for ever after step {step}"
        if not was_interrupted:
            break


def test_readers_share_and_writers_do_not() -> None:
    """Two readers are inside together; a writer waits for both and keeps new readers out meanwhile."""
    lock = ReadWriteLock()
    seen: list[str] = []

    def run(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def write() -> None:
        with lock.write:
            seen.append("write")

    def read() -> None:
        with lock.read:
            seen.append("read")

    with lock.read, lock.read:
        writer = run(write)
        while not lock._waiting:
            threading.Event().wait(0.001)
        reader = run(read)
        threading.Event().wait(0.05)
        assert seen == []
    writer.join(PATIENCE_S)
    reader.join(PATIENCE_S)
    assert seen == ["write", "read"]
