"""Work beside the caller's own: it happens, its end is waited for, and nothing of it stays."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable

import pytest
from tests.support.interrupts import interrupted_at

import strongroom.recall._beside
from strongroom.recall._beside import Beside, _Helper

pytestmark = pytest.mark.skipif(_Helper()._alone, reason="one core: nothing happens beside anything")


@pytest.fixture(autouse=True)
def helper(monkeypatch: pytest.MonkeyPatch) -> _Helper:
    """One that no other test has left in the middle of something."""
    made = _Helper()
    monkeypatch.setattr(strongroom.recall._beside, "_HELPER", made)
    return made


def test_work_runs_during_the_block_on_another_thread() -> None:
    """The caller can wait, inside the block, for something that only the other side does."""
    reached = threading.Event()
    where: list[threading.Thread] = []

    def work() -> int:
        where.append(threading.current_thread())
        reached.set()
        return 42

    with Beside(work) as other:
        assert reached.wait(30)
        assert other.result() == 42
    assert where[0] is not threading.current_thread()


def test_one_is_helped_and_the_others_help_themselves() -> None:
    """While the helper is busy, a second piece of work runs on its caller's thread, when it is asked for."""
    go_on = threading.Event()
    with Beside(lambda: go_on.wait(30)) as first:
        with Beside(threading.current_thread) as second:
            assert second.result() is threading.current_thread()
        go_on.set()
        assert first.result()


def test_what_work_raises_is_raised_by_result_and_the_helper_goes_on() -> None:
    """A failure belongs to whoever asked; the next one is helped all the same."""

    def work() -> None:
        raise ValueError("of the work")

    with Beside(work) as other, pytest.raises(ValueError, match="of the work"):
        other.result()
    reached = threading.Event()
    with Beside(reached.set):
        assert reached.wait(30)


def test_the_block_is_not_left_before_the_work_has_ended() -> None:
    """Also when the block fails: what the work reads must not change under its hands."""
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(30)
        ended.set()

    with pytest.raises(KeyError), Beside(work):
        assert started.wait(30)
        threading.Timer(0.05, go_on.set).start()
        raise KeyError
    assert ended.is_set()


@pytest.mark.parametrize("inside", [True, False], ids=["asked in the block", "asked after it"])
def test_an_interrupt_at_any_step_costs_nobody_the_helper(inside: bool) -> None:
    """Ctrl-C leaves neither work behind that nobody waits for, nor the helper taken for good."""
    for step in range(1, 200):
        begun, ended = threading.Event(), threading.Event()

        def work(begun: threading.Event = begun, ended: threading.Event = ended) -> int:
            begun.set()
            threading.Event().wait(0.001)
            ended.set()
            return 1

        def ask(work: Callable[[], int] = work) -> None:
            with Beside(work) as other:
                if inside:
                    assert other.result() == 1
            if not inside:
                assert other.result() == 1

        struck = interrupted_at(step, strongroom.recall._beside.__file__, ask)
        left = ended.is_set() or not begun.is_set()
        helped = threading.Event()
        with Beside(helped.set):
            assert helped.wait(30), f"after an interrupt at step {step} nobody is helped any more"
        assert left or ended.is_set()
        if not struck:
            break
    else:
        pytest.fail("the work was never over")
    assert step > 10


def test_an_interrupt_before_the_thread_has_started_costs_nobody_the_helper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when Ctrl-C comes while the thread is being started for the first time."""

    def interrupted(self: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        with Beside(int):
            pass
    helped = threading.Event()
    with Beside(helped.set):
        assert helped.wait(30)


def test_nothing_of_the_work_stays_behind() -> None:
    """A question that was looked up is not kept by a thread that waits for the next one."""

    class Question:
        pass

    question = Question()
    gone = weakref.ref(question)
    reached = threading.Event()

    def work(asked: Question = question) -> None:
        reached.set()

    with Beside(work):
        assert reached.wait(30)
    del work, question
    for _ in range(200):
        gc.collect()
        if gone() is None:
            break
        threading.Event().wait(0.01)
    assert gone() is None


def test_after_a_fork_there_is_a_helper_again(helper: _Helper) -> None:
    """The thread is not there in a forked child; work must neither wait for it nor get lost."""
    with Beside(lambda: None) as other:
        other.result()
    child = os.fork()
    if not child:  # the one of the process forgets its thread by itself, and so must this one
        helper.reset()
        reached = threading.Event()
        with Beside(reached.set):
            os._exit(0 if reached.wait(20) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_thread_to_be_had(helper: _Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the caller does the work."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not helper.offer(Beside(int))
    assert not helper.offer(Beside(int))
    with Beside(lambda: 3) as other:
        assert other.result() == 3


def test_who_asks_whether_it_has_ended_need_not_wait_then() -> None:
    """Neither work that waits for a thread has ended, nor work that goes on, and after its end the result is
    there at once."""
    started, go_on = threading.Event(), threading.Event()
    with Beside(lambda: started.set() or go_on.wait(30)) as first:
        assert started.wait(30)
        with Beside(lambda: 1) as second:
            assert not second.has_ended and not first.has_ended
            assert second.result() == 1
            assert not second.has_ended  # the caller did it
        go_on.set()
        assert first._ended.acquire(timeout=30)
        first._ended.release()
        assert first.has_ended and first.result()
