"""The worker: what is stored gets its own vector, through outages, poison, crashes and full channels."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.embedding.fakes import DIMENSIONS, FakeModel, FakeSource, vector_of

from strongroom.config import EmbeddingConfig
from strongroom.embedding import EmbeddingPipeline, SweeperLock
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    ModelFilesError,
    StorageBusyError,
)

QUICK = {"backoff_ms_min": 1, "backoff_ms_max": 10}
WAIT_S = 60.0


class Clock:
    """Time that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


Make = Callable[..., EmbeddingPipeline]


@pytest.fixture
def make(source: FakeSource, model: FakeModel) -> Iterator[Make]:
    made: list[EmbeddingPipeline] = []

    def build(start: bool = True, **changes: object) -> EmbeddingPipeline:
        options = {k: changes.pop(k) for k in ("sweeper", "clock", "random") if k in changes}
        options.setdefault("sweep_interval_s", 0.05)
        provider = changes.pop("provider", model)
        config = EmbeddingConfig(**(QUICK | changes))  # type: ignore[arg-type]
        pipeline = EmbeddingPipeline(config, provider, source, **options)  # type: ignore[arg-type]
        made.append(pipeline)
        if start:
            pipeline.start()
        return pipeline

    yield build
    for pipeline in made:
        pipeline.close()


def assert_all_right(source: FakeSource) -> None:
    """Every text has the vector of exactly that text."""
    assert set(source.vectors) == set(source.texts)
    for ref, vector in source.vectors.items():
        np.testing.assert_array_equal(vector, vector_of(source.texts[ref]))


def test_what_is_offered_is_embedded_and_wait_idle_comes_after_it(source: FakeSource, make: Make) -> None:
    pipeline = make(start=False)
    for n in range(100):
        assert pipeline.offer(source.store(n))
    pipeline.start()
    assert pipeline.wait_idle(WAIT_S)
    assert_all_right(source)
    assert len(source.vectors) == 100
    assert pipeline.stats().completed == 100


def test_a_lone_item_is_embedded_in_the_very_next_turn_whatever_the_flush_interval(
    source: FakeSource, make: Make
) -> None:
    clock = Clock()
    pipeline = make(start=False, clock=clock, flush_interval_ms=100_000)
    pipeline.offer(source.store(1))
    assert pipeline.step() == 0.0
    assert len(source.vectors) == 1
    assert clock.now == 1000.0


