"""HashiCorp Vault and OpenBao: the transit engine, over its HTTP interface.

The encoded context goes along twice: as ``context``, from which a derived key is made when the transit key
was created with ``derived=true``, and as ``associated_data``, which the AEAD of the key authenticates.
Logins: a token, AppRole, or the service account of a Kubernetes pod. Tokens are renewed when two thirds
of their time are over; when that fails, and when a token is refused, there is a new login.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from strongroom.config import resolve_reference
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
from strongroom.kms._service import CREDENTIALS_HINT, asked, unknown

AUTHS: Final = ("token", "approle", "kubernetes")
KUBERNETES_TOKEN: Final = "file:/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a place
ANSWER_BYTES_MAX: Final = 1_048_576
RENEW_AT: Final = 2 / 3

_NAME = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_CIPHERTEXT = re.compile(rb"vault:v[1-9][0-9]{0,8}:[A-Za-z0-9+/=]+")


class VaultBackend:
    """One transit key; its newest version encrypts, those from ``min_decryption_version`` on decrypt."""

    provider = "vault"

    def __init__(
        self,
        key: str,
        *,
        endpoint: str,
        mount: str,
        namespace: str,
        auth: str,
        role: str,
        credentials: str,
        ca_file: str,
        timeout_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks nobody.

        Raises:
            ConfigurationError: a name is not of its form, or the login lacks something.
        """
        mount, auth = (mount or "transit").strip("/"), auth or "token"
        if not _NAME.fullmatch(key) or not _PATH.fullmatch(mount):
            raise ConfigurationError("[keys] key or mount is no name of a transit key or engine")
        if namespace and not _PATH.fullmatch(namespace.strip("/")):
            raise ConfigurationError("[keys] namespace is no path of a Vault namespace")
        self.key_uri = f"vault:{endpoint}/{namespace.strip('/') + '/' if namespace else ''}{mount}/{key}"
        self._key, self._mount = key, mount
        headers = {"x-vault-request": "true"}
        if namespace:
            headers["x-vault-namespace"] = namespace.strip("/")
        try:
            self._http = httpx.Client(
                base_url=f"{endpoint.rstrip('/')}/v1/",
                headers=headers,
                timeout=timeout_ms / 1000,
                verify=_trusted(ca_file),
                follow_redirects=False,
            )
        except (OSError, ValueError):
            raise ConfigurationError("[keys] ca_file cannot be used") from None
        self._login = _Login(self._post, auth, role, credentials, clock)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        data = self._transit("encrypt", {"plaintext": _b64(plaintext)}, bound)
        found = str(data.get("ciphertext", "")).encode()
        if not _CIPHERTEXT.fullmatch(found):
            raise unknown("vault", "ciphertext")
        return found

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        if not _CIPHERTEXT.fullmatch(ciphertext):
            raise UnwrapError
        data = self._transit("decrypt", {"ciphertext": ciphertext.decode()}, bound)
        try:
            return base64.b64decode(data.get("plaintext", ""), validate=True)
        except (ValueError, TypeError, binascii.Error):
            pass
        raise unknown("vault", "plaintext")

    def close(self) -> None:
        self._http.close()

    def _transit(self, operation: str, body: dict[str, str], bound: bytes) -> dict[str, Any]:
        body |= {"context": _b64(bound), "associated_data": _b64(bound)}
        path = f"{self._mount}/{operation}/{self._key}"
        token = self._login.token()
        try:
            answer = self._post(path, body, token, opening=operation == "decrypt")
        except KmsDeniedError:  # a token that was revoked or has expired; a real refusal refuses again
            if not self._login.again(token):
                raise
            answer = self._post(path, body, self._login.token(), opening=operation == "decrypt")
        data = answer.get("data")
        if not isinstance(data, dict):
            raise unknown("vault", "data")
        return data

    def _post(
        self, path: str, body: dict[str, str], token: str = "", *, opening: bool = False
    ) -> dict[str, Any]:
        headers = {"x-vault-token": token} if token else {}
        answer = asked(
            lambda: self._http.post(path, json=body, headers=headers),
            (httpx.HTTPError, httpx.InvalidURL, RuntimeError),
            _typed_client,
        )
        if len(answer.content) > ANSWER_BYTES_MAX:
            raise unknown("vault", "length")
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = {}
        if not isinstance(found, dict):
            found = {}
        if answer.status_code not in (200, 204):
            errors = found.get("errors")
            texts = " ".join(str(e) for e in errors) if isinstance(errors, list) else ""
            if path.startswith("auth/") and answer.status_code == 400:
                raise KmsDeniedError("Vault does not accept the login", hint=CREDENTIALS_HINT)
            raise typed_answer(answer.status_code, texts.lower(), opening=opening)
        return found


