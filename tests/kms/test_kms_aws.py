"""AWS KMS: the contract against moto with the states of keys added; aliases, regions, credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from tests.kms.contract import CONTEXT
from tests.kms.moto_service import REGION, MotoService, aws_credentials, backend_of
from tests.kms.remote import RemoteContract, provider_of

from strongroom.config import KeysConfig
from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
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
from strongroom.kms import EnvelopeKms, KmsProvider
from strongroom.kms._contract import encode_context
from strongroom.kms.aws import CONTEXT_BYTES_MAX, encryption_context, typed_answer

__all__ = ["aws_credentials"]


@pytest.mark.usefixtures("aws_credentials")
class TestAws(RemoteContract):
    """The contract over AWS KMS."""

    @pytest.fixture
    def service(self) -> Iterator[MotoService]:
        service = MotoService()
        yield service
        service.faults.clear()
        service.stop()

    def test_alias_moved(self, service: MotoService, made: Callable[..., EnvelopeKms]) -> None:
        """A moved alias wraps with the new key; the old key unwraps when named as a former key."""
        old, new = service.new_key(), service.new_key()
        service.alias("memories", old)
        provider = made("alias/memories")
        secret = SecretKey.generate()
        wrapped = provider.wrap(secret, CONTEXT)
        service.alias("memories", new)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, CONTEXT)
        again = made("alias/memories", unwrap_keys=(old,))
        assert expose(again.unwrap(wrapped, CONTEXT)) == expose(secret)
        assert expose(made(new).unwrap(provider.wrap(secret, CONTEXT), CONTEXT)) == expose(secret)

    def test_two_regions(self, service: MotoService, made: Callable[..., EnvelopeKms]) -> None:
        """What a multi-region key wraps here unwraps there; a disabled replica stops only its region."""
        first = service.new_key(multi_region=True)
        backend_of(REGION).replicate_key(first.rpartition("/")[2], "eu-west-1")
        second = first.replace(REGION, "eu-west-1")
        here, there = made(first), made(second)
        secret = SecretKey.generate()
        wrapped = here.wrap(secret, CONTEXT)
        assert expose(there.unwrap(wrapped, CONTEXT)) == expose(secret)
        assert expose(here.unwrap(there.wrap(secret, CONTEXT), CONTEXT)) == expose(secret)
        backend_of("eu-west-1").disable_key(first.rpartition("/")[2])
        with pytest.raises(KmsKeyDisabledError):
            there.unwrap(wrapped, CONTEXT)
        here.unwrap(wrapped, CONTEXT)

    def test_a_grant_for_one_tenant(self, service: MotoService, provider: KmsProvider, key: str) -> None:
        """A grant that is narrowed to a tenant by the encryption context allows its keys and no others."""
        service.grant(key, {"tenant": CONTEXT["tenant"], "store_id": CONTEXT["store_id"]})
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        provider.unwrap(wrapped, CONTEXT)
        with pytest.raises(KmsDeniedError):
            provider.wrap(SecretKey.generate(), {**CONTEXT, "tenant": "company_b"})
        with pytest.raises(KmsDeniedError):
            provider.unwrap(wrapped, {**CONTEXT, "tenant": "company_b"})

    def test_one_alias_in_two_regions_is_two_master_keys(self, made: Callable[..., EnvelopeKms]) -> None:
        """The address of an alias holds its region, so that the wraps of two regions are told apart."""
        here, there = made("alias/x", region=REGION), made("alias/x", region="eu-west-1")
        assert here.describe().key_uri != there.describe().key_uri

    def test_wrong_region(self, service: MotoService, made: Callable[..., EnvelopeKms], key: str) -> None:
        """An ARN of another region is refused before any request; a bare id there is not found."""
        with pytest.raises(KmsRegionError):
            made(key, region="us-east-1")
        bare = made(key.rpartition("/")[2], region="us-east-1")
        with pytest.raises(KmsKeyDeletedError, match="another region"):
            bare.wrap(SecretKey.generate(), CONTEXT)

    def test_the_service_binds_the_context_too(
        self, service: MotoService, made: Callable[..., EnvelopeKms], key: str
    ) -> None:
        """The service itself refuses another encryption context."""
        provider = made(key)
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, {**CONTEXT, "tenant": "company_b"})
        assert provider.health().calls["unwrap", "unwrap_failed"] == 1

    def test_credentials_are_read_again(
        self,
        service: MotoService,
        made: Callable[..., EnvelopeKms],
        key: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """New credentials behind the reference work without a restart; bad ones are not shown."""
        provider = made(key)
        provider.wrap(SecretKey.generate(), CONTEXT)
        monkeypatch.setenv("TEST_AWS_CREDENTIALS", "AKIA:very-secret")
        with pytest.raises(ConfigurationError) as info:
            provider.wrap(SecretKey.generate(), CONTEXT)
        assert "very-secret" not in f"{info.value} {info.value.hint}"
        fresh = {"access_key_id": "other", "secret_access_key": "x", "session_token": "y"}
        monkeypatch.setenv("TEST_AWS_CREDENTIALS", json.dumps(fresh))
        provider.wrap(SecretKey.generate(), CONTEXT)


def answer(code: str, message: str = "", status: int = 400) -> dict[str, object]:
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ThrottlingException", KmsThrottledError),
        ("AccessDeniedException", KmsDeniedError),
        ("ExpiredTokenException", KmsDeniedError),
        ("InvalidKeyUsageException", KmsDeniedError),
        ("DisabledException", KmsKeyDisabledError),
        ("NotFoundException", KmsKeyDeletedError),
        ("InvalidArnException", KmsRegionError),
        ("InvalidCiphertextException", UnwrapError),
        ("IncorrectKeyException", UnwrapError),
        ("KeyUnavailableException", KmsUnavailableError),
        ("KMSInternalException", KmsUnavailableError),
        ("SomethingNew", KeyManagementError),
        ("bad code\n", KeyManagementError),
    ],
)
def test_every_code_has_its_error(code: str, kind: type[KeyManagementError]) -> None:
    """Each code of the service's reference is one of our errors; an unknown one is no crash."""
    assert type(typed_answer(answer(code))) is kind
    assert "\n" not in str(typed_answer(answer(code)))


