"""PKCS#11: the contract over SoftHSM2; versions, keys that could leave it, PINs, modules that hang."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.kms import softhsm
from tests.kms.contract import CONTEXT, KmsContract
from tests.kms.remote import provider_of

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.errors import (
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.kms import EnvelopeKms, KmsProvider
from strongroom.kms._envelope import _checksum
from strongroom.kms.pkcs11 import Pkcs11Backend

pytestmark = [
    pytest.mark.skipif(softhsm.module() is None, reason="SoftHSM2 is not installed"),
    pytest.mark.xdist_group("softhsm"),
]


@pytest.fixture
def hsm(monkeypatch: pytest.MonkeyPatch) -> softhsm.SoftHsm:
    monkeypatch.setenv("TEST_PIN", softhsm.PIN)
    return softhsm.SoftHsm()


@pytest.fixture
def made(hsm: softhsm.SoftHsm) -> Iterator[Callable[..., EnvelopeKms]]:
    providers: list[EnvelopeKms] = []

    def make(key: str, **changes: object) -> EnvelopeKms:
        config = dataclasses.replace(hsm.config(key), **changes)  # type: ignore[arg-type]
        providers.append(provider_of(config))
        return providers[-1]

    yield make
    for provider in providers:
        provider.close()


class TestPkcs11(KmsContract):
    """The contract over a key in SoftHSM2."""

    @pytest.fixture
    def key(self, hsm: softhsm.SoftHsm) -> str:
        return hsm.new_key()

    @pytest.fixture
    def other(self, hsm: softhsm.SoftHsm) -> str:
        return hsm.new_key()

    @pytest.fixture
    def provider(self, made: Callable[..., EnvelopeKms], key: str, other: str) -> KmsProvider:
        return made(key)

    @pytest.fixture
    def foreign(self, made: Callable[..., EnvelopeKms], other: str) -> KmsProvider:
        return made(other)

    def test_a_forged_checksum_does_not_help(self, provider: KmsProvider) -> None:
        """Bytes changed anywhere with the checksum repaired still unwrap to nothing."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        for i in range(2, len(wrapped) - 32):
            body = bytearray(wrapped[:-32])
            body[i] ^= 0x01
            with pytest.raises(UnwrapError):
                provider.unwrap(bytes(body) + _checksum(bytes(body)), CONTEXT)


def test_versions(hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms]) -> None:
    """Of keys with one label that with the greatest id wraps; what older ones wrapped still unwraps."""
    label = hsm.new_key(key_id=b"\x01")
    secret = SecretKey.generate()
    first = made(label)
    old = first.wrap(secret, CONTEXT)
    first.close()
    hsm.new_key(label, key_id=b"\x02")
    second = made(label)
    new = second.wrap(secret, CONTEXT)
    assert (old[4:6], new[4:6]) == (b"\x01\x01", b"\x01\x02")
    assert expose(second.unwrap(old, CONTEXT)) == expose(secret) == expose(second.unwrap(new, CONTEXT))


@pytest.mark.parametrize(
    "template",
    [{"EXTRACTABLE": True}, {"SENSITIVE": False, "EXTRACTABLE": False}],
    ids=["extractable", "readable"],
)
def test_a_key_that_could_leave_the_module_is_refused(
    hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms], template: dict[str, bool]
) -> None:
    """Whoever configures an HSM does not get one that hands out its key."""
    provider = made(hsm.new_key(**template))
    with pytest.raises(KmsDeniedError) as info:
        provider.wrap(SecretKey.generate(), CONTEXT)
    assert info.value.hint


def test_disabled_and_deleted(hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms]) -> None:
    """A key that may not decrypt is disabled, one that is gone is deleted; a former key still unwraps."""
    import pkcs11

    label, later = hsm.new_key(), hsm.new_key()
    first = made(label)
    secret = SecretKey.generate()
    wrapped = first.wrap(secret, CONTEXT)
    first.close()
    both = made(later, unwrap_keys=(label,))
    assert expose(both.unwrap(wrapped, CONTEXT)) == expose(secret)
    both.close()
    hsm.set(label, pkcs11.Attribute.DECRYPT, False)
    stopped = made(label)
    with pytest.raises(KmsKeyDisabledError):
        stopped.unwrap(wrapped, CONTEXT)
    stopped.close()
    hsm.delete(label)
    gone = made(label)
    with pytest.raises(KmsKeyDeletedError):
        gone.unwrap(wrapped, CONTEXT)
    with pytest.raises(KmsKeyDeletedError):
        gone.wrap(SecretKey.generate(), CONTEXT)


def test_another_key_under_the_same_label(hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms]) -> None:
    """A key that was made anew with label and id of the old one opens nothing of the old one."""
    label = hsm.new_key()
    first = made(label)
    wrapped = first.wrap(SecretKey.generate(), CONTEXT)
    first.close()
    hsm.delete(label)
    hsm.new_key(label)
    second = made(label)
    with pytest.raises(UnwrapError):
        second.unwrap(wrapped, CONTEXT)
    second.unwrap(second.wrap(SecretKey.generate(), CONTEXT), CONTEXT)


def test_pin(hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong PIN is denied and not shown; the right one works afterwards without a restart."""
    provider = made(hsm.new_key())
    monkeypatch.setenv("TEST_PIN", "wrong-pin")
    with pytest.raises(KmsDeniedError) as info:
        provider.wrap(SecretKey.generate(), CONTEXT)
    assert "wrong-pin" not in f"{info.value} {info.value.hint}"
    monkeypatch.setenv("TEST_PIN", softhsm.PIN)
    provider.wrap(SecretKey.generate(), CONTEXT)


def test_token_and_module_that_are_not_there(hsm: softhsm.SoftHsm, made: Callable[..., EnvelopeKms]) -> None:
    """A token or module that is missing is kms_unavailable with advice."""
    for changes in ({"token": "nothing"}, {"module": "/nonexistent/module.so"}):
        provider = made(hsm.new_key(), **changes)
        with pytest.raises(KmsUnavailableError) as info:
            provider.wrap(SecretKey.generate(), CONTEXT)
        assert info.value.hint


def test_a_module_that_hangs(hsm: softhsm.SoftHsm) -> None:
    """The caller gets its answer after the time limit; after some such calls the module is left alone."""
    backend = Pkcs11Backend(
        hsm.new_key(), module=hsm.module, token="strongroom", credentials="env:TEST_PIN", timeout_ms=100
    )
    release = threading.Event()
    for _ in range(8):
        with pytest.raises(KmsUnavailableError, match="in time"):
            backend._run(lambda _: release.wait(10))
    with pytest.raises(KmsUnavailableError, match="hangs"):
        backend._run(lambda _: True)
    release.set()
    backend.close()


def test_every_return_value_has_its_error(hsm: softhsm.SoftHsm) -> None:
    """Each exception of python-pkcs11 is one of our errors."""
    import pkcs11.exceptions as found

    backend = Pkcs11Backend("k", module=hsm.module, token="strongroom", credentials="env:X", timeout_ms=100)
    kinds = {
        name: backend._typed(kind())
        for name, kind in vars(found).items()
        if isinstance(kind, type) and issubclass(kind, found.PKCS11Error)
    }
    assert len(kinds) > 50
    assert all(isinstance(e, KeyManagementError) or e.code == "configuration" for e in kinds.values())
    assert isinstance(kinds["EncryptedDataInvalid"], UnwrapError)
    assert isinstance(kinds["PinLocked"], KmsDeniedError)
    assert isinstance(kinds["DeviceRemoved"], KmsUnavailableError)
    backend.close()
