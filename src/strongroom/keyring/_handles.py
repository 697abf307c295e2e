"""A data key as a handle: it seals and opens, and shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, final

from strongroom.crypto import (
    SealContext,
    SealJob,
    SecretKey,
    Uncopied,
    encoded,
    encoded_rows,
    open_encoded,
    open_sealed,
    seal,
    seal_many,
)
from strongroom.errors import DecryptionError, InvalidInputError, KeyStateError
from strongroom.keyring._rows import KeyState
from strongroom.model import SealedRecord

T = TypeVar("T")
Rows = Sequence[tuple[bytes, int, int, bytes]]  # (memory_id, field, version, plaintext)


class Guard(Protocol):
    """The keyring, as a handle sees it."""

    def admit_sealing(self, uses: Sequence[tuple[DataKey, int]]) -> None: ...
    def admit_opening(self, key: DataKey) -> None: ...


@final
class DataKey(Uncopied):
    """One data key of a keyring.

    ``key_id`` (unsigned 32-bit) stands in the header of what it seals; ``ns`` is its namespace. The
    handle asks its keyring before each use, so that a key that was disabled or destroyed stops at
    once here, and within the keyring's recheck interval in other processes. Pickling and
    copying raise TypeError; two handles are equal when they are the same object.
    """

    _noun = "a data key"
    __slots__ = (
        "__weakref__",
        "_generation",
        "_guard",
        "_secret",
        "_state",
        "_suite",
        "epoch",
        "key_id",
        "ns",
    )

    key_id: int
    ns: int
    epoch: int
    _guard: Guard
    _secret: SecretKey | None  # None: forgotten, the lease of its namespace key is over
    _state: KeyState
    _suite: int
    _generation: int

    def __init__(self) -> None:
        raise TypeError("ask a Keyring for a data key")

    @property
    def state(self) -> KeyState:
        """The state that this process has seen last."""
        return self._state

    def seal(self, context: SealContext, plaintext: bytes) -> bytes:
        """Seal ``plaintext`` under a context of this key's namespace, and count one use.

        Raises:
            KeyStateError: the key is not active. KeyExhaustedError: its uses are spent.
            InvalidInputError: the context is of another namespace. ContentTooLargeError.
            StorageError: counters had to be written and could not. ClosedError.
        """
        if context.ns != self.ns:
            raise InvalidInputError("a key seals only for its own namespace")
        self._guard.admit_sealing(((self, 1),))
        try:
            return seal(secret_of(self), self.key_id, context, plaintext, self._suite)
        except KeyStateError:  # as in ``open_admitted``
            self._guard.admit_sealing(((self, 1),))
            return seal(secret_of(self), self.key_id, context, plaintext, self._suite)

    def seal_rows(self, tenant: str, schema: int, rows: Rows) -> list[bytes]:
        """``seal`` for each ``(memory_id, field, version, plaintext)`` of this key's namespace.

        The keyring is asked once for all of them.

        Raises:
            As ``seal``; nothing was sealed then.
        """
        return seal_groups(schema, ((self, tenant, rows),))[0]

    def open(self, context: SealContext, sealed: bytes) -> bytes:
        """The plaintext of ``sealed``.

        Raises:
            DecryptionError: always the same, whatever is wrong. KeyStateError: the key is disabled or
            destroyed. ClosedError.
        """
        self._guard.admit_opening(self)
        return open_admitted(self, context, sealed)

    def __repr__(self) -> str:
        return f"<DataKey {self.key_id} of namespace {self.ns}, {self._state.name.lower()}>"


def seal_groups(schema: int, groups: Sequence[tuple[DataKey, str, Rows]]) -> list[list[bytes]]:
    """``DataKey.seal_rows`` for each ``(key, tenant, rows)``; the keyring is asked once for all the keys.

    Raises:
        As ``DataKey.seal``; nothing was sealed then. InvalidInputError: the keys are of several keyrings.
    """
    uses = [(key, len(rows)) for key, _, rows in groups if rows]
    if not uses:
        return [[] for _ in groups]
    guard = uses[0][0]._guard
    if any(key._guard is not guard for key, _ in uses):
        raise InvalidInputError("rows are sealed for one keyring at a time")
    bound = [encoded_rows(tenant, key.ns, schema, rows) for key, tenant, rows in groups]

    def sealed() -> list[list[bytes]]:
        guard.admit_sealing(uses)
        return seal_many(
            [
                SealJob(secret_of(key), key.key_id, key._suite, items)
                for (key, _, _), items in zip(groups, bound, strict=True)
            ]
        )

    try:
        return sealed()
    except KeyStateError:  # as in ``open_admitted``
        return sealed()


def make_handle(
    guard: Guard,
    secret: SecretKey,
    *,
    key_id: int,
    ns: int,
    epoch: int,
    state: int,
    suite: int,
    generation: int,
) -> DataKey:
    """The one way to a handle."""
    key = object.__new__(DataKey)
    key.key_id, key.ns, key.epoch = key_id, ns, epoch
    key._guard, key._secret, key._suite = guard, secret, suite
    key._state, key._generation = KeyState(state), generation
    return key


def renew_handle(key: DataKey, state: int, generation: int) -> None:
    """Note what the keyring has found; a destroyed key loses its bytes here too."""
    key._state, key._generation = KeyState(state), generation
    if state == KeyState.DESTROYED and key._secret is not None:
        key._secret.wipe()


def is_settled(key: DataKey, generation: int, allowed: frozenset[KeyState]) -> bool:
    """Whether the handle was checked in this generation of the keyring and is in one of those states."""
    return key._generation == generation and key._state in allowed


def generation_of(key: DataKey) -> int:
    """The keyring's generation when the handle was last checked."""
    return key._generation


