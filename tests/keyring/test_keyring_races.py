"""Two processes on one keyring, one with what it has looked up long ago; and ends that were cut short."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.keyring.keyring_tools import Keys, begin_version, context, subject

from strongroom.crypto import CHACHA20_POLY1305, SecretKey, sealed_header
from strongroom.errors import KeyringMismatchError, StorageBusyError
from strongroom.keyring import KeyNote, Keyring, KeyState
from strongroom.kms import KmsDirectory, LocalKeystore
from strongroom.kms._directory import Entry

NOTE = KeyNote("test", "a test")
LATE = 60_000  # ms: this process looks for what others have changed after the test is over


def rotate_namespace_key(keyring: Keyring, ns: int) -> None:
    keyring.renew_version(ns, NOTE)
    while keyring.rewrap_data_keys(ns):
        pass
    keyring.end_versions([ns], NOTE)


def new_subject(keyring: Keyring, ns: int) -> None:
    keyring.data_key(ns, subject(2), create=True)


def next_epoch(keyring: Keyring, ns: int) -> None:
    keyring.rotate_data_key(ns, subject(1))


def wave(keyring: Keyring, ns: int) -> None:
    assert keyring.rotate_keys(ns, 1, 1_000, NOTE)


def way_back(keyring: Keyring, ns: int) -> None:
    assert keyring.return_keys(ns, 1, 1_000, NOTE)


@pytest.mark.parametrize("act", [new_subject, next_epoch, wave, way_back])
def test_no_key_is_made_under_a_namespace_key_that_was_destroyed(
    keys: Keys, act: Callable[[Keyring, int], None]
) -> None:
    """A process that knows only the version before makes its data keys under the newest one all the same."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    late = keys.open(recheck_ms=LATE)
    late.data_key(ns, subject(1), create=True)
    rotate_namespace_key(here, ns)
    act(late, ns)
    made = {
        n: late.data_key(ns, subject(n), create=True).seal(context(ns), b"kept")
        for n in range(1, 3 if act is new_subject else 2)
    }
    late.close()
    again = keys.open()
    for sealed in made.values():
        assert again.open_record(sealed_header(sealed)[1], context(ns), sealed) == b"kept"
    assert again.check() == []
    assert set(again.wrapping_versions(ns).values()) == {2}


@pytest.mark.parametrize("read", ["data row", "namespace row"])
def test_a_rotation_between_two_looks_is_not_taken_for_a_refusal(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The key that a row named a moment ago is gone: the new one is asked for, and the lease goes on."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    sealed = here.data_key(ns, None, create=True).seal(context(ns), b"kept")
    late = keys.open(recheck_ms=LATE)
    book, name = late._book, read.replace(" ", "_")
    real = getattr(book, name)

    def then_rotated(*args: Any) -> Any:
        found = real(*args)
        monkeypatch.setattr(book, name, real)
        rotate_namespace_key(here, ns)
        return found

    monkeypatch.setattr(book, name, then_rotated)
    assert late.open_record(sealed_header(sealed)[1], context(ns), sealed) == b"kept"
    assert late.data_key(ns, subject(2), create=True).epoch == 1
    assert [(h.state.value, h.error) for h in late.health() if h.ns == ns] == [("fresh", None)]


def test_a_data_key_under_a_namespace_key_that_is_gone_is_told_by_check(keys: Keys) -> None:
    """A keyring in which that has happened does not look sound."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    begin_version(here, ns, NOTE)
    with here._book.write() as change:
        change.remove_wraps(ns, 1)
    (finding,) = here.check()
    assert finding.code == "unwrap_failed" and finding.where == f"data key {here.key_ids_of(ns, b'')[0]}"


def test_a_key_of_a_new_epoch_seals_with_its_suite_everywhere(keys: Keys) -> None:
    """Also in a process that has looked at the suites before, and has made no key since."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    late = keys.open(recheck_ms=LATE)
    late.data_key(ns, None, create=True).seal(context(ns), b"x")
    here.begin_epoch(ns, CHACHA20_POLY1305, NOTE)
    made = here.data_key(ns, subject(2), create=True)
    found = late.data_key(ns, subject(2), create=False)
    assert found.key_id == made.key_id
    for key in (made, found):
        assert sealed_header(key.seal(context(ns), b"x")) == (CHACHA20_POLY1305, made.key_id)


def test_the_end_of_a_namespace_key_is_finished_by_a_repetition(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the file was written anew, it is not called destroyed; repeated, its bytes are gone."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    ((wrapped,),) = keys.sql("SELECT wrapped FROM wraps WHERE ns = ?", (ns,))
    here.renew_version(ns, NOTE)
    while here.rewrap_data_keys(ns):
        pass

    def busy() -> None:
        raise StorageBusyError

    with monkeypatch.context() as patch:
        patch.setattr(here._book, "compact", busy)
        with pytest.raises(StorageBusyError):
            here.end_versions([ns], NOTE)
    assert wrapped in keys.raw()
    again = keys.open()
    assert again.versions_left(ns) and again.check() == []
    again.rewrap_namespace(ns)
    assert again.end_versions([ns], NOTE) == 1
    assert wrapped not in keys.raw()
    assert not again.versions_left(ns) and again.check() == []
    states = [r.state for r in again.list_namespaces() if r.ns == ns]
    assert states == [KeyState.DESTROYED, KeyState.ACTIVE]


def test_a_master_key_that_was_put_in_while_another_is_noted_is_not_authenticated(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes a row while the KMS is asked does not get it under the MAC with the next genuine one."""
    keys.create().close()
    other = LocalKeystore.create(keys.path.with_name("other.key"), store_id=keys.store_id)
    directory = KmsDirectory({"default": Entry("", lambda: keys.kms), "other": Entry("", lambda: other)})
    wrap = keys.kms.wrap

    def and_write(key: SecretKey, bound: Mapping[str, str]) -> bytes:
        keys.sql("INSERT INTO master_keys VALUES (77, 'recovery', 'recovery:00', 1, 1)")
        return wrap(key, bound)

    keyring: Any = Keyring.open(keys.path, keys.store_id, directory, recheck_ms=0)
    monkeypatch.setattr(keys.kms, "wrap", and_write)
    try:
        with pytest.raises(KeyringMismatchError):
            keyring.create_namespace("company_b", names=("default", "other"))
        with pytest.raises(KeyringMismatchError):
            keyring.wraps()
    finally:
        keyring.close()
        directory.close()


def test_a_check_asks_the_kms_while_nothing_is_locked(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow service does not keep other threads of the process from their keys while it is checked."""
    here = keys.create()
    ns = here.create_namespace("company_a")
    unwrap, made = keys.kms.unwrap, []

    def slow(wrapped: bytes, bound: Mapping[str, str]) -> SecretKey:
        with ThreadPoolExecutor(1) as pool:
            made.append(pool.submit(here.data_key, ns, subject(len(made)), create=True).result(timeout=20))
        return unwrap(wrapped, bound)

    monkeypatch.setattr(keys.kms, "unwrap", slow)
    assert here.check() == [] and len(made) == 2
