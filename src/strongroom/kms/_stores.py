"""The key management services of a store, and which of them is for which namespace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from strongroom.config import Config, KeysConfig
from strongroom.errors import ConfigurationError, StrongroomError
from strongroom.kms._contract import KmsProvider
from strongroom.kms._directory import DEFAULT, RECOVERY, Entry, KmsDirectory
from strongroom.kms._registry import LOCAL, check_keys_config, create_kms, make_kms
from strongroom.kms.recovery import Recipient
from strongroom.model import NamespacePattern

PROVIDERS_MAX: Final = 1_000
ALSO_MAX: Final = 7
RECOVERY_KEYS_MAX: Final = 4
PATTERNS_MAX: Final = 1_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_ONLY_STORE: Final = ("directory", "suite", "recovery_keys")
_FRESH: Final = KeysConfig()


def check_providers(config: Config) -> None:
    """Refuse a configuration of key management services that contradicts itself. Asks nobody.

    Raises:
        ConfigurationError: with the setting.
    """
    check_keys_config(config.keys)
    if config.keys.namespaces:
        raise ConfigurationError("[keys] namespaces is only for [keys.providers.NAME]")
    if len(config.keys.recovery_keys) > RECOVERY_KEYS_MAX:
        raise ConfigurationError(f"[keys] recovery_keys names at most {RECOVERY_KEYS_MAX} keys")
    if len(config.key_providers) > PROVIDERS_MAX:
        raise ConfigurationError(f"at most {PROVIDERS_MAX} key management providers")
    _check_also(DEFAULT, config.keys, config)
    held = {_master_of(config.keys): DEFAULT}
    claimed: dict[str, str] = {}
    for name, keys in config.key_providers.items():
        place = f"[keys.providers.{name}]"
        if not _NAME.fullmatch(name) or name in (DEFAULT, RECOVERY):
            raise ConfigurationError(
                f"{name!r} is no name for a key management provider",
                hint="1 to 63 lower-case letters, digits, '_' and '-'; not default, not recovery",
            )
        for setting in _ONLY_STORE:
            if getattr(keys, setting) != getattr(_FRESH, setting):
                raise ConfigurationError(f"{place} {setting} is only for [keys]")
        try:
            check_keys_config(keys)
        except ConfigurationError as e:
            raise ConfigurationError(e.message.replace("[keys]", place), hint=e.hint) from None
        _check_also(name, keys, config)
        other = held.setdefault(_master_of(keys), name)
        if other != name:
            raise ConfigurationError(
                f"the providers {other} and {name} are the same master key",
                hint="give the namespaces of both to one provider",
            )
        for pattern in _patterns(name, keys.namespaces):
            if pattern in claimed:
                raise ConfigurationError(
                    f"the providers {claimed[pattern]} and {name} are both for the namespaces {pattern}"
                )
            claimed[pattern] = name
    if len(claimed) > PATTERNS_MAX:
        raise ConfigurationError(f"at most {PATTERNS_MAX} patterns of namespaces have a provider")


def names_for(config: Config, namespace: str, chosen: str | None = None) -> tuple[str, ...]:
    """The providers for a new namespace, in the order in which they are asked.

    ``chosen``, when somebody has; otherwise the provider whose pattern fits the namespace most closely;
    otherwise that of ``[keys]``. Each with those that it names in ``also``.

    Raises:
        ConfigurationError: there is no provider of that name.
    """
    name = _closest(config, namespace) if chosen is None else chosen
    keys = config.keys if name == DEFAULT else config.key_providers.get(name)
    if keys is None:
        raise ConfigurationError(
            f"no key management provider is named {name!r}",
            hint="known: " + ", ".join((DEFAULT, *config.key_providers)),
        )
    return (name, *keys.also)


def names_of_store(config: Config) -> tuple[str, ...]:
    """The providers of what is the store's own: the integrity key and the system namespace."""
    return (DEFAULT, *config.keys.also)


def make_directory(
    config: Config, keys_directory: Path, store_id: UUID, *, passphrase: str | None = None
) -> KmsDirectory:
    """The key management services of a store; each is made when it is needed. Nobody is asked.

    Raises:
        ConfigurationError: the settings contradict themselves.
    """
    check_providers(config)
    own = partial(make_kms, config.keys, keys_directory, store_id, passphrase=passphrase)
    return _directory(config, own, keys_directory, store_id)