def test_states_and_status() -> None:
    """KMSInvalidStateException tells deletion from other states; an unknown code with 5xx is unavailable."""
    pending = typed_answer(answer("KMSInvalidStateException", "arn:... is pending deletion."))
    assert type(pending) is KmsKeyDeletedError
    assert (
        type(typed_answer(answer("KMSInvalidStateException", "x is pending import."))) is KmsKeyDisabledError
    )
    assert type(typed_answer(answer("NotFoundException", "Invalid arn us-east-1"))) is KmsRegionError
    assert type(typed_answer(answer("What", status=503))) is KmsUnavailableError
    assert type(typed_answer(answer("What", status=429))) is KmsThrottledError


def test_encryption_context_is_small_and_exact() -> None:
    """Empty entries are left out, large ones are replaced by the digest, and the digest is always there."""
    small = encryption_context(CONTEXT | {"tenant": ""}, encode_context(CONTEXT | {"tenant": ""}))
    assert "tenant" not in small
    assert small["namespace"] == "3"
    large = {f"k{i}": "x" * 1024 for i in range(16)}
    assert list(encryption_context(large, encode_context(large))) == ["strongroom-context"]
    assert sum(len(k) + len(v) for k, v in small.items()) < CONTEXT_BYTES_MAX
    taken = {"strongroom-context": "forged"}
    assert encryption_context(taken, encode_context(taken))["strongroom-context"] != "forged"


def test_nobody_listens(aws_credentials: None) -> None:
    """No credentials, no server: typed errors with advice."""
    key = f"arn:aws:kms:{REGION}:123456789012:key/1"
    config = KeysConfig(
        provider="aws",
        key=key,
        endpoint="http://127.0.0.1:9",
        credentials="env:TEST_AWS_CREDENTIALS",
        attempts_max=1,
    )
    with pytest.raises(KmsUnavailableError) as info:
        provider_of(config).wrap(SecretKey.generate(), CONTEXT)
    assert info.value.hint
