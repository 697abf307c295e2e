"""Rates and waiting after failures, as models of themselves; memory stays bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.access import Backoff, RateLimit, network_of

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 3.0)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.floats(0.1, 5.0), st.integers(1, 5))
def test_no_window_lets_more_through_than_burst_and_rate(
    steps: list[tuple[str, float]], per_s: float, burst: int
) -> None:
    """Of one key at most ``burst + rate * span`` are let through, whatever others do."""
    limit = RateLimit(per_s, burst, 100)
    now, passed = 100.0, {"a": [], "b": [], "c": []}
    for key, pause in steps:
        now += pause
        wait = limit.wait_s(key, now)
        if wait == 0.0:
            passed[key].append(now)
        else:
            assert 0 < wait <= 1 / per_s + 1e-6
    for times in passed.values():
        for i, start in enumerate(times):
            for j in range(i, len(times)):
                assert j - i + 1 <= burst + (times[j] - start) * per_s + 1e-6


def test_who_waits_as_long_as_it_is_told_gets_through() -> None:
    limit = RateLimit(2.0, 1, 10)
    assert limit.wait_s("a", 0.0) == 0.0
    wait = limit.wait_s("a", 0.0)
    assert wait == 0.5 and limit.wait_s("a", 0.0 + wait) == 0.0


def test_waiting_doubles_and_ends() -> None:
    """Free failures cost nothing, then 1, 2, 4, ... up to the longest; success and silence forget."""
    back = Backoff(3, 1.0, 10.0, 100.0, 10)
    waits = []
    for _ in range(9):
        back.failed("k", 0.0)
        waits.append(back.wait_s("k", 0.0))
    assert waits == [0, 0, 0, 1, 2, 4, 8, 10, 10]
    assert back.wait_s("k", 9.5) == 0.5 and back.wait_s("k", 10.0) == 0.0 and back.wait_s("other", 0.0) == 0.0
    back.succeeded("k")
    back.failed("k", 11.0)
    assert back.wait_s("k", 11.0) == 0.0
    for _ in range(3):
        back.failed("k", 12.0)
    assert back.wait_s("k", 12.0) == 1.0
    back.failed("k", 12.0 + 101.0)
    assert back.wait_s("k", 12.0 + 101.0) == 0.0


def test_memory_is_bounded_under_a_flood_of_names() -> None:
    back, limit = Backoff(1, 1.0, 10.0, 100.0, 50), RateLimit(1.0, 1, 50)
    for n in range(10_000):
        back.failed(f"k{n}", float(n))
        limit.wait_s(f"k{n}", float(n))
    assert len(back) == len(limit) == 50


def test_zero_switches_off() -> None:
    assert all(RateLimit(0, 1, 10).wait_s("a", 0.0) == 0.0 for _ in range(100))
    back = Backoff(0, 1.0, 10.0, 100.0, 10)
    for _ in range(100):
        back.failed("a", 0.0)
    assert back.wait_s("a", 0.0) == 0.0 and len(back) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::/64"),
     ("2001:db8::ffff", "2001:db8::/64"), ("fe80::1%eth0", "fe80::/64"), ("nonsense", "nonsense")],
)  # fmt: skip
def test_what_counts_as_one_source(address: str, network: str) -> None:
    """Somebody with a /64 of addresses is one source."""
    assert network_of(address) == network
