"""The suite for providers over a service: the shared contract, and whatever can be wrong with a service."""

from __future__ import annotations

import base64
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.kms.contract import CONTEXT, KmsContract
from tests.kms.faults import Faults, Service

from strongroom.config import KeysConfig
from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.errors import (
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsThrottledError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.kms import EnvelopeKms, KmsProvider, make_kms
from strongroom.kms._envelope import _checksum

STORE = UUID("7a1c3f0e-0000-4000-8000-000000000001")
NOWHERE = Path("/nonexistent")


def provider_of(config: KeysConfig) -> EnvelopeKms:
    """The provider for a configuration, quick to give up."""
    found = make_kms(config, NOWHERE, STORE)
    assert isinstance(found, EnvelopeKms)
    return found


class RemoteContract(KmsContract):
    """Give the fixture ``service``; ``provider`` wraps with a key of its own, ``foreign`` with another."""

    @pytest.fixture
    def service(self) -> Iterator[Service]:
        raise NotImplementedError

    @pytest.fixture
    def key(self, service: Service) -> str:
        return service.new_key()

    @pytest.fixture
    def made(self, service: Service) -> Iterator[Callable[..., EnvelopeKms]]:
        """Providers that are closed when the test ends; changes are settings of ``KeysConfig``."""
        providers: list[EnvelopeKms] = []

        def make(key: str, **changes: object) -> EnvelopeKms:
            config = dataclasses.replace(service.config(key), **changes)  # type: ignore[arg-type]
            providers.append(provider_of(config))
            return providers[-1]

        yield make
        service.faults.clear()
        for provider in providers:
            provider.close()

    @pytest.fixture
    def provider(self, made: Callable[..., EnvelopeKms], key: str) -> KmsProvider:
        return made(key)

    @pytest.fixture
    def foreign(self, service: Service, made: Callable[..., EnvelopeKms]) -> KmsProvider:
        return made(service.new_key())

    @pytest.fixture
    def faults(self, service: Service) -> Iterator[Faults]:
        yield service.faults
        service.faults.clear()

    # -- the service's part of a wrapped key ----------------------------------------------------
    def test_a_forged_checksum_does_not_help(self, provider: KmsProvider) -> None:
        """Bytes changed anywhere with the checksum repaired still unwrap to nothing."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        for i in [*range(2, 8), *range(8, len(wrapped) - 32, 7), len(wrapped) - 33]:
            body = bytearray(wrapped[:-32])
            body[i] ^= 0x01
            with pytest.raises((UnwrapError, KmsKeyDeletedError)):
                provider.unwrap(bytes(body) + _checksum(bytes(body)), CONTEXT)

    def test_damage_costs_no_request(self, provider: KmsProvider, faults: Faults) -> None:
        """A damaged wrapped key is refused before the service is asked."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        before = faults.requests
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped[:9] + bytes((wrapped[9] ^ 1,)) + wrapped[10:], CONTEXT)
        assert faults.requests == before

    def test_services_bytes_of_another_wrap_are_refused(self, provider: KmsProvider) -> None:
        """The service's part of one wrapped key does not fit the rest of another one."""
        a, b = provider.wrap(SecretKey.generate(), CONTEXT), provider.wrap(SecretKey.generate(), CONTEXT)
        n = 4 + int.from_bytes(a[2:4], "big")
        m = 4 + int.from_bytes(b[2:4], "big")
        body = a[:n] + b[m:-32]
        with pytest.raises(UnwrapError):
            provider.unwrap(body + _checksum(body), CONTEXT)

    # -- states of the master key ---------------------------------------------------------------
    def refused_as(self, provider: KmsProvider, wrapped: bytes, kind: type[KeyManagementError]) -> None:
        with pytest.raises(kind) as info:
            provider.unwrap(wrapped, CONTEXT)
        assert type(info.value) is kind
        assert info.value.hint
        with pytest.raises(kind):
            provider.wrap(SecretKey.generate(), CONTEXT)

    def test_disabled(self, service: Service, provider: KmsProvider, key: str) -> None:
        """A disabled master key neither wraps nor unwraps, and says so; enabled it does both again."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        service.disable(key)
        self.refused_as(provider, wrapped, KmsKeyDisabledError)
        service.enable(key)
        provider.unwrap(wrapped, CONTEXT)
        provider.wrap(SecretKey.generate(), CONTEXT)

    def test_scheduled_for_deletion(self, service: Service, provider: KmsProvider, key: str) -> None:
        """A master key that waits for its deletion is told as such; when that is called off it works."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        service.schedule_deletion(key)
        self.refused_as(provider, wrapped, KmsKeyDeletedError)
        service.cancel_deletion(key)
        provider.unwrap(wrapped, CONTEXT)

    def test_deleted(self, service: Service, provider: KmsProvider, key: str) -> None:
        """A deleted master key is told as such."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        service.delete(key)
        self.refused_as(provider, wrapped, KmsKeyDeletedError)

    def test_rotated(
        self, service: Service, made: Callable[..., EnvelopeKms], provider: KmsProvider, key: str
    ) -> None:
        """After a rotation the new version wraps, and what the old one has wrapped still unwraps."""
        secret = SecretKey.generate()
        wrapped = provider.wrap(secret, CONTEXT)
        service.rotate(key)
        assert expose(provider.unwrap(wrapped, CONTEXT)) == expose(secret)
        again = provider.wrap(secret, CONTEXT)
        fresh = made(key)  # nothing rests on what this process remembers
        assert expose(fresh.unwrap(again, CONTEXT)) == expose(secret)
        assert expose(fresh.unwrap(wrapped, CONTEXT)) == expose(secret)

    def test_master_key_replaced(
        self, service: Service, made: Callable[..., EnvelopeKms], provider: KmsProvider, key: str
    ) -> None:
        """Under another master key old wrapped keys unwrap only while the old one is named."""
        secret = SecretKey.generate()
        wrapped = provider.wrap(secret, CONTEXT)
        other = service.new_key()
        with pytest.raises(UnwrapError):
            made(other).unwrap(wrapped, CONTEXT)
        both = made(other, unwrap_keys=(key,))
        assert expose(both.unwrap(wrapped, CONTEXT)) == expose(secret)
        made(other).unwrap(both.wrap(secret, CONTEXT), CONTEXT)

    # -- what a service answers when it does not work ---------------------------------------------
    def test_denied(self, provider: KmsProvider, faults: Faults) -> None:
        """Missing permission is told as such and not asked again."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        faults.set("deny")
        self.refused_as(provider, wrapped, KmsDeniedError)

    def test_throttled(self, provider: KmsProvider, faults: Faults) -> None:
        """A throttled request is repeated; throttled each time, it is told as such."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        faults.set("throttle", times=1)
        provider.unwrap(wrapped, CONTEXT)
        faults.set("throttle")
        self.refused_as(provider, wrapped, KmsThrottledError)

    def test_broken(self, provider: KmsProvider, faults: Faults) -> None:
        """A failure inside the service is repeated; failing each time, it is kms_unavailable."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        faults.set("break", times=1)
        provider.unwrap(wrapped, CONTEXT)
        faults.set("break")
        with pytest.raises(KmsUnavailableError):
            provider.unwrap(wrapped, CONTEXT)

    def test_time_out(self, made: Callable[..., EnvelopeKms], key: str, faults: Faults) -> None:
        """A service that does not answer is given up after its time."""
        provider = made(key, timeout_ms=300, attempts_max=1)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        faults.set("hang")
        with pytest.raises(KmsUnavailableError):
            provider.unwrap(wrapped, CONTEXT)
        faults.clear()
        provider.unwrap(wrapped, CONTEXT)

    def test_unreachable(self, service: Service, made: Callable[..., EnvelopeKms], key: str) -> None:
        """A service that is not there is kms_unavailable, with advice where it can be given."""
        provider = made(key, attempts_max=1, timeout_ms=1000)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        service.stop()
        with pytest.raises(KmsUnavailableError):
            provider.unwrap(wrapped, CONTEXT)

    def test_another_key_under_the_same_name(
        self, service: Service, made: Callable[..., EnvelopeKms], key: str
    ) -> None:
        """A key that was made anew under the old name opens nothing of the old one, and wraps anew."""
        replace = getattr(service, "replace", None)
        if replace is None:
            pytest.skip("names of keys are never given twice here; see test_alias_moved")
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        replace(key)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, CONTEXT)
        provider.unwrap(provider.wrap(SecretKey.generate(), CONTEXT), CONTEXT)

    # -- what is told -----------------------------------------------------------------------------
    def test_health(self, made: Callable[..., EnvelopeKms], key: str, faults: Faults) -> None:
        """Requests are counted by operation and outcome."""
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        faults.set("deny")
        with pytest.raises(KmsDeniedError):
            provider.unwrap(wrapped, CONTEXT)
        health = provider.health()
        assert health.calls == {("wrap", "ok"): 1, ("unwrap", "kms_denied"): 1}
        assert health.last_error == "kms_denied"
        assert health.silent_s is not None

    def test_no_key_material_in_logs(
        self, provider: KmsProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With every logger at DEBUG, no log line holds the inner key or the wrapped one."""
        made: list[SecretKey] = []
        real = SecretKey.generate

        class Spy:
            generate = staticmethod(lambda: made.append(SecretKey.from_bytes(expose(k := real()))) or k)
            from_bytes = SecretKey.from_bytes

        monkeypatch.setattr("strongroom.kms._envelope.SecretKey", Spy)
        key = SecretKey.generate()
        with caplog.at_level(logging.DEBUG):
            provider.unwrap(provider.wrap(key, CONTEXT), CONTEXT)
        assert made
        for secret in (*made, key):
            raw = expose(secret)
            for shown in (
                raw.hex(),
                base64.b64encode(raw).decode(),
                base64.urlsafe_b64encode(raw).decode()[:40],
                repr(raw),
            ):
                assert shown not in caplog.text