def create_directory(
    config: Config, keys_directory: Path, store_id: UUID, *, passphrase: str | None = None
) -> KmsDirectory:
    """As ``make_directory``, for a store that is being made: a local keystore makes its key file, now.

    Raises:
        ConfigurationError, and what making the provider of ``[keys]`` raises.
    """
    check_providers(config)
    own = create_kms(config.keys, keys_directory, store_id, passphrase=passphrase)
    return _directory(config, lambda: own, keys_directory, store_id)


def create_key_file(config: Config, name: str, keys_directory: Path, store_id: UUID) -> str:
    """Make the key file of a named provider of the kind ``local``; returns the address of its master key.

    Raises:
        ConfigurationError: there is no such provider, or it is of another kind. StoreExistsError.
    """
    keys = config.key_providers.get(name)
    if keys is None or keys.provider != LOCAL:
        raise ConfigurationError(
            f"no local provider is named {name!r}", hint=f'[keys.providers.{name}] with provider = "local"'
        )
    made = create_kms(keys, keys_directory, store_id)
    try:
        return made.describe().key_uri
    finally:
        made.close()


def _directory(
    config: Config, own: Callable[[], KmsProvider], keys_directory: Path, store_id: UUID
) -> KmsDirectory:
    entries = {DEFAULT: Entry(config.keys.provider, own)}
    for name, keys in config.key_providers.items():
        entries[name] = Entry(keys.provider, partial(_named, name, keys, keys_directory, store_id))
    return KmsDirectory(entries, recipients=recipients(config.keys.recovery_keys))


def recipients(texts: Iterable[str]) -> list[KmsProvider]:
    """The recovery keys of a configuration, as far as wrapping goes.

    Raises:
        ConfigurationError: a text is no public recovery key, or stands there twice.
    """
    found: dict[str, KmsProvider] = {}
    for text in texts:
        recipient = Recipient.parse(text)
        uri = recipient.describe().key_uri
        if uri in found:
            raise ConfigurationError("[keys] recovery_keys names a key twice")
        found[uri] = recipient
    return list(found.values())


def _named(name: str, keys: KeysConfig, keys_directory: Path, store_id: UUID) -> KmsProvider:
    try:
        return make_kms(keys, keys_directory, store_id)
    except ConfigurationError as e:
        message = e.message.replace("[keys]", f"[keys.providers.{name}]")
        raise ConfigurationError(message, hint=e.hint) from None


def _master_of(keys: KeysConfig) -> tuple[str, ...]:
    """What tells one master key from another, as far as the configuration says."""
    if keys.provider == LOCAL:
        return (LOCAL, keys.key_file)
    return (keys.provider, keys.key, keys.region, keys.endpoint, keys.mount, keys.namespace, keys.token)


def _check_also(name: str, keys: KeysConfig, config: Config) -> None:
    if len(keys.also) > ALSO_MAX:
        raise ConfigurationError(f"also names at most {ALSO_MAX} providers")
    for other in keys.also:
        if other not in config.key_providers and other != DEFAULT:
            raise ConfigurationError(
                f"the provider {name} names {other!r} in also, and no such provider is configured"
            )
    if len({name, *keys.also}) != 1 + len(keys.also):
        raise ConfigurationError(f"the provider {name} names itself or another one twice in also")


def _patterns(name: str, texts: Iterable[str]) -> list[str]:
    try:
        found = [NamespacePattern.parse(text).text for text in texts]
    except StrongroomError as e:
        raise ConfigurationError(
            f"[keys.providers.{name}] namespaces holds what is no pattern", hint=e.hint
        ) from None
    if "*" in found:
        raise ConfigurationError(
            f"[keys.providers.{name}] namespaces cannot be '*'", hint="the provider of all others is [keys]"
        )
    return found


def _closest(config: Config, namespace: str) -> str:
    """The provider with the longest pattern that fits; a whole name is closer than any subtree."""
    best, name = (False, -1), DEFAULT
    for candidate, keys in config.key_providers.items():
        for text in keys.namespaces:
            pattern = NamespacePattern(text)
            rank = (pattern.is_exact, len(text))
            if pattern.matches(namespace) and rank > best:
                best, name = rank, candidate
    return name
