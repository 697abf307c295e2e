"""The rows of a keyring and the bytes that authenticate them (spec/keyring.md). Pure: no I/O.

Integers are unsigned and big-endian, ``|`` joins, ``text`` is UTF-8 with its length in two bytes in front.

    data row
        "strongroom/keyring-data@v1\\0" | key_id 8 | ns 8 | epoch 4 | state 1 | namespace_version 4
        | created_us 8 | length of subject 1 | subject | wrapped 106
    namespace row
        "strongroom/keyring-ns@v1\\0" | ns 8 | version 4 | state 1 | master_version 4 | created_us 8
        | length of tenant 2 | sealed tenant | length of wrapped 2 | wrapped
    wrap row (which master key has wrapped a namespace key; ns -1: the integrity key)
        "strongroom/keyring-wrap@v1\\0" | ns 8, signed | version 4 | place 1 | master_version 4 | created_us 8
        | length of wrapped 2 | wrapped
    context of a wrapped data key
        "strongroom/data-key@v1\\0" | store_id 16 | key_id 8 | ns 8 | namespace_version 4 | epoch 4
        | length of subject 1 | subject
    context of the head
        "strongroom/keyring-head@v1\\0" | store_id 16 | rows 8 | generation 8
    meta
        "strongroom/keyring-meta@v1\\0" | schema 4 | store_id 16 | created_us 8 | length 2 | integrity key
        | number of master keys 2 | each: version 4 | kms_version 4 | created_us 8 | provider | key_uri
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from hmac import compare_digest
from typing import Final, NamedTuple
from uuid import UUID

from strongroom.crypto import WRAPPED_BYTES, SecretKey
from strongroom.errors import KeyStateError, UnwrapError

SUBJECT_BYTES: Final = 32
KEY_ID_MAX: Final = 0xFFFF_FFFF
OWN: Final = b""  # the "subject" of a namespace's own keys
ROOT: Final = b"purpose-root".ljust(32, b"\0")  # of a purpose root that has taken the first own key's place
FORMER: Final = b"former-blinding".ljust(32, b"\0")  # of the keys that blinded subjects under roots before
NOT_ROOTS: Final = f"subject NOT IN (x'{ROOT.hex()}', x'{FORMER.hex()}')"  # in SQL
ERASED: Final = bytes(WRAPPED_BYTES)
WRAPPED_NAMESPACE_BYTES_MAX: Final = 8192
TENANT_BYTES_MAX: Final = 1024
INTEGRITY_NS: Final = -1  # the "namespace" of the wraps of the integrity key
PLACES_MAX: Final = 16  # wraps of one key

_DATA: Final = struct.Struct(">QQIBIQB")
_NAMESPACE: Final = struct.Struct(">QIBIQ")
_WRAP: Final = struct.Struct(">qIBIQ")
_CONTEXT: Final = struct.Struct(">16sQQIIB")
_HEAD: Final = struct.Struct(">16sQQ")
_META: Final = struct.Struct(">I16sQ")
_MASTER: Final = struct.Struct(">IIQ")
_DATA_LABEL: Final = b"strongroom/keyring-data@v1\0"
_WRAP_LABEL: Final = b"strongroom/keyring-wrap@v1\0"
_NAMESPACE_LABEL: Final = b"strongroom/keyring-ns@v1\0"
_CONTEXT_LABEL: Final = b"strongroom/data-key@v1\0"
_HEAD_LABEL: Final = b"strongroom/keyring-head@v1\0"
_META_LABEL: Final = b"strongroom/keyring-meta@v1\0"


class KeyState(IntEnum):
    """What a key may be used for (after NIST SP 800-57 part 1, section 7).

    Values are stored: never change one. No value is 0 or 1, because SQLite stores those two in fewer
    bytes, and a row must keep its size when its state changes (spec/keyring.md, "Destroying").
    """

    ACTIVE = 2  # seals and opens; one per (namespace, subject)
    DECRYPT_ONLY = 3  # opens what it sealed before
    DISABLED = 4  # nothing, until it is enabled again
    DESTROYED = 5  # gone; the row stays so that its number is never used again
    COMPROMISED = 6  # opens what it sealed, until that is sealed anew; ends destroyed


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One data key as ``Keyring.list_keys`` shows it: no key bytes, wrapped or not.

    ``subject`` is the blinded subject, None for a namespace's own key. ``uses`` never understates.
    """

    key_id: int
    ns: int
    subject: bytes | None = field(repr=False)
    epoch: int
    state: KeyState
    uses: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceKeyRecord:
    """One namespace key as ``Keyring.list_namespaces`` shows it."""

    ns: int
    tenant: str
    version: int
    state: KeyState
    created_at: datetime


