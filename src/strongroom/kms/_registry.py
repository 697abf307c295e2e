"""From the configuration to a provider: which settings each provider takes, and how it is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from strongroom import references
from strongroom.config import KeysConfig, resolve_reference
from strongroom.errors import ConfigurationError
from strongroom.kms._contract import KmsProvider
from strongroom.kms._envelope import Backend, EnvelopeKms
from strongroom.kms._guard import ATTEMPTS_MAX, Guard, GuardSettings
from strongroom.kms._service import check_endpoint
from strongroom.kms.agent import AgentKms, user_number
from strongroom.kms.local import LocalKeystore

LOCAL: Final = "local"
AGENT: Final = "agent"
CACHE_S_MIN: Final = 10
CACHE_S_MAX: Final = 86_400
TIMEOUT_MS_MIN: Final = 100
TIMEOUT_MS_MAX: Final = 60_000
FORMER_KEYS_MAX: Final = 8
NAME_CHARACTERS_MAX: Final = 2_048
MEMORY_POLICIES: Final = ("prefer", "require")

_ALL: Final = (
    "key", "unwrap_keys", "region", "endpoint", "ca_file", "credentials", "algorithm", "mount", "namespace",
    "auth", "role", "module", "token", "socket", "agent_user",
)  # fmt: skip
_LOCAL_ONLY: Final = ("passphrase",)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a provider needs and takes, by the names of ``KeysConfig``, and how its backend is made."""

    needs: tuple[str, ...]
    takes: tuple[str, ...]
    make: Callable[[KeysConfig, str], Backend]


def _aws(c: KeysConfig, key: str) -> Backend:
    from strongroom.kms.aws import AwsBackend

    return AwsBackend(
        key,
        region=c.region,
        endpoint=c.endpoint,
        ca_file=c.ca_file,
        credentials=c.credentials,
        timeout_ms=c.timeout_ms,
    )


def _gcp(c: KeysConfig, key: str) -> Backend:
    from strongroom.kms.gcp import GcpBackend

    return GcpBackend(
        key,
        region=c.region,
        endpoint=c.endpoint,
        ca_file=c.ca_file,
        credentials=c.credentials,
        timeout_ms=c.timeout_ms,
    )


def _azure(c: KeysConfig, key: str) -> Backend:
    from strongroom.kms.azure import AzureBackend

    return AzureBackend(
        key, algorithm=c.algorithm, ca_file=c.ca_file, credentials=c.credentials, timeout_ms=c.timeout_ms
    )


def _vault(c: KeysConfig, key: str) -> Backend:
    from strongroom.kms.vault import VaultBackend

    return VaultBackend(
        key,
        endpoint=c.endpoint,
        mount=c.mount,
        namespace=c.namespace,
        auth=c.auth,
        role=c.role,
        credentials=c.credentials,
        ca_file=c.ca_file,
        timeout_ms=c.timeout_ms,
    )


def _pkcs11(c: KeysConfig, key: str) -> Backend:
    from strongroom.kms.pkcs11 import Pkcs11Backend

    return Pkcs11Backend(
        key, module=c.module, token=c.token, credentials=c.credentials, timeout_ms=c.timeout_ms
    )


_KINDS: Final[dict[str, _Kind]] = {
    "aws": _Kind(("key",), ("unwrap_keys", "region", "endpoint", "ca_file", "credentials"), _aws),
    "gcp": _Kind(("key",), ("unwrap_keys", "region", "endpoint", "ca_file", "credentials"), _gcp),
    "azure": _Kind(("key",), ("unwrap_keys", "ca_file", "credentials", "algorithm"), _azure),
    "vault": _Kind(
        ("key", "endpoint"),
        ("unwrap_keys", "ca_file", "credentials", "mount", "namespace", "auth", "role"),
        _vault,
    ),
    "pkcs11": _Kind(("key", "module", "token", "credentials"), ("unwrap_keys",), _pkcs11),
}

_AGENT_NEEDS: Final = ("socket",)
_AGENT_TAKES: Final = ("agent_user",)

PROVIDERS: Final = (LOCAL, *_KINDS, AGENT)


