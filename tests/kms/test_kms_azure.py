"""Azure Key Vault and Managed HSM: the contract over their real clients, login and challenges included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from azure.core import exceptions as core
from tests.kms.azure_service import AzureService
from tests.kms.contract import CONTEXT
from tests.kms.remote import RemoteContract, provider_of

from strongroom.config import KeysConfig
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
from strongroom.kms.azure import AzureBackend, typed_answer

ADDRESS = "https://memories.vault.azure.net/keys/strongroom"


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureService]:
    service = AzureService(tmp_path / "tls")
    monkeypatch.setenv("TEST_AZURE_CREDENTIALS", service.credentials())
    yield service
    service.faults.clear()
    service.stop()


class TestKeyVault(RemoteContract):
    """The contract over RSA keys."""

    @pytest.fixture
    def service(self, azure: AzureService) -> AzureService:
        return azure

    def test_both_directions_happen_at_the_service(
        self, service: AzureService, made: Callable[..., EnvelopeKms], key: str
    ) -> None:
        """Nothing is wrapped by the client on its own, where neither log nor state of the key would count."""
        provider = made(key)
        provider.unwrap(provider.wrap(SecretKey.generate(), CONTEXT), CONTEXT)
        done = [r.rpartition("/")[2] for r in service.requests if r.startswith("POST /keys/")]
        assert "wrapkey" in done
        assert "unwrapkey" in done

    def test_credentials(
        self, made: Callable[..., EnvelopeKms], key: str, monkeypatch: pytest.MonkeyPatch, azure: AzureService
    ) -> None:
        """A wrong client secret is kms_denied and shows nothing; the right one works without a restart."""
        good = azure.credentials()
        monkeypatch.setenv("TEST_AZURE_CREDENTIALS", good.replace(azure.secret, "wrong-secret"))
        provider = made(key)
        with pytest.raises(KmsDeniedError) as info:
            provider.wrap(SecretKey.generate(), CONTEXT)
        assert "wrong-secret" not in f"{info.value} {info.value.hint}"
        monkeypatch.setenv("TEST_AZURE_CREDENTIALS", good)
        provider.wrap(SecretKey.generate(), CONTEXT)


class TestManagedHsm(RemoteContract):
    """The contract over AES keys that wrap inside the HSM."""

    def test_another_process_unwraps(self, made: Callable[..., EnvelopeKms], key: str) -> None:
        """A fresh client unwraps: Azure's CryptographyClient would have wrapped under a key of its own."""
        wrapped = made(key).wrap(SecretKey.generate(), CONTEXT)
        made(key).unwrap(wrapped, CONTEXT)

    @pytest.fixture
    def service(self, azure: AzureService, monkeypatch: pytest.MonkeyPatch) -> AzureService:
        real = azure.new_key
        monkeypatch.setattr(azure, "new_key", lambda: real("oct-HSM"))
        return azure


@pytest.mark.parametrize(
    ("status", "code", "opening", "kind"),
    [
        (429, "Throttled", True, KmsThrottledError),
        (401, "Unauthorized", True, KmsDeniedError),
        (403, "ForbiddenByRbac", True, KmsDeniedError),
        (403, "KeyDisabled", True, KmsKeyDisabledError),
        (403, "KeyExpired", False, KmsKeyDisabledError),
        (404, "KeyNotFound", True, KmsKeyDeletedError),
        (409, "ObjectIsDeletedButRecoverable", True, KmsKeyDeletedError),
        (409, "Conflict", True, KeyManagementError),
        (400, "BadParameter", True, UnwrapError),
        (400, "BadParameter", False, KeyManagementError),
        (500, "InternalServerError", True, KmsUnavailableError),
        (503, "x", True, KmsUnavailableError),
        (418, "x", True, KeyManagementError),
    ],
)
def test_every_answer_has_its_error(
    status: int, code: str, opening: bool, kind: type[KeyManagementError]
) -> None:
    """Each status and code of the service is one of our errors."""
    assert type(typed_answer(status, frozenset((code,)), opening=opening)) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (core.ClientAuthenticationError("x"), KmsDeniedError),
        (core.ServiceRequestError("x"), KmsUnavailableError),
        (core.ServiceRequestTimeoutError("x"), KmsUnavailableError),
        (core.ServiceResponseTimeoutError("x"), KmsUnavailableError),
        (core.ServiceResponseError("x"), KmsUnavailableError),
        (core.DecodeError("x"), KeyManagementError),
        (ValueError("outside its period"), KmsDeniedError),
    ],
)
def test_every_failure_of_the_client_has_its_error(error: Exception, kind: type[KeyManagementError]) -> None:
    """What never became an answer is one of our errors too."""
    backend = AzureBackend(ADDRESS, algorithm="", ca_file="", credentials="", timeout_ms=100)
    assert type(backend._typed(error)) is kind


def test_addresses() -> None:
    """An address with a version, without TLS or of no key, and an unknown algorithm, are refused."""
    for key in (f"{ADDRESS}/{'0' * 32}", ADDRESS.replace("https", "http"), "https://x.vault.azure.net", "k"):
        with pytest.raises(ConfigurationError):
            provider_of(KeysConfig(provider="azure", key=key))
    with pytest.raises(ConfigurationError):
        provider_of(KeysConfig(provider="azure", key=ADDRESS, algorithm="RSA1_5"))
