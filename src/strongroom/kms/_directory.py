"""The key management services of one store, by name: its own, those of tenants, those of a second region.

Each provider is made when it is first needed and not before, so that one that cannot be made (no
credentials, no key file, no package) stops only the namespaces that need it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.errors import ClosedError, ConfigurationError, StrongroomError
from strongroom.kms._contract import KmsProvider
from strongroom.kms._envelope import EnvelopeKms
from strongroom.kms.agent import AgentKms

DEFAULT: Final = "default"
RECOVERY: Final = "recovery"


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider that can be made: its kind (``aws``; "" when only the provider itself can say), and how."""

    kind: str
    make: Callable[[], KmsProvider]


class KmsDirectory:
    """Finds a provider by its name in the configuration, or by the master key that it holds.

    ``fallback``: who is asked for a wrap whose master key nobody names (a key whose address in the
    configuration has changed); None: nobody. ``recipients``: offline recovery keys to which every new
    namespace key is wrapped too. Thread-safe.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        *,
        fallback: str | None = DEFAULT,
        recipients: Sequence[KmsProvider] = (),
    ) -> None:
        self._entries = dict(entries)
        self._made: dict[str, KmsProvider] = {}
        self._fallback = fallback
        self._lock = threading.RLock()
        self._closed = False
        self.recipients = tuple(recipients)

    @classmethod
    def single(cls, provider: KmsProvider) -> KmsDirectory:
        """A directory of one provider, under the name ``default``."""
        return cls({DEFAULT: Entry("", lambda: provider)})

    @property
    def names(self) -> tuple[str, ...]:
        """The names, whether or not their provider can be made."""
        return tuple(self._entries)

    def provider(self, name: str) -> KmsProvider:
        """The provider of that name.

        Raises:
            ConfigurationError: there is none of that name. What making it raises. ClosedError.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("the key management providers were closed")
            found = self._made.get(name)
            if found is None:
                entry = self._entries.get(name)
                if entry is None:
                    raise ConfigurationError(
                        f"no key management provider is named {name!r}",
                        hint=f"add [keys.providers.{name}] to strongroom.toml",
                    )
                found = self._made[name] = entry.make()
            return found

    def name_of(self, provider: str, key_uri: str) -> str | None:
        """The name of a provider that holds this master key, present or former; the first that does.

        Raises:
            StrongroomError: nobody was found to hold it, and a provider of that kind could not be made.
        """
        failed: StrongroomError | None = None
        for name, entry in self._entries.items():
            if entry.kind not in ("", provider):
                continue
            try:
                held = self.provider(name)
                if held.describe().provider == provider and key_uri in key_uris(held):
                    return name
            except ClosedError:
                raise
            except StrongroomError as e:
                failed = failed or e
        if failed is not None:
            raise failed
        return None

    def holder(self, provider: str, key_uri: str) -> KmsProvider | None:
        """Who can unwrap what this master key has wrapped; None: nobody here (an offline recovery key).

        Raises:
            As ``name_of``.
        """
        name = self.name_of(provider, key_uri)
        if name is None and provider != RECOVERY:
            name = self._fallback
        return None if name is None else self.provider(name)

    def made(self) -> dict[str, KmsProvider]:
        """The providers that were needed so far, by name."""
        with self._lock:
            return dict(self._made)

    def close(self) -> None:
        """Close every provider; may be called twice."""
        with self._lock:
            self._closed = True
            made, self._made = list(self._made.values()), {}
        for provider in (*made, *self.recipients):
            provider.close()


def as_directory(kms: KmsProvider | KmsDirectory) -> KmsDirectory:
    """One provider, or several, as a directory."""
    return kms if isinstance(kms, KmsDirectory) else KmsDirectory.single(kms)


def key_uris(provider: KmsProvider) -> tuple[str, ...]:
    """The master keys that a provider can unwrap with, the present one first."""
    if isinstance(provider, EnvelopeKms | AgentKms):
        return provider.key_uris()
    return (provider.describe().key_uri,)
