"""How long an unwrapped key is used: fresh, due, over; outages, disabled master keys, what is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.keyring.keyring_tools import CACHE_S, Clock, Keys, Switch, context
from tests.support.waiting import until

from strongroom.crypto import SecretKey
from strongroom.errors import KeyMemoryError, KmsKeyDisabledError, KmsUnavailableError, StrongroomError
from strongroom.keyring import Keyring, LeaseState
from strongroom.keyring._leases import Leases


def settled(ring: Keyring) -> bool:
    return not ring._cache.namespaces._in_work


def state(ring: Keyring, ns: int) -> LeaseState:
    return next(h.state for h in ring.health() if h.ns == ns)


def test_fresh_keys_ask_nobody(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """In the first part of the lease a thousand uses cost no call."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    before = kms.calls
    clock.now += CACHE_S * 0.09
    for _ in range(1_000):
        key.open(context(ns), key.seal(context(ns), b"x"))
        ring.purpose_key(ns, "head")
    assert kms.calls == before


def test_the_kms_is_asked_again_beside_the_use(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """A due key is used at once while one question goes out; its answer begins a new lease."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    before = kms.calls
    clock.now += CACHE_S * 0.3
    for _ in range(50):
        key.seal(context(ns), b"x")
    until(lambda: kms.calls > before and settled(ring))
    assert kms.calls == before + 1
    assert state(ring, ns) is LeaseState.FRESH
    clock.now += CACHE_S * 0.95  # of the new lease
    key.seal(context(ns), b"x")


def test_an_outage_shorter_than_the_lease_is_not_felt_and_a_longer_one_is_told(
    ring: Keyring, kms: Switch, clock: Clock
) -> None:
    """Without answers the key works to the end of its lease, then kms_unavailable; then it works again."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    sealed = key.seal(context(ns), b"content")
    ring.purpose_key(ns, "head")
    kms.error = KmsUnavailableError
    for part in (0.3, 0.5, 0.7, 0.9, 0.999):
        clock.now = 5_000.0 + CACHE_S * part
        assert key.open(context(ns), sealed) == b"content"
        until(lambda: settled(ring))
    assert state(ring, ns) is LeaseState.DUE
    clock.now = 5_000.0 + CACHE_S
    for use in (
        lambda: ring.purpose_key(ns, "head"),
        lambda: key.open(context(ns), sealed),
        lambda: ring.require_usable(ns),
    ):
        with pytest.raises(KmsUnavailableError):
            use()
    found = next(h for h in ring.health() if h.ns == ns)
    assert (found.state, found.error, found.tenant) == (LeaseState.OVER, "kms_unavailable", "company_a")
    kms.error = None
    clock.now += 2
    assert key.open(context(ns), sealed) == b"content"
    assert state(ring, ns) is LeaseState.FRESH


def test_want_of_memory_for_keys_is_no_refusal(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """A key that cannot be unwrapped again for want of room is used on to the end of its lease."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    kms.error = KeyMemoryError
    for part in (0.4, 0.9):
        clock.now = 5_000.0 + CACHE_S * part
        key.seal(context(ns), b"x")
        until(lambda: settled(ring))
    assert state(ring, ns) is LeaseState.DUE
    clock.now = 5_000.0 + CACHE_S
    with pytest.raises(KeyMemoryError):
        key.seal(context(ns), b"x")


def test_a_disabled_master_key_takes_effect_within_the_lease(
    ring: Keyring, kms: Switch, clock: Clock
) -> None:
    """The first refusal ends the use of every key of the namespace, and their bytes are forgotten."""
    ns = ring.create_namespace("company_a")
    other = ring.create_namespace("company_b")
    key, purpose = ring.data_key(ns, None, create=False), ring.purpose_key(ns, "head")
    sealed = key.seal(context(ns), b"content")
    kms.error = KmsKeyDisabledError
    clock.now += CACHE_S * 0.3
    with pytest.raises(StrongroomError):  # the refusal arrives beside the uses
        for _ in range(1_000):
            key.open(context(ns), sealed)
            time.sleep(0.005)
    clock.now += 0.001
    with pytest.raises(KmsKeyDisabledError):
        key.open(context(ns), sealed)
    with pytest.raises(KmsKeyDisabledError):
        ring.key(key.key_id)
    with pytest.raises(StrongroomError):
        purpose.mac(b"")
    assert state(ring, ns) is LeaseState.OVER  # told as such, long before the lease would have ended
    assert all(place[0] != ns for place in ring._cache.namespaces._keys)
    assert any(place[0] == other for place in ring._cache.namespaces._keys)
    kms.error = None
    clock.now += 2
    assert key.open(context(ns), sealed) == b"content"


def test_one_answer_serves_the_namespaces_of_a_master_key(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """Ten namespaces in use ask about once an eighth together, and each once a half for itself."""
    spaces = [ring.create_namespace(f"company_{n}") for n in range(10)]
    before, lease = kms.calls, CACHE_S
    for _ in range(400):  # ten leases long
        clock.now += lease / 40
        for ns in spaces:
            ring.require_usable(ns)
        until(lambda: settled(ring))
    asked = kms.calls - before
    assert asked <= 10 * 10 / 0.425, asked  # when each asks for itself alone: 10 * 10 / 0.11
    assert asked >= 10 * 10 / 0.525


def test_every_key_is_asked_for_itself_before_half_of_its_lease(
    ring: Keyring, keys: Keys, kms: Switch, clock: Clock
) -> None:
    """Others of its master key do not keep a key alive that is refused by itself."""
    ns, other = ring.create_namespace("company_a"), ring.create_namespace("company_b")
    refused = str(ns)
    real = kms._inner.unwrap

    def unwrap(wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        if context["namespace"] == refused:
            raise KmsKeyDisabledError
        return real(wrapped, context)

    kms._inner.unwrap = unwrap  # type: ignore[method-assign]
    ended = None
    for step in range(1, 60):
        clock.now += CACHE_S / 100
        ring.require_usable(other)
        until(lambda: settled(ring))
        try:
            ring.require_usable(ns)
            until(lambda: settled(ring))
        except KmsKeyDisabledError:
            ended = step
            break
    assert ended is not None and ended <= 52
    kms._inner.unwrap = real  # type: ignore[method-assign]


def test_a_refusal_makes_the_others_ask() -> None:
    """When the KMS refuses one namespace, the others of its master keys do not wait for their time."""
    leases = Leases(CACHE_S, uniform=lambda low, high: low)
    for ns, group in ((1, (1,)), (2, (1,)), (3, (2,)), (4, ())):
        leases.begin(ns, 0.0, group)
    leases.doubt(1, 10.0)
    assert [leases.fresh(ns, 10.0) for ns in (2, 3, 4)] == [False, True, True]
    assert [leases.state(ns, 10.0) for ns in (2, 3, 4)] == [
        LeaseState.DUE,
        LeaseState.FRESH,
        LeaseState.FRESH,
    ]
    assert leases.state(2, CACHE_S - 1) is LeaseState.DUE  # asked for, not ended
    leases.begin(2, 10.0, (1,))
    assert leases.state(2, 10.0) is LeaseState.FRESH


def test_what_others_were_told_moves_no_end() -> None:
    """An answer about a sibling puts the next question off, at most to half of the lease; its end stays."""
    leases = Leases(CACHE_S, uniform=lambda low, high: low)
    leases.begin(1, 0.0, (1,))
    for step in range(1, 100):
        leases.begin(2, step * CACHE_S / 100, (1,))
    assert leases.state(1, CACHE_S * 0.49) is LeaseState.FRESH
    assert leases.state(1, CACHE_S * 0.51) is LeaseState.DUE
    assert leases.state(1, CACHE_S) is LeaseState.OVER


def test_a_refusal_is_not_asked_for_again_and_again(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """A hundred uses of a refused key within a second cost one call."""
    ns = ring.create_namespace("company_a")
    kms.error = KmsKeyDisabledError
    clock.now += CACHE_S * 2
    before = kms.calls
    for _ in range(100):
        with pytest.raises(KmsKeyDisabledError):
            ring.require_usable(ns)
    assert kms.calls == before + 1


def test_a_new_namespace_fails_at_once(ring: Keyring, kms: Switch) -> None:
    """During an outage existing namespaces work and a new one is refused clearly; nothing is left of it."""
    ns = ring.create_namespace("company_a")
    kms.error = KmsUnavailableError
    with pytest.raises(KmsUnavailableError):
        ring.create_namespace("company_b")
    ring.data_key(ns, None, create=False).seal(context(ns), b"x")
    assert [n.ns for n in ring.list_namespaces()] == [0, ns]
    kms.error = None
    assert ring.create_namespace("company_b") == ns + 1


def test_idle_keys_are_forgotten(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """What nobody has used until the end of the lease is overwritten, without a call; its next use asks."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    clock.now += CACHE_S - 1
    ring.expire()
    assert (ns, 1) in ring._cache.namespaces._keys
    clock.now += 2
    before = kms.calls
    ring.expire()
    assert not ring._cache.namespaces._keys
    assert "_secret" in dir(key)
    assert key._secret is None
    assert kms.calls == before
    key.seal(context(ns), b"x")
    assert kms.calls == before + 1


def test_sleep_of_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of leases goes on while the machine sleeps, as CLOCK_MONOTONIC does not."""
    from strongroom.keyring._namespaces import boot_clock

    asked: list[int] = []
    monkeypatch.setattr(time, "clock_gettime", lambda which: asked.append(which) or 1.0)
    boot_clock()
    assert asked == [time.CLOCK_BOOTTIME]


def test_many_threads_at_the_end_of_a_lease_ask_once(ring: Keyring, kms: Switch, clock: Clock) -> None:
    """Sixteen threads that meet an ended lease share one question, and all of them go on."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    clock.now += CACHE_S + 1
    before = kms.calls
    gate = threading.Barrier(16)

    def use(_: int) -> bytes:
        gate.wait(10)
        return key.open(context(ns), key.seal(context(ns), b"x"))

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(use, range(16))) == {b"x"}
    assert kms.calls == before + 1


def test_leases_spread() -> None:
    """Leases that begin together do not become due together, and none later than an eighth."""
    leases = Leases(1_000.0)
    for ns in range(200):
        leases.begin(ns, 0.0)
    assert 0 < sum(leases.fresh(ns, 110.0) for ns in range(200)) < 200
    assert all(leases.fresh(ns, 93.0) for ns in range(200))
    assert not any(leases.fresh(ns, 125.1) for ns in range(200))


@pytest.mark.parametrize("spaces", [1, 2, 11])
def test_an_outage_of_half_a_lease_is_felt_nowhere(spaces: int) -> None:
    """Whenever it begins, all in use has half of its lease left; the master key is asked each eighth."""
    leases, last, gap = Leases(CACHE_S), 0.0, 0.0
    for ns in range(spaces):
        leases.begin(ns, 1.0, (1,))
    for step in range(1, 5_000):
        now = 1.0 + step * CACHE_S / 1_000
        for ns in range(spaces):
            if not leases.fresh(ns, now):
                leases.begin(ns, now, (1,))
                last = now
        gap = max(gap, now - last)
        ages = [leases.age_s(ns, now) or 0.0 for ns in range(spaces)]
        assert max(ages) <= CACHE_S * 0.501
        assert all(leases.state(ns, now + CACHE_S * 0.498) is not LeaseState.OVER for ns in range(spaces))
    assert gap <= CACHE_S * 0.126


def test_a_question_that_no_thread_could_ask_is_asked_by_the_next_use(
    ring: Keyring, kms: Switch, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of threads the key is used on, and nothing keeps it from being asked for later."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=False)
    before = kms.calls

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    clock.now += CACHE_S * 0.3
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        key.seal(context(ns), b"x")
    assert kms.calls == before
    clock.now += CACHE_S * 0.05
    key.seal(context(ns), b"x")
    until(lambda: kms.calls > before and settled(ring))
    assert state(ring, ns) is LeaseState.FRESH


def test_what_came_last_counts_whatever_was_asked_first() -> None:
    """Answers of a group move what is fresh forward only; a doubt ends what was said before it, not after."""
    leases = Leases(CACHE_S, uniform=lambda low, high: low)
    for ns in (1, 2, 3):
        leases.begin(ns, 0.0, (7,))
    leases.begin(1, 100.0, (7,))
    leases.begin(3, 40.0, (7,))  # asked earlier, answered later
    assert leases.fresh(2, 100.0 + CACHE_S * 0.125 - 1)
    assert not leases.fresh(2, 100.0 + CACHE_S * 0.125 + 1)
    leases.doubt(3, 110.0)
    assert [leases.fresh(ns, 110.0) for ns in (1, 2)] == [False, False]
    leases.postpone(2, 110.0)
    assert leases.fresh(2, 111.0) and leases.state(2, 111.0) is LeaseState.DUE
    leases.begin(1, 115.0, (7,))
    assert leases.state(2, 116.0) is LeaseState.FRESH
    assert leases.fresh(2, 115.0 + CACHE_S * 0.125 - 1)
    assert not leases.fresh(2, 115.0 + CACHE_S * 0.125 + 1)


def test_ten_thousand_leases_of_one_group_are_begun_each_in_one_step() -> None:
    """What an answer says about the others is looked up when they are asked about, not written to each."""
    drawn = 0

    def uniform(low: float, high: float) -> float:
        nonlocal drawn
        drawn += 1
        return low

    leases = Leases(CACHE_S, uniform=uniform)
    for ns in range(10_000):
        leases.begin(ns, float(ns) / 1_000, (7,))
    assert drawn == 20_000
    assert all(leases.fresh(ns, CACHE_S * 0.125) for ns in range(10_000))
