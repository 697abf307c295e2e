"""A purpose key as a handle: it computes, and shows nothing; and the handles that one process holds.

A handle outlives the lease of its namespace key: its bytes are overwritten then, and derived anew from the
purpose root when it is used next, if the key management service allows it. So whoever holds one across
many uses (a keyword index, a sum over all rows) neither keeps bytes that were to be forgotten nor meets
a key that was given up between look and use.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar, final

from strongroom.crypto import SealContext, SecretKey, Uncopied, open_sealed, seal, unwrap_key, wrap_key
from strongroom.errors import KeyStateError

T = TypeVar("T")
Place: TypeAlias = tuple[int, int, str]  # namespace, number of the purpose root, label


class Deriver(Protocol):
    """The keyring, as a handle sees it."""

    def derive_again(self, key: PurposeKey) -> None: ...


@final
class PurposeKey(Uncopied):
    """One key for one purpose, derived from a purpose root of a namespace.

    Every method raises, besides what it says itself, KeyStateError when the root is not there, disabled or
    destroyed, ClosedError, and what the KMS raises when the key was given up and has to be asked for.
    Pickling and copying raise TypeError; two handles are equal when they are the same object.
    """

    _noun = "a purpose key"
    __slots__ = ("__weakref__", "_deriver", "_secret", "place")

    place: Place
    _deriver: Deriver
    _secret: SecretKey | None  # None: forgotten, the lease of its namespace key is over

    def __init__(self) -> None:
        raise TypeError("ask a Keyring for a purpose key")

    def mac(self, data: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of ``data``: 32 bytes."""
        secret = self._secret
        if secret is not None:
            try:
                return secret.mac(data)
            except KeyStateError:
                if not secret.wiped:
                    raise
        return self._again().mac(data)  # given up, perhaps since it was looked at

    def seal(self, number: int, context: SealContext, plaintext: bytes, suite: int) -> bytes:
        """``crypto.seal`` under this key; ``number`` (unsigned 32-bit) stands where records name their key.

        Raises:
            InvalidInputError, ContentTooLargeError: as there.
        """
        return self._use(lambda secret: seal(secret, number, context, plaintext, suite))

    def open(self, context: SealContext, sealed: bytes) -> bytes:
        """``crypto.open_sealed`` with this key.

        Raises:
            DecryptionError: always the same, whatever is wrong with context or bytes.
        """
        return self._use(lambda secret: open_sealed(secret, context, sealed))

    def wrap(self, key: SecretKey, context: bytes, suite: int) -> bytes:
        """``crypto.wrap_key`` of ``key`` under this key: 106 bytes."""
        return self._use(lambda secret: wrap_key(secret, key, context, suite))

    def unwrap(self, wrapped: bytes, context: bytes) -> SecretKey:
        """``crypto.unwrap_key`` with this key.

        Raises:
            UnwrapError: another key, another context, or altered bytes.
        """
        return self._use(lambda secret: unwrap_key(secret, wrapped, context))

    def _use(self, act: Callable[[SecretKey], T]) -> T:
        secret = self._secret
        if secret is not None:
            try:
                return act(secret)
            except KeyStateError:  # given up since it was looked at
                if not secret.wiped:
                    raise
        return act(self._again())

    def _again(self) -> SecretKey:
        self._deriver.derive_again(self)
        return purpose_secret(self)

    def __repr__(self) -> str:
        return f"<PurposeKey {self.place[2]} of namespace {self.place[0]}>"


def purpose_secret(key: PurposeKey) -> SecretKey:
    """The key behind the handle, for this room only.

    Raises:
        KeyStateError: it was forgotten a moment ago.
    """
    secret = key._secret
    if secret is None:
        raise KeyStateError("the key was forgotten while it was to be used", hint="repeat the operation")
    return secret


class PurposeHandles:
    """The handles of one process: at most one for each place, for as long as somebody holds it."""

    def __init__(self) -> None:
        self.settled: dict[Place, PurposeKey] = {}  # looked up since a key last changed its state
        self._alive: weakref.WeakValueDictionary[Place, PurposeKey] = weakref.WeakValueDictionary()

    def put(self, place: Place, secret: SecretKey, deriver: Deriver) -> PurposeKey:
        """Give the handle of a place its bytes; hold the lock of the keyring's file."""
        key = self._alive.get(place)
        if key is None:
            key = object.__new__(PurposeKey)
            key.place, key._deriver, key._secret = place, deriver, secret
            self._alive[place] = key
        elif key._secret is None or key._secret.wiped:
            key._secret = secret
        else:
            secret.wipe()  # another thread was first: the same bytes
        self.settled[place] = key
        return key

    def doubt(self) -> None:
        """A key changed its state somewhere: every place is looked up again."""
        self.settled.clear()

    def forget(self, ns: int | None) -> None:
        """Overwrite the bytes of one namespace, or of all; also of handles that were put in doubt."""
        for place in [p for p in list(self.settled) if ns is None or p[0] == ns]:
            self.settled.pop(place, None)
        for key in [found for ref in self._alive.valuerefs() if (found := ref()) is not None]:
            if ns is None or key.place[0] == ns:
                secret, key._secret = key._secret, None
                if secret is not None:
                    secret.wipe()
