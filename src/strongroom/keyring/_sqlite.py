"""SQLite through apsw: connections as the keyring wants them, and one typed error for every failure."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from strongroom.errors import (
    ConflictError,
    InternalError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
)

BUSY_TIMEOUT_MS: Final = 10_000

_HINT: Final = "restore the keyring from the key backup"


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn every apsw exception of the block into an error of ours.

    Raises:
        StorageFullError, StorageReadOnlyError, StorageBusyError, StorageCorruptError, StorageError.
    """
    try:
        yield
    except apsw.Error as e:
        raise _typed(e, path) from None


def _typed(error: apsw.Error, path: Path) -> StorageError | ConflictError | InternalError:
    match error:
        case apsw.FullError():
            return StorageFullError()
        case apsw.CantOpenError() if _disk_is_full(path):  # of files: the log could not be made
            return StorageFullError()
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return StorageReadOnlyError(f"{path.name} or its directory cannot be written")
        case apsw.BusyError() | apsw.LockedError():
            return StorageBusyError("another process held the keyring for too long")
        case apsw.CorruptError() | apsw.NotADBError() | apsw.FormatError():
            return StorageCorruptError(f"{path.name} is damaged", hint=_HINT)
        case apsw.IOError() if _disk_is_full(path):
            return StorageFullError()
        case apsw.ConstraintError():
            return ConflictError("another process wrote the same key")
        case apsw.ThreadingViolationError() | apsw.ConnectionClosedError() | apsw.SQLError():
            return InternalError(f"the keyring's database refused a statement ({type(error).__name__})")
        case _:
            return StorageError(f"{path.name} cannot be used ({type(error).__name__})")


def _disk_is_full(path: Path) -> bool:
    """SQLite reports a full disk as an I/O error where it maps shared memory."""
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail == 0 or (found.f_favail == 0 and found.f_files > 0)


def connect(path: Path) -> apsw.Connection:
    """Open an existing file with the settings of a keyring; ``secure_delete`` overwrites what is freed.

    Raises:
        StorageError: it cannot be opened or is no database.
    """
    with translated(path):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)
            db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            db.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
            db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            for pragma in (
                "secure_delete = ON",
                "synchronous = FULL",
                "cell_size_check = ON",
                "cache_size = -16384",
                "temp_store = MEMORY",
                "mmap_size = 0",
            ):
                db.execute(f"PRAGMA {pragma}")
        except apsw.Error:
            db.close()
            raise
    return db


@contextlib.contextmanager
def one_state(db: apsw.Connection, path: Path) -> Iterator[None]:
    """Several reads of one state of the file, whatever other processes write meanwhile.

    Raises:
        StorageError: as ``translated``.
    """
    with translated(path):
        if db.in_transaction:
            yield
            return
        db.execute("BEGIN")
        try:
            yield
        finally:
            with contextlib.suppress(apsw.Error):
                db.execute("ROLLBACK")


def fold_log(path: Path) -> None:
    """Write what stands in the log of a keyring that nobody else has open into its file, and end the log.

    Raises:
        StorageError: it cannot be opened, or is no database.
    """
    with translated(path):
        db = connect(path)
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            db.close()


@contextlib.contextmanager
def immediate(db: apsw.Connection, path: Path) -> Iterator[None]:
    """One write transaction; all of it or nothing.

    Raises:
        StorageError: as ``translated``; nothing was written.
    """
    with translated(path):
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            raise
