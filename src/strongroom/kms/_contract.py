"""What a key management service does for Strongroom: four methods, and the context that it must bind.

The context is a small mapping of texts, for example::

    {"store_id": "...", "tenant": "company_a", "namespace": "3", "key_version": "1",
     "purpose": "namespace-key"}

A provider must bind it with Strongroom's own authenticated layer, whatever the service itself offers:
a wrapped key that is unwrapped under any other context must fail. ``tests/kms/contract.py`` is the
suite that every provider runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from strongroom.crypto import SecretKey, encode_pairs
from strongroom.errors import InvalidInputError

CONTEXT_ENTRIES_MAX: Final = 16
CONTEXT_NAME_BYTES_MAX: Final = 64
CONTEXT_VALUE_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsKeyInfo:
    """Which master key a provider wraps with. Holds no secret and may be stored in clear.

    ``key_uri`` names the key at its provider (``local:<hex>``); ``version`` is the provider's
    number of the key's present version and starts at 1.
    """

    provider: str
    key_uri: str
    version: int


@runtime_checkable
class KmsProvider(Protocol):
    """Wraps and unwraps keys under a master key that never enters the keyring.

    Every method may be called from any thread. After ``close`` the other three raise ClosedError.
    """

    def describe(self) -> KmsKeyInfo:
        """The master key in use.

        Raises:
            ClosedError: the provider was closed.
        """
        ...

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """Encrypt ``key`` under the master key, bound to ``context``. Two calls give different bytes.

        Raises:
            InvalidInputError: the context is empty or over its limits.
            KeyManagementError: the master key is missing, refused or not reachable.
            ClosedError: the provider was closed.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """The key that ``wrap`` was given with the same context.

        Raises:
            UnwrapError: other master key, other context, or any bit changed; always the same text.
            InvalidInputError: the context is empty or over its limits.
            KeyManagementError: the master key is missing, refused or not reachable.
            ClosedError: the provider was closed.
        """
        ...

    def close(self) -> None:
        """Forget the master key or the connection; may be called twice."""
        ...


def encode_context(context: Mapping[str, str]) -> bytes:
    """The one canonical form of a context.

    ::

        entries(2) | for each, ordered by the bytes of its name: len(2) name | len(2) value

    Numbers are big-endian, texts UTF-8.

    Raises:
        InvalidInputError: no entry, more than 16, a name or value that is no text or over its limit.
    """
    if not context or len(context) > CONTEXT_ENTRIES_MAX:
        raise InvalidInputError(f"a key context has 1 to {CONTEXT_ENTRIES_MAX} entries")
    for name, value in context.items():
        _check_text(name, CONTEXT_NAME_BYTES_MAX, empty=False)
        _check_text(value, CONTEXT_VALUE_BYTES_MAX, empty=True)
    return encode_pairs(context)


def _check_text(value: object, bytes_max: int, *, empty: bool) -> None:
    if not isinstance(value, str):
        raise InvalidInputError("names and values of a key context are texts")
    if len(value.encode("utf-8", "surrogatepass")) > bytes_max or not (value or empty):
        raise InvalidInputError("a name or value of a key context is empty or too long")
