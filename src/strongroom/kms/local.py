"""The local keystore: the master key in a private file, bare or under a passphrase (spec/keystore.md).

A wrapped key is ``1 (1) | key id (16) | crypto.wrap_key(...)`` with the first 17 bytes and the encoded
context as its context: 123 bytes.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import UUID

from strongroom.crypto import SecretKey, unwrap_key, wrap_key
from strongroom.crypto.danger import overwrite
from strongroom.errors import (
    ClosedError,
    KeyringMismatchError,
    KeystoreMissingError,
    StorageError,
    UnwrapError,
)
from strongroom.kms import _keyfile
from strongroom.kms._contract import KmsKeyInfo, encode_context
from strongroom.kms._keyfile import KEY_FILE_BYTES_MAX, KeyFile
from strongroom.kms._protect import PassphraseCost, protect, reveal
from strongroom.kms.files import create_private_file, read_private_file

_FORMAT: Final = b"\x01"
_PREFIX_BYTES: Final = 17
_WRAP_LABEL: Final = "kms-local-wrap"
_HINT: Final = "set [keys] passphrase to env:NAME or file:/path"


_Identity = tuple[int, int, int, int, int, int]


class LocalKeystore:
    """A ``KmsProvider`` over a key file.

    The master key is read once, at ``open``. Each ``wrap`` and ``unwrap`` first looks whether the
    file is still there, private and the same (one ``lstat``; the content is read again only when
    that differs), so that a key file that was taken away stops new namespaces, and namespaces not
    yet in use, at once. Namespaces in use are asked for again by the keyring (spec/keyring.md, "Leases").
    """

    def __init__(
        self, path: Path, file: KeyFile, master: SecretKey, digest: bytes, identity: _Identity
    ) -> None:
        """For ``create`` and ``open``."""
        self._path = path
        self._key_id = file.key_id
        self._digest = digest
        self._identity = identity
        self._wrapping: SecretKey | None = master.derive(_WRAP_LABEL)
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        store_id: UUID,
        passphrase: str | None = None,
        cost: PassphraseCost | None = None,
    ) -> LocalKeystore:
        """Make a new master key and its file (mode 0600, its directory 0700 when it has to be made).

        ``passphrase`` has 8 characters to 4096 bytes of UTF-8; ``cost`` is for that only.

        Raises:
            StoreExistsError: the file is there already. InvalidInputError: the passphrase is too short
            or too long, or its cost out of bounds. KeystorePermissionError: the directory is not
            private. StorageError: the file cannot be written; then it is not there.
        """
        master = SecretKey.generate()
        key_id = os.urandom(16)
        file = protect(master, store_id=store_id.bytes, key_id=key_id, passphrase=passphrase, cost=cost)
        data = file.encode()
        overwrite(file.body)
        create_private_file(path, data)
        again, found = read_private_file(path, bytes_max=KEY_FILE_BYTES_MAX)
        digest = hashlib.sha256(data).digest()
        overwrite(data)
        overwrite(again)
        return cls(path, file, master, digest, _identity(found))

    @classmethod
    def open(cls, path: Path, *, store_id: UUID, passphrase: str | None = None) -> LocalKeystore:
        """Read the key file of the store ``store_id``.

        A passphrase that is given to an unprotected file is refused: whoever configures one must
        not believe in a protection that is not there.

        Raises:
            KeystoreMissingError: there is no such file. KeystorePermissionError: others can reach
            it, it is another user's, or a symbolic link. KeystoreFormatError: damaged or of another version.
            KeyringMismatchError: it belongs to another store. UnwrapError: the passphrase is wrong,
            missing, or not asked for.
        """
        data, found = read_private_file(path, bytes_max=KEY_FILE_BYTES_MAX)
        file = _keyfile.parse(data)
        if file.store_id != store_id.bytes:
            raise KeyringMismatchError(
                "the key file belongs to another store",
                hint="point [keys] directory and key_file at the key file that was made with this store",
            )
        digest = hashlib.sha256(data).digest()
        overwrite(data)
        return cls(path, file, reveal(file, passphrase, _HINT), digest, _identity(found))

    def describe(self) -> KmsKeyInfo:
        """The master key in use; ``key_uri`` is ``local:`` and 32 hexadecimal digits.

        Raises:
            ClosedError: the keystore was closed.
        """
        self._key()
        return KmsKeyInfo(provider="local", key_uri=f"local:{self._key_id.hex()}", version=1)

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """Encrypt ``key`` under the master key, bound to ``context``: 123 bytes.

        Raises:
            KeystoreMissingError, KeystorePermissionError, KeystoreFormatError, KeyringMismatchError: the
            key file is no longer what was opened. InvalidInputError: the context. ClosedError.
        """
        wrapping = self._key()
        self._check_file()
        prefix = _FORMAT + self._key_id
        return prefix + wrap_key(wrapping, key, prefix + encode_context(context))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """The key that ``wrap`` was given with the same context.

        Raises:
            UnwrapError: other master key, other context, or any bit changed. KeystoreMissingError,
            KeystorePermissionError, KeystoreFormatError, KeyringMismatchError: the key file is no longer what
            was opened. InvalidInputError: the context. ClosedError.
        """
        wrapping = self._key()
        self._check_file()
        prefix = _FORMAT + self._key_id
        bound = prefix + encode_context(context)
        if not isinstance(wrapped, bytes) or wrapped[:_PREFIX_BYTES] != prefix:
            raise UnwrapError
        return unwrap_key(wrapping, wrapped[_PREFIX_BYTES:], bound)

    def close(self) -> None:
        """Forget the master key."""
        wrapping, self._wrapping = self._wrapping, None
        if wrapping is not None:
            wrapping.wipe()

    def __repr__(self) -> str:
        return f"<LocalKeystore local:{self._key_id.hex()}>"

    def _key(self) -> SecretKey:
        if self._wrapping is None:
            raise ClosedError("the keystore was closed")
        return self._wrapping

    def _check_file(self) -> None:
        """Raise unless the key file is what was opened."""
        try:
            found = self._path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise KeystoreMissingError from None
        except OSError as e:
            raise StorageError(f"{self._path.name} cannot be looked at: {type(e).__name__}") from None
        identity = _identity(found)
        if identity == self._identity:
            return
        data, found = read_private_file(self._path, bytes_max=KEY_FILE_BYTES_MAX)
        same = hashlib.sha256(data).digest() == self._digest
        if not same:
            _keyfile.parse(data)  # damage has its own error
            raise KeyringMismatchError(
                "the key file was replaced while the store was open",
                hint="put the right key file back, or close the store and open it again",
            )
        overwrite(data)
        with self._lock:
            self._identity = _identity(found)


def store_of_key_file(path: Path) -> UUID:
    """The store that a key file belongs to. Raises as ``LocalKeystore.open``."""
    data, _ = read_private_file(path, bytes_max=KEY_FILE_BYTES_MAX)
    file = _keyfile.parse(data)
    overwrite(data)
    overwrite(file.body)
    return UUID(bytes=file.store_id)


def _identity(found: os.stat_result) -> _Identity:
    return (found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns)
