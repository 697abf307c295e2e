"""Files that only their owner may touch: how the key file and the keyring are made and opened.

A private file is a regular file (no symbolic link) of the effective user with no permission for group
or others, in a directory of the same kind. It appears under its name complete or not at all: it is
written and fsynced under a temporary name, linked to its name (which fails when that exists), and the
directory is fsynced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from strongroom.errors import (
    KeyManagementError,
    KeystoreFormatError,
    KeystoreMissingError,
    KeystorePermissionError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
    StoreExistsError,
)

FILE_MODE: Final = 0o600
READABLE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o700
_OTHERS: Final = 0o077


def storage_error(error: OSError, name: str) -> StorageError:
    """The typed error for an ``OSError`` on the file ``name``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError()
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageReadOnlyError(f"{name} or its directory cannot be written")
    return StorageError(f"{name} cannot be used: {errno.errorcode.get(error.errno or 0, 'unknown error')}")


def create_private_directory(directory: Path) -> None:
    """Make ``directory`` with mode 0700; one that is there must be private already.

    Raises:
        KeystorePermissionError: it is there and not private. StorageError: it cannot be made.
    """
    try:
        os.mkdir(directory, DIRECTORY_MODE)  # noqa: PTH102 - the mode at creation is the point
        fsync_directory(directory.parent)
    except FileExistsError:
        require_private_directory(directory)
    except OSError as e:
        raise storage_error(e, directory.name) from None


def require_private_directory(
    directory: Path, missing: type[KeyManagementError] = KeystoreMissingError
) -> None:
    """Check that ``directory`` is a directory of ours that nobody else may enter.

    Raises:
        KeystorePermissionError: it is not. ``missing``: it is not there.
    """
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing() from None
    except OSError as e:
        raise storage_error(e, directory.name) from None
    if not stat.S_ISDIR(found.st_mode):
        raise missing()
    _require_private(found, directory.name, "directory", "chmod 700")


def require_private_file(
    path: Path, missing: type[KeyManagementError] = KeystoreMissingError
) -> os.stat_result:
    """Check ``path`` and its directory without opening them; returns what ``lstat`` says.

    Raises:
        KeystorePermissionError: a symbolic link, no regular file, another owner, or a mode that lets
        others in. ``missing``: it is not there.
    """
    require_private_directory(path.parent, missing)
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise missing() from None
    except OSError as e:
        raise storage_error(e, path.name) from None
    _require_regular(found, path.name)
    return found


def read_private_file(path: Path, *, bytes_max: int) -> tuple[bytes, os.stat_result]:
    """The whole of a private file, with what ``fstat`` says about the very file that was read.

    Raises:
        KeystoreMissingError, KeystorePermissionError: as ``require_private_file``.
        KeystoreFormatError: it is longer than ``bytes_max``. StorageError: it cannot be read.
    """
    require_private_directory(path.parent)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise KeystoreMissingError() from None
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise KeystorePermissionError(f"{path.name} is a symbolic link") from None
        if e.errno == errno.EACCES:
            raise KeystorePermissionError(f"{path.name} cannot be read by this user") from None
        raise storage_error(e, path.name) from None
    try:
        found = os.fstat(fd)
        _require_regular(found, path.name)
        room = memoryview(bytearray(bytes_max + 1))  # one place, so that a caller can overwrite what it gets
        length = 0
        while length <= bytes_max and (got := os.readv(fd, [room[length:]])):
            length += got
    except OSError as e:
        raise storage_error(e, path.name) from None
    finally:
        os.close(fd)
    data = bytes(room[:length])
    room[:] = bytes(len(room))
    if length > bytes_max:
        raise KeystoreFormatError(f"{path.name} is too long")
    return data, found


def create_private_file(path: Path, data: bytes) -> None:
    """Write a new private file: complete and durable when this returns, absent when it fails.

    Raises:
        StoreExistsError: the name is taken. KeystorePermissionError: the directory is not private.
        StorageError: it cannot be written.
    """
    create_private_directory(path.parent)
    with temporary_name(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, FILE_MODE)
            try:
                os.fchmod(fd, FILE_MODE)  # whatever the umask
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as e:
            raise storage_error(e, path.name) from None
        publish(temporary, path)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that holds no secret: the new one, durable, when this returns, else the one before.

    Others cannot write it, whatever the umask.

    Raises:
        StorageError: it cannot be written.
    """
    with temporary_name(path) as temporary:
        try:
            write_new_file(temporary, data)
            temporary.replace(path)
            fsync_directory(path.parent)
        except OSError as e:
            raise storage_error(e, path.name) from None


def write_new_file(path: Path, data: bytes) -> None:
    """Write a file that holds no secret and is not there yet; nobody but its owner can write it.

    Raises:
        OSError: it is there, or cannot be written, and then a part of it may be.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, READABLE_MODE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def touch_private_file(path: Path) -> None:
    """Make an empty private file that is not there yet.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    except OSError as e:
        raise storage_error(e, path.name) from None


def fsync_file(path: Path) -> None:
    """Make the content of a file durable.

    Raises:
        StorageError: it cannot be.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as e:
        raise storage_error(e, path.name) from None


@contextlib.contextmanager
def temporary_name(path: Path) -> Iterator[Path]:
    """An unused name beside ``path``; a file of that name is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish(temporary: Path, path: Path) -> None:
    """Give a finished, fsynced file its name, never over another one.

    Raises:
        StoreExistsError: the name is taken. StorageError: the directory cannot be written.
    """
    try:
        os.link(temporary, path, follow_symlinks=False)
        try:
            temporary.unlink()
            fsync_directory(path.parent)
        except OSError:  # the name is ours since a moment
            path.unlink()
            raise
    except FileExistsError:
        raise StoreExistsError(f"{path.name} is there already") from None
    except OSError as e:
        raise storage_error(e, path.name) from None


def fsync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _require_regular(found: os.stat_result, name: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise KeystorePermissionError(f"{name} is a symbolic link")
    if not stat.S_ISREG(found.st_mode):
        raise KeystorePermissionError(f"{name} is not a regular file")
    _require_private(found, name, "file", "chmod 600")


def _require_private(found: os.stat_result, name: str, what: str, remedy: str) -> None:
    if found.st_uid != os.geteuid():
        raise KeystorePermissionError(
            f"the {what} {name} belongs to another user", hint="let the user that runs this program own it"
        )
    if found.st_mode & _OTHERS:
        raise KeystorePermissionError(
            f"others than its owner can reach the {what} {name} (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"{remedy} {name}",
        )
