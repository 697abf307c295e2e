"""Google Cloud KMS, through google-cloud-kms: symmetric keys, the whole context as additional data.

Every request and answer carries CRC32C checksums, and each is checked on both sides (as Google's
"Verifying end-to-end data integrity" asks): bytes damaged on the way are asked for again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

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
from strongroom.kms._service import CREDENTIALS_HINT, Reloading, asked, require, unknown

_KEY = re.compile(r"projects/[\w.:-]+/locations/([a-z0-9-]+)/keyRings/[\w-]+/cryptoKeys/[\w-]+", re.ASCII)
_SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
_STATE = re.compile(r"current state is:? *([A-Z_]+)")
_GONE: Final = frozenset(("DESTROY_SCHEDULED", "DESTROYED"))


class GcpBackend:
    """One CryptoKey; its primary version encrypts, all enabled versions decrypt."""

    provider = "gcp"

    def __init__(
        self, key: str, *, region: str, endpoint: str, ca_file: str, credentials: str, timeout_ms: int
    ) -> None:
        """Asks nobody.

        Raises:
            ConfigurationError: google-cloud-kms is not installed, or ``key`` is no name of a CryptoKey.
            KmsRegionError: ``region`` is not the location in the key's name.
        """
        found = _KEY.fullmatch(key)
        if found is None:
            raise ConfigurationError(
                "[keys] key is no name of a Google Cloud CryptoKey",
                hint="projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version",
            )
        if region and region != found[1]:
            raise KmsRegionError(f"the key's name says location {found[1]}, the configuration {region}")
        self.key_uri = f"gcp:{key}"
        self._key = key
        self._endpoint, self._ca_file, self._timeout_s = endpoint, ca_file, timeout_ms / 1000
        self._kms = require("google.cloud.kms_v1", "gcp")
        self._transports = require("google.cloud.kms_v1.services.key_management_service.transports", "gcp")
        self._api = require("google.api_core.exceptions", "gcp")
        self._auth = require("google.auth.exceptions", "gcp")
        self._grpc = require("grpc", "gcp")
        self._crc32c = require("google_crc32c", "gcp")
        self._client: Reloading[Any] = Reloading(credentials, self._make)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        request = self._kms.EncryptRequest(
            name=self._key,
            plaintext=plaintext,
            plaintext_crc32c=self._sum(plaintext),
            additional_authenticated_data=bound,
            additional_authenticated_data_crc32c=self._sum(bound),
        )
        answer = self._ask("encrypt", request, lambda e: self._typed(e, opening=False))
        if not (
            answer.verified_plaintext_crc32c
            and answer.verified_additional_authenticated_data_crc32c
            and answer.name.startswith(f"{self._key}/cryptoKeyVersions/")
            and answer.ciphertext_crc32c == self._sum(answer.ciphertext)
        ):
            raise _damaged()
        return bytes(answer.ciphertext)

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        request = self._kms.DecryptRequest(
            name=self._key,
            ciphertext=ciphertext,
            ciphertext_crc32c=self._sum(ciphertext),
            additional_authenticated_data=bound,
            additional_authenticated_data_crc32c=self._sum(bound),
        )
        answer = self._ask("decrypt", request, lambda e: self._typed(e, opening=True))
        if answer.plaintext_crc32c != self._sum(answer.plaintext):
            raise _damaged()
        return bytes(answer.plaintext)

    def close(self) -> None:
        client = self._client.drop()
        if client is not None:
            client.transport.close()

    def _sum(self, data: bytes) -> int:
        return int.from_bytes(self._crc32c.Checksum(data).digest(), "big")

    def _ask(self, operation: str, request: Any, typed: Any) -> Any:
        foreign = (self._api.GoogleAPIError, self._auth.GoogleAuthError, self._grpc.RpcError)
        return asked(
            lambda: getattr(self._client.get(), operation)(
                request=request, retry=None, timeout=self._timeout_s
            ),
            foreign,
            typed,
        )

    def _make(self, secret: str) -> Any:
        transport = self._transports.KeyManagementServiceGrpcTransport
        kind = self._kms.KeyManagementServiceClient
        parts = urlsplit(self._endpoint)
        if parts.scheme == "http":  # this machine only (check_endpoint): an emulator
            return kind(transport=transport(channel=self._grpc.insecure_channel(parts.netloc)))
        given = self._credentials(secret)
        if not self._endpoint:
            return kind(credentials=given)
        ssl = None
        if self._ca_file:
            try:
                ssl = self._grpc.ssl_channel_credentials(Path(self._ca_file).read_bytes())
            except OSError:
                raise ConfigurationError("[keys] ca_file cannot be read") from None
        host = parts.netloc if parts.port else f"{parts.netloc}:443"
        return kind(transport=transport(host=host, credentials=given, ssl_channel_credentials=ssl))

    def _credentials(self, secret: str) -> Any:
        """Those of the reference (a service account's JSON), or None: the application default credentials."""
        if not secret:
            return None
        accounts = require("google.oauth2.service_account", "gcp")
        try:
            return accounts.Credentials.from_service_account_info(json.loads(secret), scopes=[_SCOPE])
        except (ValueError, TypeError, AttributeError, self._auth.GoogleAuthError):
            pass
        raise ConfigurationError(
            "the credentials are no JSON key of a Google service account", hint=CREDENTIALS_HINT
        )

    def _typed(self, error: Any, *, opening: bool) -> StrongroomError:
        e, a = self._api, self._auth
        match error:
            case a.TransportError():
                return KmsUnavailableError("Google's token service could not be reached")
            case a.GoogleAuthError():
                return KmsDeniedError("there are no usable Google credentials", hint=CREDENTIALS_HINT)
            case e.ResourceExhausted() | e.TooManyRequests():
                return KmsThrottledError()
            case e.Forbidden() | e.Unauthorized():
                return KmsDeniedError()
            case e.NotFound():
                return KmsKeyDeletedError(
                    "the master key is not there: deleted, never made, or in another location"
                )
            case e.FailedPrecondition():
                return bad_state(str(error.message))
            case e.BadRequest():  # InvalidArgument, OutOfRange
                return bad_request(str(error.message), opening=opening)
            case e.DeadlineExceeded() | e.GatewayTimeout():
                return KmsUnavailableError("Google Cloud KMS did not answer in time")
            case e.ServerError() | e.Aborted() | e.Cancelled() | e.RetryError() | self._grpc.RpcError():
                return KmsUnavailableError("Google Cloud KMS could not be reached or is not working")
            case _:
                return unknown("gcp", getattr(error, "code", ""))


def bad_state(text: str) -> KeyManagementError:
    """The error for FAILED_PRECONDITION: a version that is not enabled, or has no primary."""
    found = _STATE.search(text)
    state = found[1] if found else ""
    if state == "DESTROY_SCHEDULED":
        return KmsKeyDeletedError(
            "the version of the master key is scheduled for destruction",
            hint="gcloud kms keys versions restore, then enable, at once",
        )
    if state in _GONE:
        return KmsKeyDeletedError("the version of the master key is destroyed")
    return KmsKeyDisabledError(hint="gcloud kms keys versions enable")


def bad_request(text: str, *, opening: bool) -> KeyManagementError:
    """The error for INVALID_ARGUMENT: on decryption, anything that does not decrypt."""
    if "location" in text and "sent to" in text:
        return KmsRegionError()
    if "checksum" in text or "crc32c" in text.lower():
        return _damaged()
    if opening:
        return UnwrapError()
    return KmsDeniedError("the Google key does not encrypt", hint="use a key with purpose ENCRYPT_DECRYPT")


def _damaged() -> KmsUnavailableError:
    return KmsUnavailableError("bytes were damaged between Strongroom and Google Cloud KMS")
