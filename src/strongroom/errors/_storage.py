"""The storage below the store."""

from __future__ import annotations

from strongroom.errors._base import StrongroomError


class StorageError(StrongroomError):
    """The storage below the store failed."""

    code = "storage"


class StorageFullError(StorageError):
    """The disk is full; nothing was written."""

    code = "storage_full"
    default_hint = "free some space and repeat; what was acknowledged is safe"


class StorageReadOnlyError(StorageError):
    """The directory or file cannot be written."""

    code = "storage_read_only"
    default_hint = "see who owns it, which mode it has, and how its file system is mounted"


class StorageBusyError(StorageError):
    """Another process held the write lock for too long."""

    code = "storage_busy"
    default_hint = "repeat the operation"


class StorageCorruptError(StorageError):
    """The database file is damaged."""

    code = "storage_corrupt"
    default_hint = "restore the last backup"


class SchemaVersionError(StorageError):
    """The store was written by a newer version of this program."""

    code = "schema_version"
    default_hint = "install the version that wrote the store, or a newer one"