class _Login:
    """The token of one backend: taken from the configuration, or got by a login, renewed in time."""

    def __init__(
        self,
        post: Callable[..., dict[str, Any]],
        auth: str,
        role: str,
        credentials: str,
        clock: Callable[[], float],
    ) -> None:
        if auth not in AUTHS:
            raise ConfigurationError("[keys] auth is not known", hint="one of: " + ", ".join(AUTHS))
        if auth == "kubernetes":
            credentials = credentials or KUBERNETES_TOKEN
        if not credentials or (auth != "token" and not role):
            raise ConfigurationError(
                f"the login {auth} lacks [keys] credentials" + ("" if auth == "token" else " or [keys] role"),
                hint='credentials = "env:NAME" or "file:/path": the token, the secret_id, or the pod\'s JWT',
            )
        self._post, self._auth, self._role, self._credentials, self._clock = (
            post,
            auth,
            role,
            credentials,
            clock,
        )
        self._lock = threading.Lock()
        self._token = ""
        self._configured = ""
        self._renew_at: float | None = None
        self._ends_at: float | None = None

    def token(self) -> str:
        """A token that should be valid now."""
        with self._lock:
            given = resolve_reference(self._credentials)
            if self._auth == "token" and given != self._configured:  # replaced: no restart is needed
                self._token, self._configured = given, given
                self._look_up()
            now = self._clock()
            if not self._token or (
                self._auth != "token" and self._ends_at is not None and now >= self._ends_at
            ):
                self._sign_in(given)
            elif self._renew_at is not None and now >= self._renew_at:
                self._renew(given)
            return self._token

    def again(self, refused: str) -> bool:
        """A new login after ``refused`` was refused; False: only the configuration can bring one."""
        with self._lock:
            if self._auth == "token":
                return False
            if self._token == refused:
                self._token = ""
            return True

    def _sign_in(self, secret: str) -> None:
        if self._auth == "approle":
            body = {"role_id": self._role, "secret_id": secret}
        else:
            body = {"role": self._role, "jwt": secret}
        self._take(self._post(f"auth/{self._auth}/login", body).get("auth"))

    def _renew(self, secret: str) -> None:
        """What cannot be renewed is replaced by a login; a token of the configuration is used to its end."""
        self._renew_at = None
        try:
            self._take(self._post("auth/token/renew-self", {}, self._token).get("auth"))
        except StrongroomError as e:
            if isinstance(e, KmsUnavailableError):
                self._renew_at = self._clock() + 1.0
            elif self._auth != "token":
                self._sign_in(secret)

    def _look_up(self) -> None:
        """How long a configured token lasts; one that may not look itself up is not renewed."""
        self._renew_at = self._ends_at = None
        try:
            found = self._post("auth/token/renew-self", {}, self._token).get("auth")
        except KmsUnavailableError:
            self._configured = ""  # look again at the next use
            raise
        except StrongroomError:
            return  # not renewable, or refused: the next request tells which
        self._take(found)

    def _take(self, auth: object) -> None:
        if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
            raise unknown("vault", "auth")
        self._token = auth["client_token"]
        lease = auth.get("lease_duration")
        self._renew_at = self._ends_at = None
        if isinstance(lease, int) and lease > 0:
            now = self._clock()
            self._ends_at = now + lease
            if auth.get("renewable"):
                self._renew_at = now + lease * RENEW_AT


def typed_answer(status: int, text: str, *, opening: bool) -> StrongroomError:
    """The error for an error answer of Vault: total over the status; ``text`` is in lower case."""
    if status in (429, 473):
        return KmsThrottledError()
    if status in (401, 403):
        return KmsDeniedError(
            hint="compare the policy of the token with: strongroom kms policy; " + CREDENTIALS_HINT
        )
    if "soft deleted" in text or "soft-deleted" in text:
        return KmsKeyDeletedError(
            "the master key is deleted and can still be restored", hint="restore the transit key at once"
        )
    if status == 404 or "encryption key not found" in text or "no handler for route" in text:
        return KmsKeyDeletedError(
            "the transit key or engine is not there: deleted or never made",
            hint="check [keys] key, mount and namespace",
        )
    if "disallowed by policy" in text:  # min_decryption_version, min_encryption_version
        return KmsKeyDisabledError(
            "this version of the transit key is switched off", hint="lower min_decryption_version of the key"
        )
    if 300 <= status < 400:
        return KmsUnavailableError(
            "the endpoint is a standby of Vault", hint="let [keys] endpoint name the active node"
        )
    if status >= 500 or status in (412, 472):
        return KmsUnavailableError("Vault is sealed, starting or not working")
    if status == 400 and opening:
        return UnwrapError()
    return unknown("vault", status)


def _typed_client(error: BaseException) -> StrongroomError:
    if isinstance(error, httpx.TimeoutException):
        return KmsUnavailableError("Vault did not answer in time")
    return KmsUnavailableError(
        "Vault could not be reached", hint="check [keys] endpoint, ca_file and the network"
    )


def _trusted(ca_file: str) -> Any:
    if not ca_file:
        return True
    import ssl

    return ssl.create_default_context(cafile=ca_file)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
