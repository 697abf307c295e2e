"""The bytes of a key file (spec/keystore.md). Pure: no I/O.

    0           8         9            10       12         28       44                76     n - 32
    +-----------+---------+------------+--------+----------+--------+-----------------+------+----------+
    | SRKEYST\\n | version | protection | zero   | store_id | key id | password header | body | checksum |
    | (8)       | 1 (1)   | 1 or 2 (1) | (2)    | (16)     | (16)   | (32)            |      | (32)     |
    +-----------+---------+------------+--------+----------+--------+-----------------+------+----------+

Protection 1: none; the password header is all zero; body = the 32 bytes of the master key; 140 bytes in all.
Protection 2: a passphrase; the header is that of ``crypto.password_kdf`` (Argon2id); body = the master key
wrapped under the passphrase's key with bytes 0..75 as context; 214 bytes in all.
checksum = SHA-256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from strongroom.crypto import PASSWORD_HEADER_BYTES, WRAPPED_BYTES
from strongroom.errors import KeystoreFormatError

MAGIC: Final = b"SRKEYST\n"
RECOVERY_MAGIC: Final = b"SRRECOV\n"  # a recovery key: spec/recovery.md
VERSION: Final = 1
PLAIN: Final = 1
PASSPHRASE: Final = 2
HEADER_BYTES: Final = 76
CHECKSUM_BYTES: Final = 32
BODY_BYTES: Final = {PLAIN: 32, PASSPHRASE: WRAPPED_BYTES}
KEY_FILE_BYTES_MAX: Final = HEADER_BYTES + WRAPPED_BYTES + CHECKSUM_BYTES
NO_PASSWORD: Final = bytes(PASSWORD_HEADER_BYTES)

_HEADER: Final = struct.Struct(">8sBBH16s16s32s")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """A parsed key file."""

    store_id: bytes  # 16 bytes
    key_id: bytes  # 16 bytes: the name of the master key
    password_header: bytes  # 32 bytes; all zero: the master key stands in the file unprotected
    body: bytes = field(repr=False)
    magic: bytes = MAGIC

    @property
    def protected(self) -> bool:
        return self.password_header != NO_PASSWORD

    def header(self) -> bytes:
        """Bytes 0..75: all but body and checksum; the context of a wrapped body."""
        protection = PASSPHRASE if self.protected else PLAIN
        fixed = (VERSION, protection, 0, self.store_id, self.key_id, self.password_header)
        return _HEADER.pack(self.magic, *fixed)

    def encode(self) -> bytes:
        """The bytes of the file."""
        header = self.header()
        digest = hashlib.sha256(header)
        digest.update(self.body)
        return b"".join((header, self.body, digest.digest()))


def parse(data: bytes, magic: bytes = MAGIC) -> KeyFile:
    """Read a key file; only what ``KeyFile.encode`` writes is accepted.

    Raises:
        KeystoreFormatError: damaged, cut, of another version, or no key file at all.
    """
    if len(data) < HEADER_BYTES + CHECKSUM_BYTES or not data.startswith(magic):
        raise KeystoreFormatError("this is no key file of Strongroom, or it is damaged", hint=_RESTORE)
    content, checksum = memoryview(data)[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if not compare_digest(hashlib.sha256(content).digest(), checksum):
        raise KeystoreFormatError("the key file is damaged", hint=_RESTORE)
    _, version, protection, zero, store_id, key_id, password_header = _HEADER.unpack_from(content)
    if version != VERSION:
        raise KeystoreFormatError(
            f"the key file is of version {version}, which this program does not know",
            hint="install the version that wrote it, or a newer one",
        )
    body = bytes(content[HEADER_BYTES:])
    file = KeyFile(store_id=store_id, key_id=key_id, password_header=password_header, body=body, magic=magic)
    if zero or len(body) != BODY_BYTES.get(protection) or file.protected != (protection == PASSPHRASE):
        raise KeystoreFormatError("the key file is not of a form that this program writes", hint=_RESTORE)
    return file


_RESTORE: Final = "restore the key file from its backup"
