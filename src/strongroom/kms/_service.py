"""What the backends share: optional packages, credentials by reference, endpoints, and foreign exceptions."""

from __future__ import annotations

import hashlib
import importlib
import ipaddress
import json
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, TypeVar
from urllib.parse import urlsplit

from strongroom.config import resolve_reference
from strongroom.errors import ConfigurationError, KeyManagementError, StrongroomError

T = TypeVar("T")
C = TypeVar("C")

CREDENTIALS_HINT: Final = 'check the credentials, or give [keys] credentials = "env:NAME" or "file:/path"'


def require(module: str, provider: str) -> Any:
    """An optional package.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"the key management provider {provider} needs a package that is not installed",
            hint=f'pip install "strongroom[{provider}]"',
        ) from None


def check_endpoint(endpoint: str) -> None:
    """Plain HTTP would carry keys over the network: it is taken for this machine only.

    Raises:
        ConfigurationError: no address, or an unprotected one of another machine.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise ConfigurationError("[keys] endpoint must be https://host[:port]")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigurationError(
            "[keys] endpoint must be https://: http:// is taken only for this machine (127.0.0.1)"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def json_credentials(text: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, str]:
    """Credentials as a JSON object of texts.

    Raises:
        ConfigurationError: another form; the message shows nothing of it.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    names = set(required) | set(optional)
    if (
        not isinstance(found, dict)
        or not set(required) <= set(found) <= names
        or not all(isinstance(v, str) for v in found.values())
    ):
        raise ConfigurationError(
            "the credentials of the key management service have not the expected form",
            hint="a JSON object with " + ", ".join((*required, *(f"optionally {o}" for o in optional))),
        )
    return found


class Reloading(Generic[C]):
    """A client that is made again when the secret behind its reference has changed. Thread-safe."""

    def __init__(self, reference: str, make: Callable[[str], C]) -> None:
        """``make`` gets the secret, "" without a reference. Nothing is read yet."""
        self._reference = reference
        self._make = make
        self._lock = threading.Lock()
        self._digest = b""
        self._client: C | None = None

    def get(self) -> C:
        """The client.

        Raises:
            ConfigurationError: the reference leads nowhere. What ``make`` raises.
        """
        secret = resolve_reference(self._reference) if self._reference else ""
        digest = hashlib.sha256(secret.encode()).digest()
        with self._lock:
            if self._client is None or digest != self._digest:
                self._client = self._make(secret)
                self._digest = digest
            return self._client

    def drop(self) -> C | None:
        """Forget the client; the next ``get`` makes a new one."""
        with self._lock:
            client, self._client = self._client, None
            return client


def asked(
    ask: Callable[[], T], foreign: tuple[type[BaseException], ...], typed: Callable[[Any], StrongroomError]
) -> T:
    """``ask()``, with exceptions of another library turned into ours and not even chained."""
    failure: StrongroomError
    try:
        return ask()
    except foreign as e:
        failure = typed(e)
    raise failure


def unknown(provider: str, code: object) -> KeyManagementError:
    """The error for an answer that no table knows; only a short, plain code is shown."""
    text = str(code)
    shown = f" ({text})" if text.isascii() and text.replace("_", "").isalnum() and len(text) <= 64 else ""
    return KeyManagementError(f"the key management service {provider} gave an unexpected answer{shown}")


def refuse(message: str, hint: str) -> NoReturn:
    """Raises: ConfigurationError."""
    raise ConfigurationError(message, hint=hint)
