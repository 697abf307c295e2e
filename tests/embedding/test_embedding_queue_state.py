"""The queue's decisions, with a clock and a die that the test holds."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.embedding._queue_state import (
    PROBE_S_MAX,
    Failure,
    PendingRef,
    QueueSettings,
    QueueState,
)


def ref(n: int, ns: int = 1) -> PendingRef:
    return PendingRef(ns, n.to_bytes(16, "big"), 1)


def make(items: int = 0, **changes: object) -> QueueState:
    state = QueueState(QueueSettings(**changes), lambda: 0.999)  # type: ignore[arg-type]
    for n in range(items):
        assert state.offer(ref(n))
    return state


def test_a_lone_item_is_due_at_once() -> None:
    state = make(1)
    assert state.wait_s(0.0) == 0.0
    assert state.next_batch(0.0) == (ref(0),)


def test_batches_are_full_and_in_order_and_what_is_over_waits() -> None:
    state = make(70)
    assert state.next_batch(0.0) == tuple(ref(n) for n in range(32))
    state.completed()
    assert len(state.next_batch(0.0)) == 32
    state.completed()
    assert len(state.next_batch(0.0)) == 6


def test_a_full_channel_refuses_and_takes_again_when_there_is_room() -> None:
    state = make(10, channel_items_max=10)
    assert not state.offer(ref(99))
    assert state.offer(ref(3)), "what is held already is no new item"
    state.next_batch(0.0)
    assert not state.offer(ref(99)), "what is in flight still takes room"
    state.completed()
    assert state.offer(ref(99))


def test_namespaces_take_turns_and_each_keeps_its_order() -> None:
    """However much one has brought, another's first item is in the next batch; nobody's order changes."""
    state = make(100)
    state.next_batch(0.0)
    for n in range(3):
        state.offer(ref(n, ns=2))
    state.offer(ref(0, ns=3))
    state.completed()
    batch = state.next_batch(0.0)
    assert set(batch[:3]) == {ref(32), ref(0, ns=2), ref(0, ns=3)}
    assert [r for r in batch if r.ns == 2] == [ref(n, ns=2) for n in range(3)]
    assert [r for r in batch if r.ns == 1] == [ref(n) for n in range(32, 60)]


def test_a_full_channel_makes_room_for_a_namespace_with_less_than_its_share() -> None:
    """The newest of who has most goes; with as much as the other a namespace is refused like it; none is lost
    that is in flight."""
    state = make(10, channel_items_max=10, batch_size_max=2)
    flying = state.next_batch(0.0)
    taken = [n for n in range(10) if state.offer(ref(n, ns=2))]
    assert taken == [0, 1, 2, 3]
    assert not state.offer(ref(11)), "nor does the first one push out the second"
    assert state.displaced == 4
    assert state.held() == {*flying, *(ref(n) for n in range(2, 6)), *(ref(n, ns=2) for n in range(4))}
    assert state.offer(ref(0, ns=3)), "a third one is let in as well"
    assert len(state) == 10


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 40)), max_size=200), st.integers(1, 20))
def test_no_more_is_held_than_fits_whoever_offers(offers: list[tuple[int, int]], most: int) -> None:
    """What was taken and not displaced is handed out exactly once."""
    state = make(channel_items_max=most, batch_size_max=3)
    for ns, n in offers:
        state.offer(ref(n, ns))
        assert len(state) <= most
    held, out = state.held(), []
    while batch := state.next_batch(0.0):
        out += batch
        state.completed()
    assert sorted(out, key=lambda r: (r.ns, r.memory_id)) == sorted(held, key=lambda r: (r.ns, r.memory_id))


def test_an_outage_costs_no_attempts_and_probes_single_other_items() -> None:
    state = make(100)
    now, probed = 0.0, []
    assert len(state.next_batch(now)) == 32
    state.failed(Failure.OUTAGE, "embedding_unavailable", now)
    for _ in range(60):
        wait = state.wait_s(now)
        assert wait is not None
        assert 0 < wait <= PROBE_S_MAX
        assert state.next_batch(now) == ()
        now += wait
        batch = state.next_batch(now)
        assert len(batch) == 1
        probed.append(batch[0])
        state.failed(Failure.OUTAGE, "embedding_unavailable", now)
    assert len(set(probed)) == 60
    assert all(state.attempts(ref(n)) == 0 for n in range(100))
    assert len(state) == 100


def test_after_an_outage_everything_flows_again_in_full_batches() -> None:
    state = make(200)
    state.next_batch(0.0)
    state.failed(Failure.OUTAGE, "embedding_unavailable", 0.0)
    assert len(state.next_batch(10.0)) == 1
    state.completed()
    assert not state.is_out
    assert len(state.next_batch(10.0)) == 32


def test_waiting_grows_up_to_the_limit_with_full_jitter() -> None:
    rolls = iter([0.5] * 100)
    state = QueueState(QueueSettings(backoff_s_min=0.1, backoff_s_max=60), lambda: next(rolls))
    state.offer(ref(0))
    waits, now = [], 0.0
    for _ in range(12):
        state.next_batch(now)
        state.failed(Failure.OUTAGE, "x", now)
        waits.append(round(state.wait_s(now) or 0, 3))
        now += waits[-1] + 0.001
    assert waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert max(waits) == PROBE_S_MAX / 2


def test_a_refused_batch_is_halved_until_only_the_bad_item_is_dead() -> None:
    state, sent = make(32), 0
    while batch := state.next_batch(0.0):
        sent += 1
        if ref(13) in batch:
            state.failed(Failure.REJECTED, "embedding_rejected", 0.0)
        else:
            state.completed()
    assert state.dead() == {"embedding_rejected": [ref(13)]}
    assert len(state) == 1
    assert sent <= 11


def test_an_item_that_brings_the_model_down_alone_is_found_among_its_neighbours() -> None:
    """A text that makes the endpoint answer 500 must not hold up the others for ever."""
    state, now, done = make(64), 0.0, 0
    for _ in range(1000):
        batch = state.next_batch(now)
        if not batch:
            wait = state.wait_s(now)
            if wait is None:
                break
            now += wait + 0.001
        elif ref(7) in batch:
            state.failed(Failure.OUTAGE, "embedding_unavailable", now)
            state.offer(ref(1000 + done))  # other traffic shows that the model is up
        else:
            done += len(batch)
            state.completed()
    assert state.dead() == {"embedding_unavailable": [ref(7)]}
    assert len(state) == 1


def test_faults_are_counted_delayed_and_end_in_death() -> None:
    state, now, tries = make(1, attempts_max=4), 0.0, 0
    while not state.dead():
        batch = state.next_batch(now)
        if batch:
            tries += 1
            state.failed(Failure.FAULT, "internal", now)
        else:
            now += (state.wait_s(now) or 0) + 0.001
    assert tries == 4
    assert state.wait_s(now) is None


def test_an_item_with_attempts_travels_in_smaller_batches() -> None:
    state, now = make(32), 0.0
    sizes = []
    for _ in range(6):
        now += 100
        sizes.append(len(state.next_batch(now)))
        state.failed(Failure.FAULT, "internal", now)
        state.probe_now()
    assert sizes[0] == 32
    assert 1 in sizes or min(sizes) <= 16


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120), st.integers(1, 33))
def test_whatever_happens_every_item_ends_done_or_dead_exactly_once(
    seed: int, items: int, batch_size: int
) -> None:
    dice = random.Random(seed)
    state = QueueState(QueueSettings(batch_size_max=batch_size, attempts_max=3), dice.random)
    for n in range(items):
        state.offer(ref(n))
    ended: list[PendingRef] = []
    now, turns = 0.0, 0
    while len(state):
        turns += 1
        assert turns < 100_000
        batch = state.next_batch(now)
        roll = dice.random() if turns < 400 else 1.0
        if not batch:
            now += (state.wait_s(now) or 0) + 0.001
        elif roll < 0.15:
            state.failed(Failure.OUTAGE, "a", now)
        elif roll < 0.3:
            state.failed(Failure.FAULT, "b", now)
        elif roll < 0.45:
            state.failed(Failure.REJECTED, "c", now)
        else:
            gone = set(batch[:1]) if roll < 0.5 else set()
            ended += batch
            state.forget(gone)
            state.completed()
        for refs in state.dead().values():
            ended += refs
            state.forget(refs)
    assert sorted(ended, key=lambda r: r.memory_id) == [ref(n) for n in range(items)]
    assert state.held() == set()
    assert state.wait_s(now) is None


def test_only_one_batch_is_in_flight() -> None:
    state = make(64)
    state.next_batch(0.0)
    with pytest.raises(AssertionError):
        state.next_batch(0.0)
