"""The schema of ``ledger.db`` and the way from each version to the next (spec/ledger.md)."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import apsw

from strongroom.errors import SchemaVersionError, StorageCorruptError, StoreExistsError
from strongroom.ledger._connect import PAGE_BYTES, from_os_error, translated
from strongroom.ledger._waves import wave_schema

APPLICATION_ID = 0x53524C47  # "SRLG"
FILE_NAME = "ledger.db"

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)

Migration = Callable[[apsw.Connection], None]

_V1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE namespace (ns INTEGER PRIMARY KEY, seq INTEGER NOT NULL, head BLOB NOT NULL) STRICT;
CREATE TABLE record (
  id INTEGER PRIMARY KEY,
  ns INTEGER NOT NULL,
  memory_id BLOB NOT NULL,
  field INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  version INTEGER NOT NULL,
  content_version INTEGER NOT NULL,
  key_id INTEGER NOT NULL,
  state INTEGER NOT NULL,
  model INTEGER NOT NULL,
  sealed BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX record_key ON record (ns, memory_id, field);
CREATE UNIQUE INDEX record_seq ON record (ns, seq);
CREATE TABLE embedding_queue (
  id INTEGER PRIMARY KEY,
  ns INTEGER NOT NULL,
  memory_id BLOB NOT NULL,
  content_version INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  dead INTEGER NOT NULL,
  error_code TEXT
) STRICT;
CREATE UNIQUE INDEX embedding_queue_key ON embedding_queue (ns, memory_id);
CREATE INDEX embedding_queue_dead ON embedding_queue (ns, id) WHERE dead = 1;
CREATE TABLE audit (seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
"""


def _first_version(connection: apsw.Connection) -> None:
    connection.execute(_V1)


# The Merkle tree over the audit log: hashes of complete subtrees of 2^level leaves (spec/audit-log.md).
_V2 = """
CREATE TABLE audit_node (
  level INTEGER NOT NULL,
  position INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;
"""


def _audit_tree(connection: apsw.Connection) -> None:
    connection.execute(_V2)


# MIGRATIONS[n] leads from version n to version n + 1. Only ever append.
MIGRATIONS: tuple[Migration, ...] = (_first_version, _audit_tree, wave_schema)


def create_file(directory: Path, store_id: UUID) -> Path:
    """Make an empty ledger; a crash leaves either none or a whole one.

    Raises:
        StoreExistsError: there is one. StorageError: it cannot be written.
    """
    path = directory / FILE_NAME
    if path.exists():
        raise StoreExistsError()
    draft = directory / f".{FILE_NAME}.{uuid.uuid4().hex}"
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        _fill(draft, store_id)
        _sync(draft)
        _publish(draft, path)
        try:
            _sync(directory)
        except OSError:  # the name is ours since a moment
            path.unlink()
            raise
    except FileExistsError:
        raise StoreExistsError() from None
    except OSError as e:
        raise from_os_error(e) from None
    finally:
        for name in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm")):
            name.unlink(missing_ok=True)
    return path


def _fill(path: Path, store_id: UUID) -> None:
    with translated():
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA auto_vacuum=NONE")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            MIGRATIONS[0](connection)
            connection.execute(
                "INSERT INTO meta VALUES ('store_id', ?), ('schema_version', 1)", (store_id.bytes,)
            )
            connection.execute("COMMIT")
            migrate(connection)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        finally:
            connection.close()


def _publish(draft: Path, path: Path) -> None:
    """Give the file its name, unless another process was first."""
    try:
        os.link(draft, path)
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        draft.rename(path)  # a file system without links cannot tell who was first


def require_own_logs(path: Path) -> None:
    """Refuse logs that go by another name as well: SQLite would write them over whatever that is.

    Raises:
        StorageCorruptError: somebody who can write the directory has put them there.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            found = Path(f"{path}{suffix}").lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise StorageCorruptError(
                    f"{path.name}{suffix} is a link",
                    hint="somebody has put it there: see what it leads to before anything is removed",
                )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def store_id_of(connection: apsw.Connection) -> UUID:
    """The id of the store that an open ledger belongs to."""
    value = _meta(connection, "store_id")
    if not isinstance(value, bytes) or len(value) != 16:
        raise StorageCorruptError("the ledger does not say which store it belongs to")
    return UUID(bytes=value)


def verify_file(connection: apsw.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Refuse a file that is no ledger or a newer one; bring an older one up to date.

    Raises:
        StorageCorruptError: not a ledger. SchemaVersionError: written by a newer program.
    """
    found = connection.execute("PRAGMA application_id").get
    if found != APPLICATION_ID:
        raise StorageCorruptError(f"{FILE_NAME} is not a ledger")
    if connection.execute("PRAGMA journal_mode").get != "wal":
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
    migrate(connection, migrations)


def migrate(connection: apsw.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Run what is missing, each step in its own transaction; of several processes one does it."""
    while True:
        version = _version(connection)
        if version > len(migrations):
            raise SchemaVersionError(
                f"the ledger has schema version {version}; this program knows up to {len(migrations)}"
            )
        if version == len(migrations):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:
                migrations[version](connection)
                connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version + 1,))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: apsw.Connection) -> int:
    value = _meta(connection, "schema_version")
    if not isinstance(value, int) or value < 1:
        raise StorageCorruptError("the ledger does not say which schema version it has")
    return value


def _meta(connection: apsw.Connection, key: str) -> object:
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    except apsw.SQLError:
        raise StorageCorruptError(f"{FILE_NAME} is not a ledger") from None
    return row[0] if row else None
