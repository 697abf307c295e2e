"""Azure Key Vault and Managed HSM, through azure-keyvault-keys: RSA-OAEP-256, or AES key wrap in an HSM.

    0            1              1+v
    +------------+--------------+------------------+
    | v (1)      | version (v)  | what was wrapped |
    +------------+--------------+------------------+

Azure binds no context: that is done by Strongroom's own layer alone (spec/kms-wrapped.md). RSA keys wrap
on the client with the public key, which works with a disabled key too; so each wrap is proved by an unwrap at
the service before it counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import urlsplit

from strongroom.errors import (
    ConfigurationError,
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsThrottledError,
    KmsUnavailableError,
    StrongroomError,
    UnwrapError,
)
from strongroom.kms._service import CREDENTIALS_HINT, Reloading, asked, json_credentials, require, unknown

ALGORITHMS: Final = ("RSA-OAEP-256", "A256KW")
_KEY = re.compile(r"(https://[\w.-]+(?::\d{1,5})?)/keys/([A-Za-z0-9-]{1,127})", re.ASCII)
_VERSION = re.compile(rb"[0-9a-f]{32}")
_DISABLED: Final = frozenset(("KeyDisabled", "KeyExpired", "KeyNotYetValid"))
_DELETED: Final = frozenset(("ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted", "KeyDeleted"))
_PUBLIC_HOSTS: Final = (
    "vault.azure.net",
    "managedhsm.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
)


class AzureBackend:
    """One key, by its address without a version: the newest version wraps, all enabled ones unwrap."""

    provider = "azure"

    def __init__(self, key: str, *, algorithm: str, ca_file: str, credentials: str, timeout_ms: int) -> None:
        """Asks nobody.

        Raises:
            ConfigurationError: the packages are not installed, or ``key`` or ``algorithm`` is malformed.
        """
        found = _KEY.fullmatch(key.rstrip("/"))
        if found is None:
            raise ConfigurationError(
                "[keys] key is no address of a key in Azure Key Vault or Managed HSM",
                hint="https://VAULT.vault.azure.net/keys/NAME, without a version",
            )
        algorithm = algorithm or ALGORITHMS[0]
        if algorithm not in ALGORITHMS:
            raise ConfigurationError("[keys] algorithm is not known", hint="one of: " + ", ".join(ALGORITHMS))
        self.key_uri = f"azure:{found[0]}"
        self._vault, self._name, self._algorithm_name = found[1], found[2], algorithm
        self._ca_file = ca_file
        self._timeout_s = timeout_ms / 1000
        self._core = require("azure.core.exceptions", "azure")
        self._keys = require("azure.keyvault.keys", "azure")
        self._crypto = require("azure.keyvault.keys.crypto", "azure")
        self._identity = require("azure.identity", "azure")
        self._algorithm = self._crypto.KeyWrapAlgorithm(algorithm)
        self._client: Reloading[_Clients] = Reloading(credentials, self._make)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        clients = self._client.get()
        key = self._ask(lambda: clients.keys.get_key(self._name), opening=False)
        if key.properties.enabled is False:
            raise KmsKeyDisabledError()
        version = str(key.properties.version).encode()
        if not _VERSION.fullmatch(version):
            raise unknown("azure", "version")
        crypto = self._versioned(clients, version)
        wrapped: bytes = self._ask(
            lambda: bytes(crypto.wrap_key(self._algorithm, plaintext).encrypted_key), opening=False
        )
        proved = self._unwrap(crypto, wrapped)
        if not compare_digest(proved, plaintext):
            raise KeyManagementError("Azure gave another key back than the one that was wrapped")
        return bytes((len(version),)) + version + wrapped

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        end = 1 + (ciphertext[0] if ciphertext else 0)
        version, wrapped = ciphertext[1:end], ciphertext[end:]
        if not _VERSION.fullmatch(version) or not wrapped:
            raise UnwrapError
        return self._unwrap(self._versioned(self._client.get(), version), wrapped)

    def close(self) -> None:
        clients = self._client.drop()
        if clients is not None:
            clients.close()

    def _unwrap(self, crypto: Any, wrapped: bytes) -> bytes:
        key: bytes = self._ask(lambda: bytes(crypto.unwrap_key(self._algorithm, wrapped).key), opening=True)
        return key

    def _versioned(self, clients: _Clients, version: bytes) -> Any:
        found = clients.versions.get(version)
        if found is None:
            address = f"{self._vault}/keys/{self._name}/{version.decode()}"
            made = self._crypto.CryptographyClient(address, clients.credential, **self._options())
            found = clients.versions.setdefault(version, made)
        return found

    def _options(self) -> dict[str, Any]:
        return {
            **self._network(),
            "verify_challenge_resource": urlsplit(self._vault).hostname.endswith(_PUBLIC_HOSTS),  # type: ignore[union-attr]
        }

    def _network(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "connection_timeout": self._timeout_s,
            "read_timeout": self._timeout_s,
            "retry_total": 0,
            "logging_enable": False,
        }
        if self._ca_file:
            options["connection_verify"] = self._ca_file
        return options

    def _make(self, secret: str) -> _Clients:
        if secret:
            found = json_credentials(secret, ("tenant_id", "client_id", "client_secret"), ("authority",))
            credential = self._identity.ClientSecretCredential(
                **found, disable_instance_discovery="authority" in found, **self._network()
            )
        else:
            credential = self._identity.DefaultAzureCredential(exclude_interactive_browser_credential=True)
        keys = self._keys.KeyClient(self._vault, credential, **self._options())
        return _Clients(credential, keys)

    def _ask(self, ask: Any, *, opening: bool) -> Any:
        return asked(
            ask, (self._core.AzureError, ValueError), lambda error: self._typed(error, opening=opening)
        )

    def _typed(self, error: Any, *, opening: bool) -> StrongroomError:
        e = self._core
        match error:
            case e.ClientAuthenticationError():
                return KmsDeniedError("Azure does not accept the credentials", hint=CREDENTIALS_HINT)
            case e.HttpResponseError() if error.status_code:
                return typed_answer(int(error.status_code), _codes(error), opening=opening)
            case e.ServiceRequestTimeoutError() | e.ServiceResponseTimeoutError():
                return KmsUnavailableError("Azure did not answer in time")
            case e.ServiceRequestError() | e.ServiceResponseError():
                return KmsUnavailableError("Azure could not be reached")
            case ValueError():  # "not valid for use": the key's period; or a challenge of another host
                return KmsDeniedError(
                    "the Azure client refuses the key or the answer of the vault",
                    hint="check the key's period of validity, and that the address is that of a vault",
                )
            case _:
                return unknown("azure", type(error).__name__)


class _Clients:
    """The clients of one credential."""

    def __init__(self, credential: Any, keys: Any) -> None:
        self.credential = credential
        self.keys = keys
        self.versions: dict[bytes, Any] = {}

    def close(self) -> None:
        for client in (*list(self.versions.values()), self.keys, self.credential):
            client.close()


def _codes(error: Any) -> frozenset[str]:
    """The code of an error answer and those inside it."""
    out: set[str] = set()
    found = getattr(error, "error", None)
    for _ in range(4):
        if found is None:
            break
        if isinstance(found, dict):
            code, found = found.get("code"), found.get("innererror")
        else:
            code, found = getattr(found, "code", None), getattr(found, "innererror", None)
        if code:
            out.add(str(code))
    return frozenset(out)


def typed_answer(status: int, codes: frozenset[str], *, opening: bool) -> StrongroomError:
    """The error for an error answer of Azure: total over status and codes."""
    if status == 429:
        return KmsThrottledError()
    if codes & _DELETED:
        return KmsKeyDeletedError(
            "the master key is deleted and can still be recovered", hint="az keyvault key recover, at once"
        )
    if codes & _DISABLED:
        return KmsKeyDisabledError("the master key is disabled, or outside its period of validity")
    if status in (401, 403):
        return KmsDeniedError()
    if status == 404:
        return KmsKeyDeletedError(
            "the master key is not there: deleted, purged, or never made",
            hint="az keyvault key list-deleted; az keyvault key recover",
        )
    if status >= 500 or status == 408:
        return KmsUnavailableError("Azure is not working at the moment")
    if status == 400 and opening:
        return UnwrapError()
    return unknown("azure", next(iter(sorted(codes)), status))