def test_the_defaults_are_batches_of_32_and_a_tenth_of_a_second(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    """What waits together is embedded 32 at a time, unless the configuration says otherwise."""
    assert EmbeddingConfig().flush_interval_ms == 100
    pipeline = make(start=False)
    for n in range(70):
        pipeline.offer(source.store(n))
    while pipeline.step() == 0.0 and len(source.vectors) < 70:
        pass
    assert [len(batch) for batch in model.batches] == [32, 32, 6]


def test_a_thousand_stores_while_the_model_is_down_are_all_embedded_when_it_is_back(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    model.down = True
    pipeline = make()
    for n in range(1000):
        pipeline.offer(source.store(n))
    assert not pipeline.wait_idle(0.3)
    assert pipeline.stats().is_out
    assert pipeline.stats().last_error == "embedding_unavailable"
    assert max(len(b) for b in model.batches[1:]) == 1, "while the model is down it is asked for one text"
    model.down = False
    assert pipeline.wait_idle(WAIT_S)
    assert_all_right(source)
    assert not source.dead
    assert not source.attempts, "an outage costs no item an attempt"


def test_an_hour_of_outage_kills_nothing_and_asks_the_model_rarely(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    clock = Clock()
    pipeline = make(
        start=False, clock=clock, random=random.Random(1).random, backoff_ms_min=100, backoff_ms_max=60_000
    )
    for n in range(50):
        pipeline.offer(source.store(n))
    model.down = True
    while clock.now < 1000 + 3600:
        clock.now += max(pipeline.step() or 0, 0.05)
    assert not source.dead
    assert 600 < len(model.batches) < 3600, "every few seconds, not more"
    model.down = False
    for _ in range(5000):
        clock.now += max(pipeline.step() or 0, 0.01)
        if not source.queued:
            break
    assert_all_right(source)
    assert clock.now < 1000 + 3600 + 20


def test_one_refused_text_is_dead_and_its_neighbours_are_not(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    model.poison = "poison"
    pipeline = make(start=False)
    bad = source.store(500, "poison")
    for n in range(100):
        pipeline.offer(source.store(n))
        if n == 50:
            pipeline.offer(bad)
    pipeline.start()
    assert pipeline.wait_idle(WAIT_S)
    assert source.dead == {bad: "embedding_rejected"}
    assert len(source.vectors) == 100
    assert pipeline.stats().dead == 1


def test_a_text_that_brings_the_model_down_is_isolated_after_its_attempts(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    model.toxic = "toxic"
    pipeline = make()
    bad = source.store(0, "toxic")
    pipeline.offer(bad)
    for n in range(1, 2000):
        pipeline.offer(source.store(n))
    deadline = time.monotonic() + WAIT_S
    number = 2000
    while bad not in source.dead and time.monotonic() < deadline:
        pipeline.offer(source.store(number))  # a trickle of other work shows that the model is up
        number += 1
        time.sleep(0.002)
    assert pipeline.wait_idle(WAIT_S)
    assert source.dead == {bad: "embedding_unavailable"}
    assert len(source.vectors) == number - 1


def test_a_memory_deleted_while_it_waits_or_is_embedded_gets_no_vector(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    first, second, third = (source.store(n) for n in range(3))
    source.delete(first)
    model.before = lambda texts: source.delete(second)
    pipeline = make(sweeper=lambda: False)  # a sweep may list the second just before it is deleted
    for ref in (first, second, third):
        pipeline.offer(ref)
    assert pipeline.wait_idle(WAIT_S)
    assert set(source.vectors) == {third}
    assert ["text 1", "text 2"] in model.batches or ["text 1"] in model.batches
    assert not any("text 0" in batch for batch in model.batches), "no placeholder is embedded for it"
    assert pipeline.stats().skipped == 1


def test_orphans_of_an_earlier_process_are_found_at_the_start(source: FakeSource, make: Make) -> None:
    for n in range(200):
        source.store(n)
    assert make(channel_items_max=64).wait_idle(WAIT_S)
    assert_all_right(source)
    assert len(source.vectors) == 200


def test_without_the_role_no_orphan_is_taken_and_with_it_all_are(source: FakeSource, make: Make) -> None:
    held = threading.Event()
    pipeline = make(sweeper=held.is_set)
    mine, foreign = source.store(1), source.store(2)
    pipeline.offer(mine)
    assert not pipeline.wait_idle(0.3)
    assert set(source.vectors) == {mine}
    held.set()
    assert pipeline.wait_idle(WAIT_S)
    assert set(source.vectors) == {mine, foreign}


def test_what_another_process_has_just_stored_is_left_to_it_for_one_round(
    source: FakeSource, make: Make
) -> None:
    clock = Clock()
    pipeline = make(start=False, clock=clock)
    pipeline.step()
    source.store(1)
    clock.now += 1
    pipeline.step()
    assert not source.vectors
    clock.now += 1
    pipeline.step()
    assert len(source.vectors) == 1


def test_a_full_channel_drops_to_the_durable_queue_and_nothing_is_lost(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    gate = threading.Event()
    model.before = lambda texts: gate.wait(WAIT_S)
    pipeline = make(channel_items_max=10)
    taken = [pipeline.offer(source.store(n)) for n in range(300)]
    assert not all(taken)
    assert pipeline.stats().dropped == taken.count(False)
    assert pipeline.stats().held <= 10
    gate.set()
    assert pipeline.wait_idle(WAIT_S)
    assert len(source.vectors) == 300
    assert_all_right(source)


def test_a_source_that_fails_for_a_while_is_asked_again(source: FakeSource, make: Make) -> None:
    failures = {"load": 3, "complete": 3, "orphans": 3}

    def fail(operation: str) -> None:
        if failures.get(operation, 0):
            failures[operation] -= 1
            raise StorageBusyError if operation != "orphans" else RuntimeError("secret text 1")

    source.before = fail
    pipeline = make()
    for n in range(50):
        pipeline.offer(source.store(n))
    assert pipeline.wait_idle(WAIT_S)
    assert_all_right(source)
    assert not source.dead


def test_a_dead_letter_that_cannot_be_recorded_is_recorded_later(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    model.poison = "poison"
    left = [2]

    def fail(operation: str) -> None:
        if operation == "fail" and left[0]:
            left[0] -= 1
            raise StorageBusyError

    source.before = fail
    pipeline = make()
    bad = source.store(1, "poison")
    pipeline.offer(bad)
    assert pipeline.wait_idle(WAIT_S)
    assert source.dead == {bad: "embedding_rejected"}


def test_a_model_with_a_bug_costs_attempts_and_ends_in_dead_letters(
    source: FakeSource, model: FakeModel, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(texts: object) -> None:
        raise ZeroDivisionError("canary-9f3 in the message")

    model.before = bug
    pipeline = make(attempts_max=3)
    ref = source.store(1, "canary-9f3")
    pipeline.offer(ref)
    assert pipeline.wait_idle(WAIT_S)
    assert source.dead == {ref: "embedding"}
    assert [c for _, c in source.attempts] == ["embedding"] * 4
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((1, DIMENSIONS + 1), np.float32),
        np.zeros((2, DIMENSIONS), np.float32),
        np.zeros((1, DIMENSIONS), np.float64),
        np.full((1, DIMENSIONS), np.nan, np.float32),
    ],
    ids=["wrong length", "wrong count", "wrong dtype", "not finite"],
)
def test_wrong_vectors_of_a_model_are_never_kept(
    answer: np.ndarray, source: FakeSource, model: FakeModel, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "embed", lambda texts: answer)
    pipeline = make(attempts_max=2)
    ref = source.store(1)
    pipeline.offer(ref)
    assert pipeline.wait_idle(WAIT_S)
    assert not source.vectors
    assert ref in source.dead


class Died(BaseException):
    """Ends a thread like SystemExit; no handler for Exception catches it."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_thread_that_dies_is_replaced_and_its_batch_is_not_lost(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    deaths = [2]

    def die(texts: object) -> None:
        if deaths[0]:
            deaths[0] -= 1
            raise Died

    model.before = die
    pipeline = make()
    for n in range(100):
        pipeline.offer(source.store(n))
    assert pipeline.wait_idle(WAIT_S)
    assert deaths == [0]
    assert_all_right(source)


def test_a_model_that_cannot_be_loaded_is_an_outage(source: FakeSource, model: FakeModel, make: Make) -> None:
    installed = threading.Event()

    def load() -> FakeModel:
        if not installed.is_set():
            raise ModelFilesError
        return model

    pipeline = make(provider=load)
    pipeline.offer(source.store(1))
    assert not pipeline.wait_idle(0.2)
    assert pipeline.stats().last_error == "model_files"
    installed.set()
    assert pipeline.wait_idle(WAIT_S)
    assert_all_right(source)


def test_wait_idle_does_not_wait_for_what_is_offered_later(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    pipeline = make()
    numbers = itertools.count(1000)
    # every batch brings a new item before it ends: the queue is never empty
    model.before = lambda texts: pipeline.offer(source.store(next(numbers)))
    refs = [source.store(n) for n in range(50)]
    for ref in refs:
        pipeline.offer(ref)
    assert pipeline.wait_idle(WAIT_S / 6)
    assert set(refs) <= set(source.vectors)
    assert source.queued


def test_close_is_bounded_even_when_the_model_hangs_and_nothing_is_written_after_it(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    hanging, go_on = threading.Event(), threading.Event()

    def hang(texts: object) -> None:
        hanging.set()
        go_on.wait(WAIT_S)

    model.before = hang
    pipeline = make()
    ref = source.store(1)
    pipeline.offer(ref)
    assert hanging.wait(WAIT_S)
    worker = next(t for t in threading.enumerate() if t.name == "strongroom-embedding" and t.is_alive())
    pipeline.close(timeout_s=0.05)
    go_on.set()
    worker.join(WAIT_S)
    assert ref not in source.vectors
    assert ref in source.queued
    assert not pipeline.offer(source.store(2))
    with pytest.raises(ClosedError):
        pipeline.start()
    pipeline.close()


def test_offer_from_many_threads_loses_nothing(source: FakeSource, make: Make) -> None:
    pipeline = make()

    def write(start: int) -> None:
        for n in range(start, start + 100):
            pipeline.offer(source.store(n))

    threads = [threading.Thread(target=write, args=(k * 100,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert pipeline.wait_idle(WAIT_S)
    assert len(source.vectors) == 800
    assert_all_right(source)


def test_another_namespaces_memory_is_swept_up_beside_a_long_queue(
    source: FakeSource, model: FakeModel, make: Make
) -> None:
    """A thousand of one namespace wait since before the start, and one of another, the last of all."""
    for n in range(1000):
        source.store(n)
    late = source.store(0, "the late one", ns=2)
    pipeline = make(channel_items_max=40, batch_size_max=8, start=False)
    pipeline.step()
    assert late in source.vectors
    assert len(source.vectors) == 8


def test_limits_of_zero_are_refused(make: Make) -> None:
    with pytest.raises(ConfigurationError):
        make(batch_size_max=0)


# -- the role of the sweeper ---------------------------------------------------------------------
HOLD = """
import sys, time
from pathlib import Path
from strongroom.embedding import SweeperLock
lock = SweeperLock(Path(sys.argv[1]))
print(lock(), flush=True)
sys.stdin.read()
"""


def test_one_process_holds_the_role_and_its_death_gives_it_away(tmp_path: Path) -> None:
    path = tmp_path / "worker.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        mine = SweeperLock(path)
        assert not mine()
        holder.kill()
        holder.wait()
        assert mine()
        assert mine(), "asking again keeps it"
        assert not SweeperLock(path)()
        mine.release()
        assert not mine(), "a released lock is not taken again"
        assert SweeperLock(path)()
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_file_that_was_replaced_is_no_longer_held(tmp_path: Path) -> None:
    path = tmp_path / "worker.lock"
    first, second = SweeperLock(path), SweeperLock(path)
    assert first()
    path.unlink()
    assert second()
    assert not first()
    first.release()
    second.release()


def test_where_no_lock_can_be_made_the_role_is_not_held(tmp_path: Path) -> None:
    assert not SweeperLock(tmp_path / "absent" / "worker.lock")()
