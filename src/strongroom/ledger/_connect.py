"""Connections to the database file, and the translation of the library's errors."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from strongroom.errors import (
    ClosedError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
)

PAGE_BYTES = 8192
CACHE_KIB_WRITER = 32 * 1024
CACHE_KIB_READER = 8 * 1024
_BACKOFF_S_MIN = 0.0002
_BACKOFF_S_MAX = 0.010

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SIMPLE: list[tuple[type[apsw.Error], type[StorageError]]] = [
    (apsw.FullError, StorageFullError),
    (apsw.ReadOnlyError, StorageReadOnlyError),
    (apsw.CantOpenError, StorageReadOnlyError),
    (apsw.PermissionsError, StorageReadOnlyError),
    (apsw.BusyError, StorageBusyError),
    (apsw.LockedError, StorageBusyError),
    (apsw.ProtocolError, StorageBusyError),
    (apsw.CorruptError, StorageCorruptError),
    (apsw.NotADBError, StorageCorruptError),
    (apsw.FormatError, StorageCorruptError),
    (apsw.ConstraintError, StorageCorruptError),
]


def translate(error: apsw.Error, connection: apsw.Connection | None = None) -> StorageError | ClosedError:
    """The error of the tree for an error of the library; it carries no text of the library."""
    if isinstance(error, apsw.CantOpenError) and (own_error := _no_more_files(connection)):
        return own_error
    for foreign, own in _SIMPLE:
        if isinstance(error, foreign):
            return own()
    if isinstance(error, apsw.IOError):
        if _errno(error, connection) in _FULL:
            return StorageFullError()
        return StorageError("reading or writing the database file failed")
    if isinstance(error, apsw.ConnectionClosedError):
        return ClosedError()
    return StorageError(f"the database refused an operation ({type(error).__name__})")


def from_os_error(error: OSError) -> StorageError:
    """The error of the tree for an error of the operating system; it carries no path."""
    if error.errno in _FULL:
        return StorageFullError()
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageReadOnlyError()
    name = errno.errorcode.get(error.errno or 0, "error")
    return StorageError(f"the data directory cannot be used ({name})")


def _errno(error: apsw.Error, connection: apsw.Connection | None) -> int:
    if isinstance(error.__cause__, OSError):
        return error.__cause__.errno or 0
    if connection is None:
        return 0
    try:
        return connection.system_errno
    except apsw.Error:
        return 0


def _no_more_files(connection: apsw.Connection | None) -> StorageError | None:
    """Why a log could not be made, when neither rights nor the mount are to blame: SQLite does not tell."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as e:  # this process may open no more
        return from_os_error(e)
    try:
        found = os.statvfs(Path(connection.filename).parent) if connection is not None else None
    except (OSError, apsw.Error):
        return None
    is_full = found is not None and (found.f_bavail == 0 or (found.f_favail == 0 and found.f_files > 0))
    return StorageFullError() if is_full else None


@contextmanager
def translated(connection: apsw.Connection | None = None) -> Iterator[None]:
    """Let no error of the library out."""
    try:
        yield
    except apsw.Error as e:
        raise translate(e, connection) from None


def busy_handler(timeout_ms: int) -> Callable[[int], bool]:
    """Wait in short random steps that grow, up to ``timeout_ms`` in all."""
    started = 0.0

    def handler(calls: int) -> bool:
        nonlocal started
        now = time.monotonic()
        if calls == 0:
            started = now
        elif (now - started) * 1000 >= timeout_ms:
            return False
        step = min(_BACKOFF_S_MIN * (1 + calls), _BACKOFF_S_MAX)
        time.sleep(step * (0.5 + random.random()))  # noqa: S311 (spreads contenders; no secret)
        return True

    return handler


def connect(
    path: Path, *, busy_timeout_ms: int, cache_kib: int = CACHE_KIB_READER, vfs: str | None = None
) -> apsw.Connection:
    """A connection to an existing database file with the settings that durability rests on.

    No memory mapping: a failing disk then gives an error, where a mapping would kill the process.

    Raises:
        StorageError: the file cannot be opened; see the subclasses.
    """
    with translated():
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs)
    try:
        with translated(connection):
            connection.set_busy_handler(busy_handler(busy_timeout_ms))
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
            for name, value in (
                ("synchronous", "FULL"),
                ("wal_autocheckpoint", 0),
                ("cache_size", -cache_kib),
                ("temp_store", "MEMORY"),
                ("mmap_size", 0),
                ("cell_size_check", "ON"),
                ("secure_delete", "FAST"),
            ):
                connection.execute(f"PRAGMA {name}={value}").fetchall()
    except BaseException:
        connection.close(True)
        raise
    return connection
