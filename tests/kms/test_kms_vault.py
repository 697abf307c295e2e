"""HashiCorp Vault and OpenBao: the contract over transit; logins, renewal, namespaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kms.contract import CONTEXT
from tests.kms.remote import RemoteContract, provider_of
from tests.kms.vault_service import VaultService

from strongroom.crypto import SecretKey
from strongroom.errors import (
    ConfigurationError,
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsThrottledError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.kms import EnvelopeKms
from strongroom.kms.vault import VaultBackend, typed_answer


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultService]:
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    service = VaultService()
    yield service
    service.faults.clear()
    service.stop()


class TestVault(RemoteContract):
    """The contract over a derived transit key."""

    @pytest.fixture
    def service(self, vault: VaultService) -> VaultService:
        return vault

    def test_the_service_binds_the_context_too(self, made: Callable[..., EnvelopeKms], key: str) -> None:
        """Vault itself refuses another context."""
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, {**CONTEXT, "tenant": "company_b"})
        assert provider.health().calls["unwrap", "unwrap_failed"] == 1

    def test_an_old_version_that_is_switched_off(
        self, service: VaultService, made: Callable[..., EnvelopeKms], key: str
    ) -> None:
        """min_decryption_version stops the old version and not the new one."""
        provider = made(key)
        old = provider.wrap(SecretKey.generate(), CONTEXT)
        service.rotate(key)
        new = provider.wrap(SecretKey.generate(), CONTEXT)
        service.keys[key].least = 2
        provider.unwrap(new, CONTEXT)
        with pytest.raises(KmsKeyDisabledError):
            provider.unwrap(old, CONTEXT)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def backend(service: VaultService, clock: Clock, **changes: str) -> VaultBackend:
    settings = {"mount": "", "namespace": "", "auth": "approle", "role": service.role, "ca_file": ""}
    settings |= {"credentials": "env:TEST_SECRET_ID", **changes}
    return VaultBackend("k0", endpoint=service.endpoint, timeout_ms=2000, clock=clock, **settings)  # type: ignore[arg-type]


def used(provider: VaultBackend) -> bool:
    return provider.decrypt(provider.encrypt(b"x" * 32, CONTEXT, b"bound"), CONTEXT, b"bound") == b"x" * 32


def test_approle_logs_in_once_renews_in_time_and_again_when_it_has_to(
    vault: VaultService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login serves two thirds of its lease, then it is renewed; a revoked or expired token is replaced."""
    monkeypatch.setenv("TEST_SECRET_ID", vault.secret_id)
    vault.new_key()
    clock = Clock()
    provider = backend(vault, clock)
    assert used(provider)
    clock.now = 2_300
    assert used(provider)
    assert (vault.logins, vault.renewals) == (1, 0)
    clock.now = 2_500
    assert used(provider)
    assert (vault.logins, vault.renewals) == (1, 1)
    vault.tokens.clear()  # revoked
    assert used(provider)
    assert vault.logins == 2
    clock.now += 4_000  # past its end, without a renewal
    assert used(provider)
    assert vault.logins == 3
    provider.close()


def test_a_refused_login_is_denied_and_shows_nothing(
    vault: VaultService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong secret_id gives a typed error without the secret."""
    monkeypatch.setenv("TEST_SECRET_ID", "wrong-secret-id")
    vault.new_key()
    provider = backend(vault, Clock())
    with pytest.raises(KmsDeniedError) as info:
        used(provider)
    assert "wrong-secret-id" not in f"{info.value} {info.value.hint}"
    provider.close()


def test_kubernetes_login_reads_the_pods_token(vault: VaultService, tmp_path: Path) -> None:
    """The JWT of the service account, which Kubernetes replaces, is read from its file at each login."""
    vault.new_key()
    path = tmp_path / "token"
    path.write_text(vault.jwt + "\n")
    provider = backend(vault, Clock(), auth="kubernetes", credentials=f"file:{path}")
    assert used(provider)
    vault.jwt = "pod.jwt.renewed"
    path.write_text(vault.jwt)
    vault.tokens.clear()
    assert used(provider)
    provider.close()


def test_a_configured_token_is_renewed_and_replaced_without_restart(
    vault: VaultService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewable token is renewed; a new one behind the reference is used at once."""
    vault.new_key()
    vault.tokens["short"] = 300
    monkeypatch.setenv("TEST_VAULT_TOKEN", "short")
    clock = Clock()
    provider = backend(vault, clock, auth="token", role="", credentials="env:TEST_VAULT_TOKEN")
    assert used(provider)
    before = vault.renewals
    clock.now = 250
    assert used(provider)
    assert vault.renewals == before + 1
    del vault.tokens["short"]
    with pytest.raises(KmsDeniedError):
        used(provider)
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    assert used(provider)
    provider.close()


def test_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace goes along with each request; without it the engine is not there."""
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    service = VaultService(namespace="team/memories")
    key = service.new_key()
    inside = provider_of(service.config(key))
    inside.unwrap(inside.wrap(SecretKey.generate(), CONTEXT), CONTEXT)
    outside = provider_of(dataclasses.replace(service.config(key), namespace=""))
    with pytest.raises(KmsKeyDeletedError):
        outside.wrap(SecretKey.generate(), CONTEXT)
    assert inside.describe().key_uri != outside.describe().key_uri
    for provider in (inside, outside):
        provider.close()
    service.stop()


@pytest.mark.parametrize(
    ("status", "text", "opening", "kind"),
    [
        (429, "", True, KmsThrottledError),
        (403, "permission denied", True, KmsDeniedError),
        (400, "encryption key not found", True, KmsKeyDeletedError),
        (404, "no handler for route", True, KmsKeyDeletedError),
        (400, "key is soft deleted", True, KmsKeyDeletedError),
        (400, "version is disallowed by policy (too old)", True, KmsKeyDisabledError),
        (400, "cipher: message authentication failed", True, UnwrapError),
        (400, "missing 'context' for key derivation", False, KeyManagementError),
        (307, "", True, KmsUnavailableError),
        (412, "", True, KmsUnavailableError),
        (500, "", True, KmsUnavailableError),
        (503, "vault is sealed", True, KmsUnavailableError),
        (418, "", True, KeyManagementError),
    ],
)
def test_every_answer_has_its_error(
    status: int, text: str, opening: bool, kind: type[KeyManagementError]
) -> None:
    """Each status of the service is one of our errors."""
    assert type(typed_answer(status, text, opening=opening)) is kind


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "../sys/seal"},
        {"mount": "../sys"},
        {"namespace": "a//b"},
        {"auth": "ldap"},
        {"auth": "approle"},
        {"credentials": ""},
        {"endpoint": "http://vault.example.com"},
        {"endpoint": "ftp://127.0.0.1"},
        {"credentials": "s.literal-token"},
    ],
    ids=str,
)
def test_bad_settings_are_refused(vault: VaultService, changes: dict[str, str]) -> None:
    """A path that leads elsewhere, an incomplete login, plain HTTP and a literal secret are refused."""
    config = dataclasses.replace(vault.config("k0"), **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as info:
        provider_of(config)
    assert "s.literal-token" not in f"{info.value} {info.value.hint}"
