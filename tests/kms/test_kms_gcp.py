"""Google Cloud KMS: the contract over its real client and protocol; checksums, locations, states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from tests.kms.contract import CONTEXT
from tests.kms.gcp_service import RING, GcpService
from tests.kms.remote import RemoteContract, provider_of

from strongroom.config import KeysConfig
from strongroom.crypto import SecretKey
from strongroom.errors import (
    ConfigurationError,
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsRegionError,
    KmsThrottledError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.kms import EnvelopeKms
from strongroom.kms.gcp import GcpBackend


class TestGcp(RemoteContract):
    """The contract over Google Cloud KMS."""

    @pytest.fixture
    def service(self) -> Iterator[GcpService]:
        service = GcpService()
        yield service
        service.faults.clear()
        service.stop()

    @pytest.mark.parametrize("damage", ["ciphertext", "unverified", "name"])
    def test_damage_on_the_way_of_a_wrap(
        self, service: GcpService, made: Callable[..., EnvelopeKms], key: str, damage: str
    ) -> None:
        """A ciphertext that arrives damaged, or a request that did, is asked for again and then given up."""
        provider = made(key)
        service.damage = damage
        with pytest.raises(KmsUnavailableError, match="damaged"):
            provider.wrap(SecretKey.generate(), CONTEXT)
        assert service.faults.requests == 2
        service.damage = ""
        provider.wrap(SecretKey.generate(), CONTEXT)

    def test_damage_on_the_way_of_an_unwrap(
        self, service: GcpService, made: Callable[..., EnvelopeKms], key: str
    ) -> None:
        """A plaintext that does not match its checksum is not taken for a key."""
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        service.damage = "plaintext"
        with pytest.raises(KmsUnavailableError, match="damaged"):
            provider.unwrap(wrapped, CONTEXT)

    def test_the_service_binds_the_context_too(self, made: Callable[..., EnvelopeKms], key: str) -> None:
        """The service itself refuses another context."""
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, {**CONTEXT, "tenant": "company_b"})
        assert provider.health().calls["unwrap", "unwrap_failed"] == 1


def test_names_and_locations() -> None:
    """A name with a version, a foreign form and another location are refused before any request."""
    for key in ("k", f"{RING}/k/cryptoKeyVersions/1", "projects/p/locations/l/keyRings/r"):
        with pytest.raises(ConfigurationError):
            provider_of(KeysConfig(provider="gcp", key=key))
    with pytest.raises(KmsRegionError):
        provider_of(KeysConfig(provider="gcp", key=f"{RING}/k", region="us-east1"))


def test_bad_credentials_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are no service account's key are refused without being shown."""
    monkeypatch.setenv("TEST_GCP", '{"private_key": "very-secret"}')
    provider = provider_of(KeysConfig(provider="gcp", key=f"{RING}/k", credentials="env:TEST_GCP"))
    with pytest.raises(ConfigurationError) as info:
        provider.wrap(SecretKey.generate(), CONTEXT)
    assert "very-secret" not in f"{info.value} {info.value.hint}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (api.ResourceExhausted("x"), KmsThrottledError),
        (api.PermissionDenied("x"), KmsDeniedError),
        (api.Unauthenticated("x"), KmsDeniedError),
        (api.NotFound("x"), KmsKeyDeletedError),
        (api.FailedPrecondition("v is not enabled, current state is: DISABLED."), KmsKeyDisabledError),
        (
            api.FailedPrecondition("v is not enabled, current state is: DESTROY_SCHEDULED."),
            KmsKeyDeletedError,
        ),
        (api.FailedPrecondition("v is not enabled, current state is: DESTROYED."), KmsKeyDeletedError),
        (api.FailedPrecondition("no primary version"), KmsKeyDisabledError),
        (api.InvalidArgument("Decryption failed"), UnwrapError),
        (
            api.InvalidArgument("The request concerns location 'a' but was sent to location 'b'"),
            KmsRegionError,
        ),
        (api.DeadlineExceeded("x"), KmsUnavailableError),
        (api.ServiceUnavailable("x"), KmsUnavailableError),
        (api.InternalServerError("x"), KmsUnavailableError),
        (api.Aborted("x"), KmsUnavailableError),
        (api.Unknown("x"), KmsUnavailableError),
        (api.AlreadyExists("x"), KeyManagementError),
        (auth.TransportError("x"), KmsUnavailableError),
        (auth.DefaultCredentialsError("x"), KmsDeniedError),
        (auth.RefreshError("x"), KmsDeniedError),
    ],
)
def test_every_status_has_its_error(error: Exception, kind: type[KeyManagementError]) -> None:
    """Each status of the service and of its login is one of our errors."""
    backend = GcpBackend(f"{RING}/k", region="", endpoint="", ca_file="", credentials="", timeout_ms=100)
    assert type(backend._typed(error, opening=True)) is kind
