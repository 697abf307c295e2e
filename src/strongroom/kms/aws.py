"""AWS Key Management Service, through boto3: Encrypt and Decrypt with an encryption context.

The encryption context holds the entries of the key's context that have a value, so that key policies
and CloudTrail can tell tenants apart, and ``strongroom-context``, a digest of all of it. Repetitions are ours
(``_guard.py``); those of boto3 are off, so that the two do not multiply.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from strongroom.errors import (
    ConfigurationError,
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsRegionError,
    KmsThrottledError,
    KmsUnavailableError,
    StrongroomError,
    UnwrapError,
)
from strongroom.kms._service import CREDENTIALS_HINT, Reloading, asked, json_credentials, require, unknown

CONTEXT_BYTES_MAX: Final = 4096  # the service takes 8192 with everything that it adds
_DIGEST_NAME: Final = "strongroom-context"
_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):\d{12}:(key|alias)/[\w/-]+", re.ASCII)

_THROTTLED: Final = frozenset(
    (
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "RequestThrottled",
        "TooManyRequestsException",
        "LimitExceededException",
    )
)
_DENIED: Final = frozenset(
    (
        "AccessDeniedException",
        "AccessDenied",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "ExpiredTokenException",
        "ExpiredToken",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "InvalidGrantTokenException",
        "KMSAccessDeniedException",
    )
)
_UNAVAILABLE: Final = frozenset(
    (
        "DependencyTimeoutException",
        "KMSInternalException",
        "KeyUnavailableException",
        "InternalFailure",
        "InternalError",
        "InternalServerError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "RequestTimeout",
        "CloudHsmClusterNotActiveException",
        "XksKeyNotFoundException",
    )
)


class AwsBackend:
    """One KMS key: an id, an ARN or an alias."""

    provider = "aws"

    def __init__(
        self, key: str, *, region: str, endpoint: str, ca_file: str, credentials: str, timeout_ms: int
    ) -> None:
        """Asks nobody.

        Raises:
            ConfigurationError: boto3 is not installed. KmsRegionError: key and region contradict each other.
        """
        self._key = key
        found = _ARN.fullmatch(key)
        if key.startswith("arn:") and found is None:
            raise ConfigurationError("[keys] key is no ARN of an AWS KMS key or alias")
        self._region = region or (found[1] if found else "")
        if found is not None and found[1] != self._region:
            raise KmsRegionError(f"the key's ARN names region {found[1]}, the configuration {self._region}")
        here = "" if found is not None or not region else f"{region}/"  # an id or alias is one of a region
        self.key_uri = f"aws:{here}{key}"
        self._endpoint, self._ca_file, self._timeout_s = endpoint, ca_file, timeout_ms / 1000
        self._errors = require("botocore.exceptions", "aws")
        require("boto3", "aws")
        self._client: Reloading[Any] = Reloading(credentials, self._make)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        answer = self._ask(
            "encrypt",
            KeyId=self._key,
            Plaintext=plaintext,
            EncryptionContext=encryption_context(context, bound),
        )
        return bytes(answer["CiphertextBlob"])

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        answer = self._ask(
            "decrypt",
            KeyId=self._key,
            CiphertextBlob=ciphertext,
            EncryptionContext=encryption_context(context, bound),
        )
        return bytes(answer["Plaintext"])

    def close(self) -> None:
        client = self._client.drop()
        if client is not None:
            client.close()

    def _make(self, secret: str) -> Any:
        boto3, config = require("boto3", "aws"), require("botocore.config", "aws")
        log = logging.getLogger("botocore")  # on level DEBUG it writes whole requests: key material
        log.setLevel(max(logging.INFO, log.level))
        given: dict[str, str] = {}
        if secret:
            found = json_credentials(secret, ("access_key_id", "secret_access_key"), ("session_token",))
            given = {f"aws_{name}": value for name, value in found.items()}
        settings = config.Config(
            connect_timeout=self._timeout_s,
            read_timeout=self._timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=32,
        )
        return boto3.session.Session().client(
            "kms",
            region_name=self._region or None,
            endpoint_url=self._endpoint or None,
            verify=self._ca_file or None,
            config=settings,
            **given,
        )

    def _ask(self, operation: str, **arguments: Any) -> Any:
        foreign = (self._errors.ClientError, self._errors.BotoCoreError)
        return asked(lambda: getattr(self._client.get(), operation)(**arguments), foreign, self._typed)

    def _typed(self, error: Any) -> StrongroomError:
        if isinstance(error, self._errors.ClientError):
            return typed_answer(error.response)
        return self._typed_client(error)

    def _typed_client(self, error: Any) -> StrongroomError:
        """What never became an answer."""
        e = self._errors
        credentials = (
            e.NoCredentialsError,
            e.PartialCredentialsError,
            e.CredentialRetrievalError,
            e.TokenRetrievalError,
            e.UnauthorizedSSOTokenError,
            e.ProfileNotFound,
        )
        if isinstance(error, credentials):
            return KmsDeniedError("there are no usable AWS credentials", hint=CREDENTIALS_HINT)
        if isinstance(error, e.NoRegionError):
            return ConfigurationError("no AWS region is named", hint="set [keys] region")
        if isinstance(error, e.ParamValidationError | e.InvalidRegionError | e.UnknownEndpointError):
            return ConfigurationError(
                "boto3 refuses the settings of the AWS key", hint="check [keys] in strongroom.toml"
            )
        if isinstance(error, e.ConnectTimeoutError | e.ReadTimeoutError):
            return KmsUnavailableError("AWS KMS did not answer in time")
        if isinstance(error, e.SSLError):
            return KmsUnavailableError(
                "the certificate of the KMS endpoint is not trusted", hint="set [keys] ca_file"
            )
        return KmsUnavailableError(
            "AWS KMS could not be reached", hint="check [keys] region, endpoint and the network"
        )


def typed_answer(response: Mapping[str, Any]) -> StrongroomError:
    """The error for an error answer of AWS KMS: total over codes."""
    found = response.get("Error", {})
    code, text = str(found.get("Code", "")), str(found.get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status == 429:
        return KmsThrottledError()
    if code in ("InvalidCiphertextException", "IncorrectKeyException"):
        return UnwrapError()
    if code == "DisabledException":
        return KmsKeyDisabledError()
    if code == "KMSInvalidStateException":
        return _bad_state(text.lower())
    if code == "NotFoundException":
        return _not_found(text)
    if code == "InvalidArnException":
        return KmsRegionError("AWS KMS does not accept the key's ARN in this region")
    if code == "InvalidKeyUsageException":
        return KmsDeniedError(
            "the AWS key does not encrypt and decrypt", hint="use a symmetric key with usage ENCRYPT_DECRYPT"
        )
    if code in _DENIED:
        return KmsDeniedError()
    if code in _UNAVAILABLE or status >= 500:
        return KmsUnavailableError("AWS KMS is not working at the moment")
    return unknown("aws", code)


def _bad_state(text: str) -> KeyManagementError:
    if "pending deletion" in text or "pendingdeletion" in text.replace(" ", ""):
        return KmsKeyDeletedError(
            "the master key is scheduled for deletion",
            hint="aws kms cancel-key-deletion, then enable-key, at once",
        )
    if "disabled" in text:
        return KmsKeyDisabledError()
    return KmsKeyDisabledError(
        "the master key is in a state that allows no use", hint="look at: aws kms describe-key"
    )


def _not_found(text: str) -> KeyManagementError:
    if text.lower().startswith("invalid arn"):
        return KmsRegionError()
    return KmsKeyDeletedError(
        "the master key is not there: deleted, never made, or in another region",
        hint="check [keys] key and region; a deleted key of AWS KMS cannot be restored",
    )


def encryption_context(context: Mapping[str, str], bound: bytes) -> dict[str, str]:
    """What AWS binds: the entries with a value, when they fit, and always a digest of the encoded context."""
    digest = hashlib.sha256(bound).hexdigest()
    shown = {name: value for name, value in context.items() if value}
    size = sum(len(n.encode()) + len(v.encode()) for n, v in shown.items())
    if size > CONTEXT_BYTES_MAX or any(n.startswith("aws:") or n == _DIGEST_NAME for n in shown):
        shown = {}
    return {**shown, _DIGEST_NAME: digest}
