"""Azure Key Vault and Managed HSM, through azure-keyvault-keys: RSA-OAEP-256, or AES key wrap in an HSM.

    0            1              1+v
    +------------+--------------+------------------+
    | v (1)      | version (v)  | what was wrapped |
    +------------+--------------+------------------+

Azure binds no context: that is done by Strongroom's own layer alone (spec/kms-wrapped.md). Wrapping and
unwrapping both happen at the service, through the client's pipeline (login, challenges) and not through its
``CryptographyClient``: that one wraps with RSA keys by itself, also when they are disabled, and wraps for an
``oct-HSM`` key whose bytes it does not know under a random key that nobody keeps.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

from strongroom.errors import (
    ConfigurationError,
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
_VERSION = re.compile("[0-9a-f]{32}")
_DISABLED: Final = frozenset(("KeyDisabled", "KeyExpired", "KeyNotYetValid"))
_DELETED: Final = frozenset(("ObjectIsDeletedButRecoverable", "ObjectIsBeingDeleted", "KeyDeleted"))


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
        self._vault, self._name, self._algorithm = found[1], found[2], algorithm
        self._ca_file = ca_file
        self._timeout_s = timeout_ms / 1000
        self._core = require("azure.core.exceptions", "azure")
        self._keys = require("azure.keyvault.keys", "azure")
        self._request = require("azure.core.rest", "azure").HttpRequest
        self._identity = require("azure.identity", "azure")
        self._client: Reloading[_Clients] = Reloading(credentials, self._make)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        version = self._newest()
        wrapped = self._work("wrapkey", version, plaintext)
        return bytes((len(version),)) + version.encode() + wrapped

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        end = 1 + (ciphertext[0] if ciphertext else 0)
        version, wrapped = ciphertext[1:end].decode("latin-1"), ciphertext[end:]
        if not _VERSION.fullmatch(version) or not wrapped:
            raise UnwrapError
        try:
            return self._work("unwrapkey", version, wrapped)
        except KmsKeyDeletedError:  # versions cannot be deleted one by one: is it the key, or another key's?
            self._newest()
        raise UnwrapError

    def close(self) -> None:
        clients = self._client.drop()
        if clients is not None:
            clients.close()

    def _newest(self) -> str:
        found = self._ask("GET", f"keys/{self._name}", None, opening=False)
        if found.get("attributes", {}).get("enabled") is False:
            raise KmsKeyDisabledError
        version = str(found.get("key", {}).get("kid", "")).rpartition("/")[2]
        if not _VERSION.fullmatch(version):
            raise unknown("azure", "version")
        return version

    def _work(self, operation: str, version: str, value: bytes) -> bytes:
        body = {"alg": self._algorithm, "value": base64.urlsafe_b64encode(value).rstrip(b"=").decode()}
        path = f"keys/{self._name}/{version}/{operation}"
        text = self._ask("POST", path, body, opening=operation == "unwrapkey").get("value")
        if isinstance(text, str) and text:
            with contextlib.suppress(ValueError):
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        raise unknown("azure", "value")

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
        own_cloud = False  # then challenges name hosts that the client of the public cloud cannot know
        if secret:
            found = json_credentials(secret, ("tenant_id", "client_id", "client_secret"), ("authority",))
            own_cloud = "authority" in found
            credential = self._identity.ClientSecretCredential(
                **found, disable_instance_discovery=own_cloud, **self._network()
            )
        else:
            credential = self._identity.DefaultAzureCredential(exclude_interactive_browser_credential=True)
        options = {**self._network(), "verify_challenge_resource": not own_cloud}
        return _Clients(credential, self._keys.KeyClient(self._vault, credential, **options))

    def _ask(self, method: str, path: str, body: dict[str, str] | None, *, opening: bool) -> dict[str, Any]:
        def ask() -> Any:
            return self._client.get().keys.send_request(self._request(method, path, json=body))

        answer = asked(ask, (self._core.AzureError, ValueError), self._typed)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.status_code == 200 and isinstance(found, dict):
            return found
        raise typed_answer(int(answer.status_code), _codes(found), opening=opening)

    def _typed(self, error: Any) -> StrongroomError:
        e = self._core
        match error:
            case e.ClientAuthenticationError():
                return KmsDeniedError("Azure does not accept the credentials", hint=CREDENTIALS_HINT)
            case e.HttpResponseError() if error.status_code:  # of the token service
                return typed_answer(int(error.status_code), frozenset(), opening=False)
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

    def close(self) -> None:
        self.keys.close()
        self.credential.close()


def _codes(found: Any) -> frozenset[str]:
    """The code of an error answer and those inside it."""
    out: set[str] = set()
    inner = found.get("error") if isinstance(found, dict) else None
    for _ in range(4):
        if not isinstance(inner, dict):
            break
        out.add(str(inner.get("code")))
        inner = inner.get("innererror")
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