def unknown_namespace() -> KeyStateError:
    """The error for a namespace, or a purpose root, that the keyring does not know."""
    return KeyStateError(
        "the keyring holds no key of this namespace",
        hint="the keyring may be older than the data: restore the newest key backup",
    )


def is_reserved(subject: bytes) -> bool:
    """Whether it is the name of something of the program's own, and no data subject that was blinded."""
    return subject == OWN or subject.endswith(bytes(16))


class DataRow(NamedTuple):
    """A row of ``data_keys``, in the order of its columns."""

    key_id: int
    ns: int
    subject: bytes
    epoch: int
    state: int
    namespace_version: int
    created_us: int
    wrapped: bytes
    mac: bytes = b""

    def __repr__(self) -> str:
        return f"<DataRow {self.key_id}>"

    def authenticated(self, row_key: SecretKey) -> DataRow:
        """This row with its MAC made anew."""
        return DataRow(*self[:8], row_key.mac(self.message()))

    def message(self) -> bytes:
        """The bytes under the row's MAC."""
        key_id, ns, subject, epoch, state, version, created_us, wrapped, _ = self
        fixed = _DATA.pack(key_id, ns, epoch, state, version, created_us, len(subject))
        return b"".join((_DATA_LABEL, fixed, subject, wrapped))

    def context(self, store_id: UUID) -> bytes:
        """The context under which this key is wrapped."""
        return wrap_context(
            store_id,
            self.key_id,
            self.ns,
            namespace_version=self.namespace_version,
            epoch=self.epoch,
            subject=self.subject,
        )

    def verified(self, row_key: SecretKey) -> DataRow:
        """This row, when its MAC holds.

        Raises:
            UnwrapError: the row was altered.
        """
        _require(row_key, self, len(self.wrapped) == WRAPPED_BYTES)
        return self

    def record(self, uses: int) -> KeyRecord:
        """The row as callers see it."""
        return KeyRecord(
            key_id=self.key_id,
            ns=self.ns,
            subject=self.subject or None,
            epoch=self.epoch,
            state=KeyState(self.state),
            uses=uses,
            created_at=time_of(self.created_us),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapRecord:
    """One wrap of a namespace key, as ``Keyring.wraps`` shows it: which master key has wrapped it.

    ``ns`` -1 is the keyring's integrity key. ``place``: the order in which master keys are asked.
    """

    ns: int
    version: int
    place: int
    provider: str
    key_uri: str
    created_at: datetime


class NamespaceRow(NamedTuple):
    """A row of ``namespace_keys``, in the order of its columns; ``tenant`` is sealed.

    ``wrapped`` is empty and ``master_version`` 0 since version 2 of the file: see ``WrapRow``.
    """

    ns: int
    version: int
    state: int
    master_version: int
    created_us: int
    tenant: bytes
    wrapped: bytes
    mac: bytes = b""

    def __repr__(self) -> str:
        return f"<NamespaceRow {self.ns}/{self.version}>"

    def authenticated(self, row_key: SecretKey) -> NamespaceRow:
        """This row with its MAC made anew."""
        return self._replace(mac=row_key.mac(self.message()))

    def message(self) -> bytes:
        """The bytes under the row's MAC."""
        return (
            _NAMESPACE_LABEL
            + _NAMESPACE.pack(self.ns, self.version, self.state, self.master_version, self.created_us)
            + _counted(self.tenant)
            + _counted(self.wrapped)
        )

    def verified(self, row_key: SecretKey) -> NamespaceRow:
        """This row, when its MAC holds.

        Raises:
            UnwrapError: the row was altered.
        """
        _require(row_key, self, True)
        return self


class WrapRow(NamedTuple):
    """A row of ``wraps``, in the order of its columns."""

    ns: int
    version: int
    place: int
    master_version: int
    created_us: int
    wrapped: bytes
    mac: bytes = b""

    def __repr__(self) -> str:
        return f"<WrapRow {self.ns}/{self.version}/{self.place}>"

    def authenticated(self, row_key: SecretKey) -> WrapRow:
        """This row with its MAC made anew."""
        return self._replace(mac=row_key.mac(self.message()))

    def message(self) -> bytes:
        """The bytes under the row's MAC."""
        return _WRAP_LABEL + _WRAP.pack(*self[:5]) + _counted(self.wrapped)

    def verified(self, row_key: SecretKey) -> WrapRow:
        """This row, when its MAC holds.

        Raises:
            UnwrapError: the row was altered.
        """
        _require(row_key, self, bool(self.wrapped))
        return self


class MasterRow(NamedTuple):
    """A row of ``master_keys``: which key of the KMS wraps the namespace keys."""

    version: int
    provider: str
    key_uri: str
    kms_version: int
    created_us: int


def _require(row_key: SecretKey, row: DataRow | NamespaceRow | WrapRow, well_formed: bool) -> None:
    try:
        good = well_formed and compare_digest(row_key.mac(row.message()), row.mac)
        if good and not isinstance(row, WrapRow):
            good = KeyState(row.state) > 0
    except (struct.error, TypeError, ValueError, OverflowError):  # a type or range that was never written
        good = False
    if not good:
        raise altered("a key row was altered, or belongs elsewhere")


def altered(message: str) -> UnwrapError:
    """The error for anything in the keyring that does not authenticate."""
    return UnwrapError(
        message, hint="run: strongroom --data DIR check; restore the keyring from the key backup"
    )


def wrap_context(
    store_id: UUID, key_id: int, ns: int, *, namespace_version: int, epoch: int, subject: bytes
) -> bytes:
    """What a wrapped data key is bound to."""
    fixed = _CONTEXT.pack(store_id.bytes, key_id, ns, namespace_version, epoch, len(subject))
    return _CONTEXT_LABEL + fixed + subject


def head_context(store_id: UUID, rows: int, generation: int) -> bytes:
    """What the sealed sum over all rows is bound to."""
    return _HEAD_LABEL + _HEAD.pack(store_id.bytes, rows, generation)


def meta_message(
    schema: int, store_id: bytes, created_us: int, integrity_key: bytes, masters: Sequence[MasterRow]
) -> bytes:
    """The bytes under the MAC of the meta row."""
    parts = [_META_LABEL, _META.pack(schema, store_id, created_us), _counted(integrity_key)]
    parts.append(len(masters).to_bytes(2, "big"))
    for m in masters:
        parts.append(_MASTER.pack(m.version, m.kms_version, m.created_us))
        parts += (_counted(m.provider.encode()), _counted(m.key_uri.encode()))
    return b"".join(parts)


def kms_context(store_id: UUID, tenant: str, ns: int, version: int, purpose: str) -> dict[str, str]:
    """The context of a key that the KMS wraps."""
    return {
        "store_id": str(store_id),
        "tenant": tenant,
        "namespace": str(ns),
        "key_version": str(version),
        "purpose": purpose,
    }


def time_of(microseconds: int) -> datetime:
    """Microseconds since the epoch as a UTC time."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(
        microsecond=microseconds % 1_000_000
    )


def _counted(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part
