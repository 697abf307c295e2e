"""HMAC (RFC 2104) with its padded key blocks ready, and HKDF-Expand (RFC 5869, section 2.3).

There is no HKDF-Extract: every input key of this package is 32 uniformly random bytes or itself the
output of HKDF-Expand, which is what Expand asks for (RFC 5869, section 3.3; NIST SP 800-108).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Literal

import numpy as np

from strongroom.crypto._arena import ARENA, PADS_SLOT_BYTES, forked_key
from strongroom.crypto._suites import BytesLike
from strongroom.errors import InvalidInputError

HashName = Literal["sha256", "sha512"]

_INNER: Final = 0x36
_OUTER: Final = 0x5C
_HASH: Final = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_DIGEST_BYTES: Final[dict[HashName, int]] = {"sha256": 32, "sha512": 64}
_BLOCK_BYTES: Final[dict[HashName, int]] = {"sha256": 64, "sha512": 128}
_PADS: Final = {
    name: np.frombuffer(bytes((_INNER,)) * size + bytes((_OUTER,)) * size, np.uint8)
    for name, size in _BLOCK_BYTES.items()
}


class KeyedHash:
    """HMAC under one key. Its two padded blocks (RFC 2104, section 2) lie in the arena, and nowhere else.

    Hashing them beforehand would save half a microsecond a call, and would keep two states that are as
    secret as the key in the heap of OpenSSL for as long as this object lives: so it is not done.
    OpenSSL zeroes the states of a call when the call is over. Threads may share an object.
    """

    __slots__ = ("_digest_bytes", "_epoch", "_inner", "_new", "_outer", "_slot")

    def __init__(self, key: BytesLike, name: HashName) -> None:
        self._slot = 0
        block = _BLOCK_BYTES[name]
        short = hashlib.new(name, key).digest() if len(key) > block else key
        self._new = _HASH[name]
        self._digest_bytes = _DIGEST_BYTES[name]
        self._epoch = ARENA.epoch
        self._slot = ARENA.take(PADS_SLOT_BYTES)
        pads = ARENA.view(self._slot)
        pads[: len(short)] = pads[block : block + len(short)] = short
        blocks = np.frombuffer(pads, np.uint8, 2 * block)
        np.bitwise_xor(blocks, _PADS[name], out=blocks)  # where they lie: no copy of the key is made
        self._inner = pads[:block]
        self._outer = pads[block : 2 * block]

    def __del__(self, give_back: Callable[[int], None] = ARENA.give_back) -> None:
        if self._slot:
            give_back(self._slot)

    def digest(self, data: BytesLike) -> bytes:
        """HMAC of ``data``: 32 bytes for SHA-256, 64 bytes for SHA-512.

        Raises:
            KeyStateError: the process was forked since; its pages hold zeros here.
        """
        if self._epoch != ARENA.epoch:
            raise forked_key()
        new = self._new
        inner = new(self._inner)
        inner.update(data)
        outer = new(self._outer)
        outer.update(inner.digest())
        return outer.digest()

    def expand(self, info: bytes, length: int) -> bytes:
        """HKDF-Expand with this key as the pseudorandom key.

        Raises:
            InvalidInputError: ``length`` is not in 0..255 blocks.
        """
        if not 0 <= length <= 255 * self._digest_bytes:
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
