"""Secrets of the configuration by reference: where one stands, never the secret itself (docs/secrets.md).

    env:NAME                       an environment variable
    file:/path                     a file; its last line end is not part of the secret
    vault:MOUNT/data/PATH#FIELD    a field of HashiCorp Vault's or OpenBao's key-value store (version 2 or 1);
                                   server and token as the tools of Vault find them: VAULT_ADDR, VAULT_TOKEN
                                   or VAULT_TOKEN_FILE, VAULT_NAMESPACE, VAULT_CACERT
    aws-secret:NAME[#FIELD]        AWS Secrets Manager, by name or ARN; FIELD of a secret in JSON;
                                   credentials and region as boto3 finds them

A reference is resolved when the secret is needed and again at each later need, so that a secret that was
replaced counts without a restart: ``env`` and ``file`` at once, the others within 60 seconds. While
Vault or AWS do not answer, what they have said last is used on for up to an hour.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from strongroom.errors import ConfigurationError

KINDS: Final = ("env", "file", "vault", "aws-secret")
SECRET_BYTES_MAX: Final = 65_536
FRESH_S: Final = 60.0  # how long an answer of a secret store is used without asking again
KEPT_S: Final = 3_600.0  # ... and while the store does not answer
TIMEOUT_S: Final = 5.0
HINT: Final = "write env:NAME, file:/path, vault:PATH#FIELD or aws-secret:NAME, never the secret itself"


def check(reference: str, place: str) -> None:
    """Refuse what is no reference, without showing it: it may be the secret.

    Raises:
        ConfigurationError: with ``place``, the name of the setting.
    """
    kind, _, rest = reference.partition(":")
    if kind not in KINDS or not rest or not reference.isprintable() or len(reference) > 2_048:
        raise ConfigurationError(f"{place} must be a reference to a secret", hint=HINT)
    if kind == "vault" and not all(rest.partition("#")[::2]):
        raise ConfigurationError(f"{place} lacks the field of the secret", hint="vault:MOUNT/data/PATH#FIELD")


def resolve(reference: str) -> str:
    """The secret behind a reference.

    Raises:
        ConfigurationError: it is none, or nothing is there.
    """
    check(reference, "a secret in the configuration")
    kind, _, rest = reference.partition(":")
    match kind:
        case "env":
            value = os.environ.get(rest)
            if value is None:
                raise ConfigurationError(f"environment variable {rest} is not set")
            return value
        case "file":
            return _of_file(rest)
        case "vault":
            return _stores.get(reference, _of_vault)
        case _:
            return _stores.get(reference, _of_aws)


def _of_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(SECRET_BYTES_MAX + 1)
        if len(raw) <= SECRET_BYTES_MAX:
            return raw.decode("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError, ValueError):
        pass
    raise ConfigurationError(f"secret file {name} cannot be read")


class _Silent(Exception):
    """A secret store has not answered; the text is for the operator."""


class _Answers:
    """What secret stores have said, and when. Thread-safe; a store is asked by one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}
        self._known: dict[str, tuple[str, float, float]] = {}  # value, when it was said, when to ask again

    def get(self, reference: str, ask: Callable[[str], str]) -> str:
        with self._lock:
            asking = self._asking.setdefault(reference, threading.Lock())
        with asking:
            now, known = self._clock(), self._known.get(reference)
            if known is not None and now < known[2]:
                return known[0]
            try:
                value = ask(reference.partition(":")[2])
            except _Silent as e:
                if known is None or now >= known[1] + KEPT_S:
                    raise ConfigurationError(str(e)) from None
                self._known[reference] = (known[0], known[1], now + FRESH_S / 10)
                return known[0]
            self._known[reference] = (value, now, now + FRESH_S)
            return value

    def forget(self) -> None:
        """Ask anew at the next need."""
        with self._lock:
            self._known.clear()


_stores = _Answers()


