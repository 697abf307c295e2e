"""HMAC (RFC 2104) with its key schedule done once, and HKDF-Expand (RFC 5869, section 2.3).

There is no HKDF-Extract: every input key of this package is 32 uniformly random bytes or itself the
output of HKDF-Expand, which is what Expand asks for (RFC 5869, section 3.3; NIST SP 800-108).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal

from strongroom.crypto._suites import BytesLike
from strongroom.errors import InvalidInputError

HashName = Literal["sha256", "sha512"]

_IPAD: Final = bytes(x ^ 0x36 for x in range(256))
_OPAD: Final = bytes(x ^ 0x5C for x in range(256))
_DIGEST_BYTES: Final[dict[HashName, int]] = {"sha256": 32, "sha512": 64}
_BLOCK_BYTES: Final[dict[HashName, int]] = {"sha256": 64, "sha512": 128}


class KeyedHash:
    """HMAC under one key, with both padded key blocks hashed beforehand (RFC 2104, section 4).

    More than twice as fast on short inputs as ``hmac.digest``. The two inner states are as secret as
    the key. They are only ever copied, never updated, so that threads may share an object.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: BytesLike, name: HashName) -> None:
        block = _BLOCK_BYTES[name]
        short = hashlib.new(name, key).digest() if len(key) > block else bytes(key)
        padded = short.ljust(block, b"\0")
        self._inner = hashlib.new(name, padded.translate(_IPAD))
        self._outer = hashlib.new(name, padded.translate(_OPAD))

    def digest(self, data: BytesLike) -> bytes:
        """HMAC of ``data``: 32 bytes for SHA-256, 64 bytes for SHA-512."""
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def expand(self, info: bytes, length: int) -> bytes:
        """HKDF-Expand with this key as the pseudorandom key.

        Raises:
            InvalidInputError: ``length`` is not in 0..255 blocks.
        """
        size = self._outer.digest_size
        if not 0 <= length <= 255 * size:
            raise InvalidInputError("HKDF-Expand yields at most 255 blocks")
        out = block = b""
        counter = 0
        while len(out) < length:
            counter += 1
            block = self.digest(block + info + bytes((counter,)))
            out += block
        return out[:length]


def hkdf_expand(prk: BytesLike, info: bytes, length: int, name: HashName = "sha512") -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3) of a pseudorandom key of at least one digest's entropy.

    Raises:
        InvalidInputError: ``length`` is not in 0..255 blocks.
    """
    return KeyedHash(prk, name).expand(info, length)


def hkdf_extract(salt: BytesLike, ikm: BytesLike, name: HashName = "sha512") -> bytes:
    """HKDF-Extract (RFC 5869, section 2.2). Used by tests alone: keys here are uniform already."""
    return hmac.digest(salt or bytes(_DIGEST_BYTES[name]), ikm, name)
