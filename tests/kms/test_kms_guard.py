"""Retries and the circuit breaker: as a state machine, and driven by a clock of the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import (
    ClosedError,
    InvalidInputError,
    KmsDeniedError,
    KmsThrottledError,
    KmsUnavailableError,
    StrongroomError,
)
from strongroom.kms import BreakerState
from strongroom.kms._guard import Breaker, Guard, GuardSettings


class Time:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def guard(time: Time, **settings: int) -> Guard:
    return Guard(GuardSettings(**settings), clock=time.clock, wait=time.wait, uniform=lambda a, b: b)


def failing(kind: type[StrongroomError], times: int) -> Callable[[], str]:
    """Raises so many times, then answers."""
    left = [times]

    def ask() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise kind
        return "key"

    return ask


def test_repeats_until_it_answers() -> None:
    """Silence and throttling are borne, with doubling waits that have an upper bound."""
    time = Time()
    patient = guard(time, attempts_max=6, backoff_ms_base=100, backoff_ms_max=500, failures_max=99)
    assert patient.call("unwrap", failing(KmsUnavailableError, 5)) == "key"
    assert time.waits == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert patient.call("unwrap", failing(KmsThrottledError, 1)) == "key"


def test_gives_up_after_its_attempts_and_never_repeats_a_refusal() -> None:
    """The error of the last attempt is told; a refusal is told at once."""
    time = Time()
    with pytest.raises(KmsThrottledError):
        guard(time, attempts_max=3).call("unwrap", failing(KmsThrottledError, 9))
    assert len(time.waits) == 2
    with pytest.raises(KmsDeniedError):
        guard(time).call("unwrap", failing(KmsDeniedError, 1))
    assert len(time.waits) == 2


def test_what_a_library_did_not_foresee_is_no_answer() -> None:
    """An answer of another form than a client library expects is borne and told as silence, by type alone."""
    patient, answers = guard(Time(), attempts_max=3), iter([{}, None, {"Plaintext": "key"}])

    def ask() -> str:
        return next(answers)["Plaintext"]  # type: ignore[index]

    assert patient.call("unwrap", ask) == "key"
    with pytest.raises(KmsUnavailableError, match=r"\(KeyError\)") as info:
        guard(Time(), attempts_max=1).call("unwrap", lambda: {"secret": "x"}["Plaintext"])
    assert info.value.__cause__ is None and info.value.__context__ is None


def test_jitter_is_full() -> None:
    """A wait lies anywhere between nothing and its bound."""
    asked: list[tuple[float, float]] = []
    time = Time()
    patient = Guard(
        GuardSettings(), clock=time.clock, wait=time.wait, uniform=lambda a, b: asked.append((a, b)) or 0.0
    )
    patient.call("wrap", failing(KmsUnavailableError, 2))
    assert asked == [(0, 0.1), (0, 0.2)]


def test_breaker_stops_asking_and_lets_one_through_later() -> None:
    """After failures in a row nobody asks; after its time one does, and its answer closes the breaker."""
    time = Time()
    calls: list[int] = []

    def ask() -> str:
        calls.append(1)
        raise KmsUnavailableError

    patient = guard(time, attempts_max=1, failures_max=3, open_ms=5_000)
    for _ in range(10):
        with pytest.raises(KmsUnavailableError):
            patient.call("unwrap", ask)
    assert len(calls) == 3
    assert patient.health().breaker is BreakerState.OPEN
    time.now += 5
    assert patient.health().breaker is BreakerState.HALF_OPEN
    with pytest.raises(KmsUnavailableError):
        patient.call("unwrap", ask)
    with pytest.raises(KmsUnavailableError):
        patient.call("unwrap", ask)
    assert len(calls) == 4
    time.now += 5
    assert patient.call("unwrap", lambda: "key") == "key"
    assert patient.health().breaker is BreakerState.CLOSED


def test_refusals_and_throttling_do_not_open_the_breaker() -> None:
    """Who answers is not down."""
    time = Time()
    patient = guard(time, attempts_max=1, failures_max=2)
    for kind in (KmsDeniedError, KmsThrottledError) * 5:
        with pytest.raises(kind):
            patient.call("unwrap", failing(kind, 1))
    assert patient.health().breaker is BreakerState.CLOSED


@given(st.lists(st.tuples(st.sampled_from(["fail", "answer", "nothing"]), st.floats(0, 20)), max_size=60))
def test_breaker_never_locks_out_for_good(steps: list[tuple[str, float]]) -> None:
    """Whatever happened: after its time one request is let through, and in the state open none."""
    breaker, now = Breaker(failures_max=3, open_s=5), 0.0
    for outcome, pause in steps:
        now += pause
        state, admitted = breaker.state(now), breaker.admit(now)
        assert admitted or state is not BreakerState.CLOSED
        assert not (admitted and state is BreakerState.OPEN)
        if admitted and outcome == "answer":
            breaker.succeeded()
            assert breaker.state(now) is BreakerState.CLOSED
        elif admitted and outcome == "fail":
            breaker.failed(now)
    assert breaker.admit(now + 5.1)


def test_half_open_admits_one_of_many_threads() -> None:
    """Of sixteen threads that come when the breaker is half open one asks; the others are told at once."""
    time = Time()
    patient = guard(time, attempts_max=1, failures_max=1, open_ms=1_000)
    with pytest.raises(KmsUnavailableError):
        patient.call("unwrap", failing(KmsUnavailableError, 1))
    time.now += 1
    asked, gate, release = [], threading.Barrier(16), threading.Event()

    def ask() -> str:
        asked.append(1)
        release.wait(10)
        return "key"

    def one(_: int) -> str:
        gate.wait(10)
        try:
            return patient.call("unwrap", ask)
        except KmsUnavailableError:
            return "told"

    with ThreadPoolExecutor(16) as pool:
        found = pool.map(one, range(16))
        while not asked:
            pass
        release.set()
        outcomes = list(found)
    assert (
        sorted(outcomes) == ["key"] + ["told"] * 15 or outcomes.count("key") > 1
    )  # late ones find it closed
    assert outcomes.count("key") == len(asked)


def test_close_wakes_whoever_waits() -> None:
    """A closed provider keeps nobody waiting for a repetition."""
    patient = Guard(GuardSettings(backoff_ms_base=600_000, backoff_ms_max=600_000), uniform=lambda a, b: b)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(patient.call, "unwrap", failing(KmsUnavailableError, 9))
        patient.close()
        with pytest.raises((ClosedError, KmsUnavailableError)):
            waiting.result(30)
    with pytest.raises(ClosedError):
        patient.call("unwrap", lambda: "key")


def test_settings_have_bounds() -> None:
    """No guard without attempts or with too many, and no breaker without failures."""
    for attempts in (0, 11):
        with pytest.raises(InvalidInputError):
            Guard(GuardSettings(attempts_max=attempts))
    with pytest.raises(InvalidInputError):
        Breaker(failures_max=0, open_s=1)
