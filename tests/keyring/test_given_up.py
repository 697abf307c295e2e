"""Keys that are given up, at the end of a lease, between the look and the use: they are asked for again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.keyring.keyring_tools import Switch, begin_version, context

from strongroom.crypto import AES_256_GCM, SecretKey
from strongroom.errors import KmsUnavailableError
from strongroom.keyring import KeyNote, Keyring
from strongroom.keyring import _rotating as rotating
from strongroom.keyring._cache import KeyCache
from strongroom.keyring._namespaces import NamespaceKeys
from strongroom.keyring._roots import PurposeRoots
from strongroom.model import SealedRecord, State


@pytest.mark.parametrize("use", ["open", "open_record", "open_rows", "seal", "seal_rows"])
@pytest.mark.parametrize("outage", [False, True])
def test_a_key_that_is_given_up_between_look_and_use_is_not_taken_for_one_that_is_gone(
    ring: Keyring, kms: Switch, monkeypatch: pytest.MonkeyPatch, use: str, outage: bool
) -> None:
    """The lease ends in just that moment: the KMS is asked, and its answer counts, not "key_state"."""
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, None, create=True)
    sealed = key.seal(context(ns), b"kept")
    row = SealedRecord(
        ns=ns, memory_id=bytes(16), field=0, seq=1, version=1, content_version=1, key_id=key.key_id,
        state=State.LIVE, model=0, sealed=sealed,
    )  # fmt: skip
    look = "admit_sealing" if use.startswith("seal") else "admit"
    real, spaces = getattr(KeyCache, look), ring._cache.namespaces

    def ended(*arguments: object) -> None:
        real(*arguments)
        monkeypatch.setattr(KeyCache, look, real)
        if outage:
            kms.error = KmsUnavailableError
        spaces._forget(ns)

    def opened() -> object:
        found: list[bytes] = []
        ring.open_rows("company_a", 1, [row], found)
        return found

    uses: dict[str, Callable[[], object]] = {
        "open": lambda: key.open(context(ns), sealed),
        "open_record": lambda: ring.open_record(key.key_id, context(ns), sealed),
        "open_rows": opened,
        "seal": lambda: key.seal(context(ns), b"x"),
        "seal_rows": lambda: key.seal_rows("company_a", 1, [(bytes(16), 0, 1, b"x")]),
    }
    monkeypatch.setattr(KeyCache, look, ended)
    if outage:
        with pytest.raises(KmsUnavailableError):
            uses[use]()
    else:
        assert uses[use]()
    assert getattr(KeyCache, look) is real


@pytest.mark.parametrize("use", ["mac", "seal", "open", "wrap", "unwrap", "blinded", "derived"])
@pytest.mark.parametrize("outage", [False, True])
def test_a_purpose_key_that_is_given_up_is_derived_again_when_it_is_used(
    ring: Keyring, kms: Switch, monkeypatch: pytest.MonkeyPatch, use: str, outage: bool
) -> None:
    """The lease ends between look and use: the use succeeds, or tells what the KMS says; not "key_state"."""
    ns = ring.create_namespace("company_a")
    ring.blinded(ns, b"user:42")
    key, secret = ring.purpose_key(ns, "head"), SecretKey.generate()
    known = key.mac(b"x")
    sealed, wrapped = key.seal(0, context(ns), b"kept", AES_256_GCM), key.wrap(secret, b"c", AES_256_GCM)
    spaces, real = ring._cache.namespaces, SecretKey.derive
    blinds: list[bytes] = []

    def ended(of: SecretKey, label: str, context: bytes = b"") -> SecretKey:
        monkeypatch.setattr(SecretKey, "derive", real)
        if outage:
            kms.error = KmsUnavailableError
        spaces._forget(ns)
        return real(of, label, context)

    def derived() -> object:
        monkeypatch.setattr(SecretKey, "derive", ended)
        return ring.purpose_key(ns, "another").mac(b"x")

    def blinded() -> object:
        chain = PurposeRoots._chain

        def given_up(roots: PurposeRoots, at: int, root: int) -> object:
            found = chain(roots, at, root)
            monkeypatch.setattr(PurposeRoots, "_chain", chain)
            spaces._forget(ns)
            return found

        blinds.append(ring.blinded(ns, b"user:42")[0])
        monkeypatch.setattr(PurposeRoots, "_chain", given_up)
        if outage:
            kms.error = KmsUnavailableError
        blinds.append(ring.blinded(ns, b"user:42")[0])
        return blinds[0] == blinds[1]

    uses: dict[str, Callable[[], object]] = {
        "mac": lambda: key.mac(b"x") == known,
        "seal": lambda: key.open(context(ns), key.seal(0, context(ns), b"y", AES_256_GCM)) == b"y",
        "open": lambda: key.open(context(ns), sealed) == b"kept",
        "wrap": lambda: key.unwrap(key.wrap(secret, b"d", AES_256_GCM), b"d").mac(b"") == secret.mac(b""),
        "unwrap": lambda: key.unwrap(wrapped, b"c").mac(b"") == secret.mac(b""),
        "blinded": blinded,
        "derived": derived,
    }
    if use not in ("blinded", "derived"):
        if outage:
            kms.error = KmsUnavailableError
        spaces._forget(ns)
    if outage:
        with pytest.raises(KmsUnavailableError):
            uses[use]()
    else:
        assert uses[use]()


def test_the_bytes_of_a_purpose_key_go_with_every_lease(ring: Keyring) -> None:
    """Whoever holds a handle over leases and changes of state keeps no bytes past the end of any of them."""
    ns = ring.create_namespace("company_a")
    key = ring.purpose_key(ns, "head")
    known, seen = key.mac(b"x"), []
    for _ in range(3):
        secret = key._secret
        assert secret is not None
        seen.append(secret)
        ring.rotate_data_key(ns, None)  # a change of state: places are looked up again
        ring._cache.namespaces._forget(ns)
        assert secret.wiped and key._secret is None
        assert key.mac(b"x") == known
    assert ring.purpose_key(ns, "head") is key


@pytest.mark.parametrize("use", ["first use", "new key", "rotate", "rewrap", "renew", "root", "reseal"])
def test_a_namespace_key_that_is_given_up_between_look_and_use_is_asked_for_again(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """The lease ends while data keys are unwrapped, made, wrapped anew or sealed with: it succeeds."""
    note = KeyNote("owner", "test", "0")
    ns = ring.create_namespace("company_a")
    key = ring.data_key(ns, b"s" * 32, create=True)
    row = SealedRecord(
        ns=ns, memory_id=bytes(16), field=0, seq=1, version=1, content_version=1, key_id=key.key_id,
        state=State.LIVE, model=0, sealed=key.seal(context(ns), b"kept"),
    )  # fmt: skip
    last = max(record.key_id for record in ring.list_keys(ns))
    if use == "rewrap":
        begin_version(ring, ns, note)
    if use == "reseal":
        ring.rotate_keys(ns, 1, last, note)
    spaces, real = ring._cache.namespaces, NamespaceKeys.key
    ends = [True]

    def ended(keys: NamespaceKeys, at: int, version: int) -> SecretKey:
        found = real(keys, at, version)
        if at == ns and ends and ends.pop():
            spaces._forget(ns)
        return found

    def given_up(jobs: object) -> object:
        monkeypatch.undo()
        spaces._forget(ns)
        return real_reseal(jobs)

    real_reseal = rotating.reseal_many
    uses: dict[str, Callable[[], object]] = {
        "first use": lambda: ring.open_record(key.key_id, context(ns), row.sealed) == b"kept",
        "new key": lambda: ring.data_key(ns, b"t" * 32, create=True).seal(context(ns), b"x"),
        "rotate": lambda: ring.rotate_keys(ns, 1, last, note),
        "rewrap": lambda: ring.rewrap_data_keys(ns),
        "renew": lambda: ring.renew_version(ns, note),
        "root": lambda: ring.renew_root(ns, note).reblinded,
        "reseal": lambda: ring.reseal(ns, "company_a", 1, [row], 1, last).made,
    }
    if use == "reseal":
        monkeypatch.setattr(rotating, "reseal_many", given_up)
    else:
        if use == "first use":
            ring._cache.keys.clear()
        monkeypatch.setattr(NamespaceKeys, "key", ended)
    assert uses[use]()
    assert use == "reseal" or not ends


def test_what_is_given_up_at_the_end_of_a_lease_is_overwritten(ring: Keyring) -> None:
    """The bytes behind the handles of data and purpose keys of that namespace, and of no other."""
    spaces = [ring.create_namespace("company_a"), ring.create_namespace("company_b")]
    held = []
    for ns in spaces:
        data, purpose = ring.data_key(ns, None, create=True), ring.purpose_key(ns, "blind-index")
        held.append((data, purpose, data._secret, purpose._secret))
    ring._cache.namespaces._forget(spaces[0])
    assert [secret.wiped for secret in held[0][2:] if secret is not None] == [True, True]
    assert [secret.wiped for secret in held[1][2:] if secret is not None] == [False, False]
