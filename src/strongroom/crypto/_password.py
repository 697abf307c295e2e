"""A key from a passphrase: Argon2id (RFC 9106), its parameters in a header that is kept in clear.

    0         1           2       4            8            12          32
    +---------+-----------+-------+------------+------------+-----------+
    | version | algorithm | lanes | iterations | memory KiB | salt (20) |
    |    1    |     1     |  (2)  |    (4)     |    (4)     |           |
    +---------+-----------+-------+------------+------------+-----------+

Integers are unsigned and big-endian. The whole header is Argon2's associated data. Parameters outside
their bounds are refused when written and again when read: a header that somebody weakened does not
weaken the key, and one that asks for 4 TiB does not stop the machine.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Callable
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from strongroom.crypto._encoding import utf8
from strongroom.crypto._keys import SecretKey
from strongroom.errors import InvalidInputError, KeystoreFormatError, no_memory
from strongroom.pages import overwrite

PASSWORD_HEADER_BYTES: Final = 32
PASSPHRASE_BYTES_MAX: Final = 4096
MEMORY_KIB_MIN: Final = 19 * 1024
MEMORY_KIB_MAX: Final = 2 * 1024 * 1024
ITERATIONS_MIN: Final = 2
ITERATIONS_MAX: Final = 16
LANES_MIN: Final = 1
LANES_MAX: Final = 16

_SALT_BYTES: Final = 20
_HEADER: Final = struct.Struct(">BBHII20s")
_VERSION: Final = 1
_ARGON2ID: Final = 1


def new_password_header(
    *,
    memory_kib: int = 64 * 1024,
    iterations: int = 3,
    lanes: int = 4,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """The header (32 bytes, no secret) for a new passphrase. The default takes 0.1 to 0.2 s (RFC 9106, 4).

    Raises:
        InvalidInputError: a parameter is outside its bounds.
    """
    if not _in_bounds(memory_kib, iterations, lanes):
        raise InvalidInputError(
            "a parameter of the password hash is out of bounds",
            hint="memory 19 MiB to 2 GiB, 2 to 16 iterations, 1 to 16 lanes",
        )
    return _HEADER.pack(_VERSION, _ARGON2ID, lanes, iterations, memory_kib, random(_SALT_BYTES))


_ONE_AT_A_TIME: Final = Lock()


def derived(kdf: Argon2id, password: bytes) -> bytes:
    """What ``kdf`` gives, one derivation of the process at a time.

    OpenSSL takes the threads for the lanes out of one pool: two derivations at once wait for each other for
    ever, or fail as if there were no memory.

    Raises:
        LimitExceededError: there is not enough memory.
    """
    try:
        with _ONE_AT_A_TIME:
            return kdf.derive(password)
    except MemoryError:
        pass
    raise no_memory()


def password_kdf(passphrase: str, header: bytes) -> SecretKey:
    """The key that a passphrase gives with this header.

    The passphrase is brought to Unicode NFC (RFC 8265, OpaqueString) and UTF-8 first. A wrong one
    gives another key, which then fails to unwrap.

    Raises:
        InvalidInputError: the passphrase is empty, longer than 4096 bytes or not valid Unicode.
        KeystoreFormatError: the header is damaged, of another version or out of bounds.
    """
    password = utf8(unicodedata.normalize("NFC", passphrase))
    if not 0 < len(password) <= PASSPHRASE_BYTES_MAX:
        raise InvalidInputError("a passphrase must be 1 to 4096 bytes of UTF-8")
    if len(header) != PASSWORD_HEADER_BYTES:
        raise KeystoreFormatError("the password header must be 32 bytes")
    version, algorithm, lanes, iterations, memory_kib, salt = _HEADER.unpack(header)
    if version != _VERSION or algorithm != _ARGON2ID:
        raise KeystoreFormatError("the password header is of an unknown version")
    if not _in_bounds(memory_kib, iterations, lanes):
        raise KeystoreFormatError("a parameter of the password header is out of bounds")
    kdf = Argon2id(
        salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib, ad=bytes(header)
    )
    raw = derived(kdf, password)
    key = SecretKey.from_bytes(raw)
    overwrite(raw)
    overwrite(password)
    return key


def _in_bounds(memory_kib: int, iterations: int, lanes: int) -> bool:
    return (
        MEMORY_KIB_MIN <= memory_kib <= MEMORY_KIB_MAX
        and ITERATIONS_MIN <= iterations <= ITERATIONS_MAX
        and LANES_MIN <= lanes <= LANES_MAX
    )