def _of_vault(rest: str) -> str:
    import httpx

    path, _, field = rest.partition("#")
    address = os.environ.get("VAULT_ADDR", "")
    _require_protected(address, "VAULT_ADDR")
    headers = {"x-vault-request": "true", "x-vault-token": _vault_token()}
    if os.environ.get("VAULT_NAMESPACE"):
        headers["x-vault-namespace"] = os.environ["VAULT_NAMESPACE"]
    try:
        with httpx.Client(timeout=TIMEOUT_S, verify=_trusted(), follow_redirects=False) as client:
            answer = client.get(f"{address.rstrip('/')}/v1/{quote(path.strip('/'))}", headers=headers)
        found: Any = answer.json() if len(answer.content) <= 16 * SECRET_BYTES_MAX else None
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        raise _Silent("Vault did not answer, so a secret of the configuration is not there") from None
    except ValueError:
        found = None
    if answer.status_code == 429 or answer.status_code >= 500:
        raise _Silent("Vault is sealed or not working, so a secret of the configuration is not there")
    if answer.status_code in (400, 401, 403):
        raise ConfigurationError(
            "Vault does not let the secret be read",
            hint="check VAULT_TOKEN and its policy: read on that path",
        )
    data = found.get("data") if isinstance(found, dict) else None
    if isinstance(data, dict) and isinstance(data.get("data"), dict):
        data = data["data"]  # version 2 of the key-value store
    return _field(data, field, "Vault")


def _vault_token() -> str:
    token = os.environ.get("VAULT_TOKEN")
    if not token:
        token = _of_file(os.environ.get("VAULT_TOKEN_FILE") or str(Path.home() / ".vault-token"))
    return token.strip()


def _trusted() -> Any:
    import ssl

    ca_file = os.environ.get("VAULT_CACERT")
    return ssl.create_default_context(cafile=ca_file) if ca_file else True


def _of_aws(rest: str) -> str:
    try:
        boto3 = importlib.import_module("boto3")
        errors = importlib.import_module("botocore.exceptions")
        config = importlib.import_module("botocore.config")
    except ImportError:
        raise ConfigurationError(
            "secrets of AWS Secrets Manager need boto3", hint='pip install "strongroom[aws]"'
        ) from None
    log = logging.getLogger("botocore")  # on level DEBUG it writes whole answers: the secret
    log.setLevel(max(logging.INFO, log.level))
    name, _, field = rest.partition("#")
    region = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 5 else None
    settings = config.Config(
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"total_max_attempts": 2, "mode": "standard"},
    )
    try:
        client = boto3.session.Session().client("secretsmanager", region_name=region, config=settings)
        answer = client.get_secret_value(SecretId=name)
    except errors.ClientError as e:
        code = str(e.response.get("Error", {}).get("Code", ""))
        status = e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if "Throttl" in code or status == 429 or status >= 500:
            raise _Silent("AWS Secrets Manager does not answer now") from None
        raise ConfigurationError(
            "AWS Secrets Manager does not give the secret",
            hint="check its name and secretsmanager:GetSecretValue",
        ) from None
    except errors.NoRegionError:
        raise ConfigurationError("no AWS region is named", hint="name the secret by its ARN") from None
    except errors.HTTPClientError:
        raise _Silent("AWS Secrets Manager could not be reached") from None
    except errors.BotoCoreError:
        raise ConfigurationError("there are no usable AWS credentials for Secrets Manager") from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise ConfigurationError("the secret in AWS Secrets Manager is no text")
    if not field:
        return text
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return _field(found, field, "AWS Secrets Manager")


def _field(found: object, field: str, where: str) -> str:
    value = found.get(field) if isinstance(found, dict) else None
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"the secret in {where} is not there, or has no text of that field")
    return value


def _require_protected(address: str, name: str) -> None:
    """Plain HTTP would carry the secret over the network: it is taken for this machine only."""
    parts = urlsplit(address)
    try:
        here = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        here = False
    if not parts.hostname or parts.scheme not in ("https", "http") or (parts.scheme == "http" and not here):
        raise ConfigurationError(f"{name} must be https://host[:port]")
