"""The check asks the KMS for every wrapped key: several at once, in any order, with one result."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest
from tests.keyring.keyring_tools import Keys

from strongroom.crypto import SecretKey
from strongroom.errors import KmsDeniedError, KmsUnavailableError, StrongroomError
from strongroom.keyring import Keyring, _asking
from strongroom.kms import KmsKeyInfo

SPACES = 40


class Remote:
    """A KMS that takes its time, counts who asks at once, and fails as it is told."""

    def __init__(self, keys: Keys) -> None:
        self.inner = keys.kms.inner
        self.fails: dict[str, StrongroomError] = {}
        self.silent_from = self.silent_for = 0
        self.asked = self.at_once = self.at_once_most = 0
        self._lock = threading.Lock()
        keys.kms.inner = self  # type: ignore[assignment]

    def describe(self) -> KmsKeyInfo:
        return self.inner.describe()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        return self.inner.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.at_once_most = max(self.at_once, self.at_once_most)
            silent = 0 < self.silent_from <= self.asked < self.silent_from + self.silent_for
        try:
            time.sleep(0.004)
            if silent:
                raise KmsUnavailableError
            if context["namespace"] in self.fails:
                raise self.fails[context["namespace"]]
            return self.inner.unwrap(wrapped, context)
        finally:
            with self._lock:
                self.at_once -= 1

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def ring(keys: Keys) -> Keyring:
    made = keys.create()
    for number in range(SPACES):
        made.create_namespace(f"company_{number}")
    return made


@pytest.fixture
def kms(keys: Keys, ring: Keyring) -> Remote:
    return Remote(keys)


def test_a_slow_service_is_asked_several_questions_at_once_and_told_of(ring: Keyring, kms: Remote) -> None:
    """At most six; the answers are counted up to the last, by the thread that has begun it."""
    told: list[tuple[int, int]] = []
    threads: set[int] = set()

    def tell(done: int, total: int) -> None:
        told.append((done, total))
        threads.add(threading.get_ident())

    assert ring.check(tell) == []
    assert 1 < kms.at_once_most <= _asking.AT_ONCE_MAX
    assert kms.asked == SPACES + 1
    assert told == sorted(told) and told[-1] == (SPACES + 1, SPACES + 1)
    assert threads == {threading.get_ident()}


def test_findings_come_in_the_order_of_the_rows_whoever_answers_first(
    ring: Keyring, kms: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal in the middle is a finding of its key alone; all others are looked at."""
    monkeypatch.setattr(_asking, "_PAUSES_S", (0.01,))
    kms.fails = {"30": KmsDeniedError(), "7": KmsDeniedError("no"), "19": KmsUnavailableError()}
    found = [ring.check() for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert [f.code for f in found[0]] == ["kms_denied", "kms_unavailable", "kms_denied"]
    assert [f.where.split(",")[0] for f in found[0]] == [f"key of namespace {n}" for n in (7, 19, 30)]


@pytest.mark.parametrize("outage", [12, 10_000])
def test_a_service_that_falls_silent_is_waited_for_and_not_for_ever(
    ring: Keyring, kms: Remote, monkeypatch: pytest.MonkeyPatch, outage: int
) -> None:
    """Back within its patience it leaves no finding; else each key that it kept silent about is one."""
    monkeypatch.setattr(_asking, "_PAUSES_S", (0.01, 0.02, 0.04))
    monkeypatch.setattr(_asking, "PATIENCE_S", 1.0)
    kms.silent_from, kms.silent_for = 11, outage
    found = ring.check()
    if outage == 12:
        assert found == []
    else:
        assert {f.code for f in found} == {"kms_unavailable"} and len(found) >= SPACES + 1 - 10
        kms.asked, kms.silent_from = 0, 1
        assert len(ring.check()) == SPACES + 1
        assert kms.asked == SPACES + 1  # who has never answered is not waited for


def test_an_interrupt_ends_the_questions(ring: Keyring, kms: Remote) -> None:
    """Whoever helps asks nothing more, and is gone."""

    def interrupted(done: int, total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ring.check(interrupted)
    for thread in [t for t in threading.enumerate() if t.name == "strongroom-asking"]:
        thread.join(20)
        assert not thread.is_alive()
    assert kms.asked < SPACES


def test_a_key_file_is_asked_without_threads(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an answer takes microseconds nobody helps."""
    monkeypatch.setattr(_asking, "NETWORK_S", 10.0)
    monkeypatch.setattr(_asking._Asking, "_helped", lambda self: pytest.fail("a thread was asked for"))
    assert ring.check() == []
