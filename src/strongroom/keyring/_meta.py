"""The description of a keyring: its store, version, master keys, and who can open it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import apsw

from strongroom.errors import SchemaVersionError, StorageCorruptError
from strongroom.keyring import _schema
from strongroom.keyring._rows import INTEGRITY_NS, MasterRow, WrapRow, kms_context, meta_message
from strongroom.keyring._sqlite import one_state, translated

WRAP_COLUMNS: Final = "ns, version, place, master_version, created_us, wrapped, mac"
RESTORE: Final = "restore the keyring from the key backup"


@dataclass(frozen=True, slots=True)
class Meta:
    """The description of a keyring, as it stands in the file."""

    schema: int
    store_id: bytes
    created_us: int
    integrity_key: bytes
    mac: bytes
    masters: tuple[MasterRow, ...]

    def message(self) -> bytes:
        return meta_message(self.schema, self.store_id, self.created_us, self.integrity_key, self.masters)


def read_meta(db: apsw.Connection, path: Path) -> Meta:
    with one_state(db, path):  # else a master key that is registered meanwhile would not match the MAC
        version = version_of(db, path)
        found = db.execute("SELECT store_id, created_us, integrity_key, mac FROM meta").get
        masters = tuple(MasterRow(*row) for row in db.execute("SELECT * FROM master_keys ORDER BY version"))
    if found is None:
        raise StorageCorruptError(f"{path.name} is damaged", hint=RESTORE)
    store_id, created_us, integrity_key, mac = found
    return Meta(version, store_id, created_us, integrity_key, mac, masters)


def integrity_context(store_id: UUID) -> dict[str, str]:
    """The context under which the integrity key is wrapped."""
    return kms_context(store_id, "", 0, 1, "keyring-integrity")


def integrity_wraps(db: apsw.Connection, path: Path, meta: Meta) -> list[WrapRow]:
    """The wraps of the integrity key, not verified: it is what they are verified with."""
    if meta.schema < _schema.WRAPS_VERSION:
        return [WrapRow(INTEGRITY_NS, 1, 1, 1, meta.created_us, meta.integrity_key)]
    sql = f"SELECT {WRAP_COLUMNS} FROM wraps WHERE ns = ? ORDER BY place"  # noqa: S608
    with translated(path):
        return [WrapRow(*row) for row in db.execute(sql, (INTEGRITY_NS,))]


def version_of(db: apsw.Connection, path: Path) -> int:
    if db.execute("PRAGMA application_id").get != _schema.APPLICATION_ID:
        raise StorageCorruptError(f"{path.name} is no keyring, or damaged", hint=RESTORE)
    version = int(db.execute("PRAGMA user_version").get)
    if version > _schema.schema_version():
        raise SchemaVersionError("the keyring was written by a newer version of this program")
    if version < 1:
        raise StorageCorruptError(f"{path.name} is damaged", hint=RESTORE)
    return version