def once_more(act: Callable[[], T]) -> T:
    """Do ``act``, which admits keys, uses them, and leaves nothing behind when it fails: again, when one of
    them was given up in between, at the end of a lease (as in ``open_admitted``)."""
    try:
        return act()
    except KeyStateError:
        return act()


def open_admitted(key: DataKey, context: SealContext, sealed: bytes) -> bytes:
    """``key.open`` for the keyring itself, which has just admitted the key."""
    if context.ns != key.ns:
        raise DecryptionError
    try:
        return open_sealed(secret_of(key), context, sealed)
    except KeyStateError:
        # Given up since it was admitted, at the end of a lease: not a key that is gone. Asking again gives
        # it back, or tells what the key management service says.
        key._guard.admit_opening(key)
        return open_sealed(secret_of(key), context, sealed)


def open_row_admitted(key: DataKey, tenant: str, schema: int, row: SealedRecord) -> bytes:
    """``open_admitted`` for a row of the ledger, without an object for its context."""
    if row.ns != key.ns:
        raise DecryptionError
    bound = encoded(tenant, row.ns, row.memory_id, row.field, row.version, schema)
    try:
        return open_encoded(secret_of(key), bound, row.sealed)
    except KeyStateError:  # as in ``open_admitted``
        key._guard.admit_opening(key)
        return open_encoded(secret_of(key), bound, row.sealed)


def forget_handle(key: DataKey) -> None:
    """Overwrite the bytes behind a handle; ``revive_handle`` gives it new ones."""
    secret, key._secret = key._secret, None
    if secret is not None:
        secret.wipe()


def is_forgotten(key: DataKey) -> bool:
    """Whether the handle has lost its bytes."""
    return key._secret is None


def revive_handle(key: DataKey, secret: SecretKey) -> None:
    """Give a forgotten handle its bytes back."""
    if key._secret is None:
        key._secret = secret


def suite_of(key: DataKey) -> int:
    """The number of the suite that the key seals with."""
    return key._suite


def secret_of(key: DataKey) -> SecretKey:
    """The key behind the handle, for this room only.

    Raises:
        KeyStateError: it was forgotten a moment ago.
    """
    secret = key._secret
    if secret is None:
        raise KeyStateError("the key was forgotten while it was to be used", hint="repeat the operation")
    return secret