def check_keys_config(config: KeysConfig) -> None:
    """Refuse settings that the provider does not take, lacks, or that are out of range.

    Raises:
        ConfigurationError: with the setting's name.
    """
    _check_range("cache_s", config.cache_s, CACHE_S_MIN, CACHE_S_MAX)
    _check_range("timeout_ms", config.timeout_ms, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)
    _check_range("attempts_max", config.attempts_max, 1, ATTEMPTS_MAX)
    if config.provider not in PROVIDERS:
        raise ConfigurationError(
            f"unknown key management provider {config.provider!r}", hint="known: " + ", ".join(PROVIDERS)
        )
    kind = _KINDS.get(config.provider)
    needs = _AGENT_NEEDS if config.provider == AGENT else () if kind is None else kind.needs
    taken = (*needs, *(_AGENT_TAKES if config.provider == AGENT else () if kind is None else kind.takes))
    names = (*_ALL, *_LOCAL_ONLY)
    for name in names:
        local = config.provider == LOCAL and name in _LOCAL_ONLY
        if getattr(config, name) and name not in taken and not local:
            raise ConfigurationError(
                f"[keys] {name} is not for the provider {config.provider}",
                hint="it takes: " + ", ".join(taken or ("key_file", "passphrase")),
            )
    for name in needs:
        if not getattr(config, name):
            raise ConfigurationError(f"the provider {config.provider} needs [keys] {name}")
    _check_texts(config)
    if config.memory not in MEMORY_POLICIES:
        raise ConfigurationError('[keys] memory must be "prefer" or "require"')


def make_kms(
    config: KeysConfig, keys_directory: Path, store_id: UUID, *, passphrase: str | None = None
) -> KmsProvider:
    """The provider that a store's configuration names. Services are not asked yet.

    Raises:
        ConfigurationError: a setting is wrong, or an optional package is missing. KmsRegionError.
        KeystoreMissingError and the others of ``LocalKeystore.open``.
    """
    check_keys_config(config)
    if config.provider == LOCAL:
        passphrase = _passphrase(config, passphrase)
        return LocalKeystore.open(keys_directory / config.key_file, store_id=store_id, passphrase=passphrase)
    return _agent(config, passphrase) if config.provider == AGENT else _envelope(config, passphrase)


def create_kms(
    config: KeysConfig, keys_directory: Path, store_id: UUID, *, passphrase: str | None = None
) -> KmsProvider:
    """The provider of a store that is being made; the local keystore makes its key file.

    Raises:
        As ``make_kms``, and those of ``LocalKeystore.create``.
    """
    check_keys_config(config)
    if config.provider == LOCAL:
        passphrase = _passphrase(config, passphrase)
        return LocalKeystore.create(
            keys_directory / config.key_file, store_id=store_id, passphrase=passphrase
        )
    return _agent(config, passphrase) if config.provider == AGENT else _envelope(config, passphrase)


def _agent(config: KeysConfig, passphrase: str | None) -> AgentKms:
    if passphrase is not None:
        raise ConfigurationError("a passphrase is only for the provider local")
    trusted = {os.geteuid(), 0}
    if config.agent_user:
        trusted.add(user_number(config.agent_user))
    guard = Guard(GuardSettings(attempts_max=config.attempts_max))
    return AgentKms(Path(config.socket), guard=guard, timeout_ms=config.timeout_ms, trusted=sorted(trusted))


def _envelope(config: KeysConfig, passphrase: str | None) -> EnvelopeKms:
    if passphrase is not None:
        raise ConfigurationError("a passphrase is only for the provider local")
    kind = _KINDS[config.provider]
    backends = [kind.make(config, key) for key in (config.key, *config.unwrap_keys)]
    return EnvelopeKms(backends, Guard(GuardSettings(attempts_max=config.attempts_max)))


def _passphrase(config: KeysConfig, given: str | None) -> str | None:
    return resolve_reference(config.passphrase) if given is None and config.passphrase else given


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigurationError(f"[keys] {name} must be {least} to {most}")


def _check_texts(config: KeysConfig) -> None:
    if len(config.unwrap_keys) > FORMER_KEYS_MAX:
        raise ConfigurationError(f"[keys] unwrap_keys names at most {FORMER_KEYS_MAX} keys")
    if config.key in config.unwrap_keys or len(set(config.unwrap_keys)) != len(config.unwrap_keys):
        raise ConfigurationError("[keys] unwrap_keys names a key twice")
    for name in _ALL:
        value = getattr(config, name)
        for text in value if isinstance(value, tuple) else (value,):
            if len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
                raise ConfigurationError(f"[keys] {name} is too long or not printable")
    if "" in config.unwrap_keys:
        raise ConfigurationError("[keys] unwrap_keys names an empty key")
    if config.endpoint:
        check_endpoint(config.endpoint)
    for name in ("credentials", "passphrase"):
        if getattr(config, name):
            references.check(getattr(config, name), f"[keys] {name}")
