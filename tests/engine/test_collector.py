"""The garbage collector is paused for a load and comes back, whoever ends last."""

from __future__ import annotations

import gc
import threading

import pytest

from strongroom.engine._collector import collector_paused


def test_the_collector_comes_back_after_the_last_of_several_loads() -> None:
    assert gc.isenabled()
    inside, go_on = threading.Event(), threading.Event()

    def load() -> None:
        with collector_paused():
            inside.set()
            go_on.wait(10)

    with collector_paused():
        thread = threading.Thread(target=load)
        thread.start()
        assert inside.wait(10)
        assert not gc.isenabled()
    assert not gc.isenabled(), "the other load still runs"
    go_on.set()
    thread.join()
    assert gc.isenabled()


def test_a_load_that_fails_turns_the_collector_on_again() -> None:
    with pytest.raises(ValueError, match="broken"), collector_paused():
        raise ValueError("broken")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
