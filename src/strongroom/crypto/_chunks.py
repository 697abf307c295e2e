"""Chunked encryption after C2SP chunked-encryption (https://c2sp.org/chunked-encryption).

Chunk ``i`` is sealed with nonce = base nonce XOR i (big-endian, 12 bytes). Every chunk but the last is
full; the last is always shorter and may be empty, so there is one chunking for each length, and a cut,
an extension, a swap or a repetition always leaves some chunk that does not verify.
"""

from __future__ import annotations

from typing import Final

from strongroom.crypto._suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Aead, Suite
from strongroom.errors import ContentTooLargeError

COMMITMENT_BYTES: Final = 32
CHUNKED_OKM_BYTES: Final = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES
CHUNKS_MAX: Final = 2**38


class ChunkKey:
    """The AEAD key and base nonce of one message."""

    __slots__ = ("_base", "aead")

    def __init__(self, suite: Suite, okm: bytes) -> None:
        self.aead = Aead(suite, okm[:KEY_BYTES])
        self._base = int.from_bytes(okm[KEY_BYTES : KEY_BYTES + NONCE_BYTES], "big")

    def nonce(self, counter: int) -> bytes:
        """The nonce of chunk ``counter``, from 0.

        Raises:
            ContentTooLargeError: 2^38 chunks were used up.
        """
        if not 0 <= counter < CHUNKS_MAX:
            raise ContentTooLargeError("a stream has at most 2^38 chunks")
        return (self._base ^ counter).to_bytes(NONCE_BYTES, "big")


def chunked_length(plaintext_bytes: int, chunk_bytes: int) -> int:
    """The length of all chunks together, tags included."""
    return plaintext_bytes + TAG_BYTES * (plaintext_bytes // chunk_bytes + 1)


def plain_length(sealed_bytes: int, chunk_bytes: int) -> int | None:
    """The inverse of ``chunked_length``; None when no plaintext has that sealed length."""
    full, rest = divmod(sealed_bytes, chunk_bytes + TAG_BYTES)
    if rest < TAG_BYTES:
        return None
    return full * chunk_bytes + rest - TAG_BYTES
