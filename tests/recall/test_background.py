"""Work in the background: its failure is told by type, and to whoever depends on it."""

from __future__ import annotations

import logging
import threading

import pytest

from strongroom.errors import InternalError, StorageFullError, failure_of
from strongroom.recall._later import Later
from strongroom.recall._threads import BackgroundTask


def fail() -> None:
    raise IndexError("canary-61")


def test_a_failure_is_named_by_code_or_type_and_never_by_its_text() -> None:
    """What an exception says could be content."""

    def full() -> None:
        raise StorageFullError("canary-62")

    assert (failure_of(fail), failure_of(full), failure_of(list)) == ("IndexError", "storage_full", "")


def test_an_interrupt_is_no_failure_to_be_noted() -> None:
    """Ctrl-C and the end of the interpreter go on."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failure_of(interrupted)


def test_a_task_that_fails_writes_its_type_and_can_be_started_again(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No traceback on stderr, which could show content."""
    task, done = BackgroundTask("strongroom-test"), threading.Event()
    with caplog.at_level(logging.ERROR):
        assert task.start(fail) and task.wait(10)
    assert "strongroom-test failed (IndexError)" in caplog.text
    assert "canary" not in caplog.text and capfd.readouterr().err == ""
    assert task.start(done.set) and task.wait(10) and done.is_set()


def test_changes_wait_for_the_work_and_one_that_fails_is_told_to_whoever_waits() -> None:
    """Whatever the change raises: an IndexError of its own is not the end of the list."""
    for failing in (True, False):
        gate, made, later = threading.Event(), [], Later("strongroom-test")
        later.start(lambda gate=gate: gate.wait(10))  # type: ignore[misc]
        later.after(lambda made=made: made.append(1))  # type: ignore[misc]
        if failing:
            later.after(fail)
        later.after(lambda made=made: made.append(2))  # type: ignore[misc]
        assert not made
        gate.set()
        if failing:
            with pytest.raises(InternalError):
                later.wait()
        else:
            later.wait()
            later.after(lambda made=made: made.append(3))  # type: ignore[misc]
            assert made == [1, 2, 3]


def test_work_that_fails_makes_no_changes() -> None:
    """They belong behind what is not there."""
    gate, later, made = threading.Event(), Later("strongroom-test"), []

    def work() -> None:
        gate.wait(10)
        fail()

    later.start(work)
    later.after(lambda: made.append(1))
    gate.set()
    with pytest.raises(InternalError):
        later.wait()
    assert not made
