"""The registry of cipher suites, and the one door to an AEAD.

    number  name               source                 IANA name
    1       AES-256-GCM        NIST SP 800-38D        AEAD_AES_256_GCM       (default)
    2       ChaCha20-Poly1305  RFC 8439               AEAD_CHACHA20_POLY1305
    3       AES-256-GCM-SIV    RFC 8452               AEAD_AES_256_GCM_SIV

All three have keys of 32, nonces of 12 and tags of 16 bytes. Numbers are stored: never change one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from strongroom.errors import InvalidInputError

BytesLike: TypeAlias = bytes | bytearray | memoryview

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_ZERO_NONCE: Final = bytes(NONCE_BYTES)

AES_256_GCM: Final = 1
CHACHA20_POLY1305: Final = 2
AES_256_GCM_SIV: Final = 3


class _Cipher(Protocol):
    def encrypt(self, nonce: BytesLike, data: BytesLike, associated_data: BytesLike | None, /) -> bytes: ...
    def decrypt(self, nonce: BytesLike, data: BytesLike, associated_data: BytesLike | None, /) -> bytes: ...
    def encrypt_into(
        self, nonce: BytesLike, data: BytesLike, associated_data: BytesLike | None, buf: BytesLike, /
    ) -> int: ...
    def decrypt_into(
        self, nonce: BytesLike, data: BytesLike, associated_data: BytesLike | None, buf: BytesLike, /
    ) -> int: ...


class _CipherType(Protocol):
    def __call__(self, key: BytesLike, /) -> _Cipher: ...


@dataclass(frozen=True, slots=True)
class Suite:
    """One AEAD that records and streams may be sealed with.

    ``max_uses``: how many records one data key may seal before it must be rotated. Record keys are
    derived with a random salt of 192 bits, so that the salts of 2^32 records collide with a
    probability of 2^-129; the limit is the one of SP 800-38D for random nonces and keeps a margin
    that does not lean on the derivation.
    """

    number: int
    name: str
    iana_name: str
    max_uses: int
    cipher: _CipherType


_SUITES: Final = (
    Suite(AES_256_GCM, "AES-256-GCM", "AEAD_AES_256_GCM", 2**32, AESGCM),
    Suite(CHACHA20_POLY1305, "ChaCha20-Poly1305", "AEAD_CHACHA20_POLY1305", 2**32, ChaCha20Poly1305),
    Suite(AES_256_GCM_SIV, "AES-256-GCM-SIV", "AEAD_AES_256_GCM_SIV", 2**32, AESGCMSIV),
)
SUITES: Final[dict[int, Suite]] = {s.number: s for s in _SUITES}
_BY_NAME: Final[dict[str, Suite]] = {s.name: s for s in _SUITES}


def suite_by_number(number: int) -> Suite:
    """The suite with that number.

    Raises:
        InvalidInputError: there is none.
    """
    found = SUITES.get(number)
    if found is None:
        raise InvalidInputError("unknown cipher suite", hint=_known())
    return found


def suite_by_name(name: str) -> Suite:
    """The suite of exactly that name (``AES-256-GCM``, ``ChaCha20-Poly1305``, ``AES-256-GCM-SIV``).

    Raises:
        InvalidInputError: there is none.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise InvalidInputError("unknown cipher suite", hint=_known())
    return found


def seal_once(suite: Suite, key: BytesLike, plaintext: BytesLike, aad: BytesLike) -> bytes:
    """Seal the one message that ``key`` (32 bytes) will ever seal. The nonce is all zero for that reason.

    Same result as ``Aead(suite, key).encrypt`` with that nonce, without the object in between.
    """
    return suite.cipher(key).encrypt(_ZERO_NONCE, plaintext, aad)


def open_once(suite: Suite, key: BytesLike, ciphertext: BytesLike, aad: BytesLike) -> bytes | None:
    """The plaintext of ``seal_once``; None when the tag (16 bytes) is missing or does not verify."""
    try:
        return suite.cipher(key).decrypt(_ZERO_NONCE, ciphertext, aad)
    except InvalidTag:
        return None


def open_once_into(
    suite: Suite, key: BytesLike, ciphertext: BytesLike, aad: BytesLike, out: memoryview
) -> bool:
    """``open_once`` into ``out`` (16 bytes shorter than the ciphertext). False: ``out`` is all zero."""
    try:
        suite.cipher(key).decrypt_into(_ZERO_NONCE, ciphertext, aad, out)
    except InvalidTag:
        out[:] = bytes(len(out))
        return False
    return True


def _known() -> str:
    return "one of: " + ", ".join(_BY_NAME)


class Aead:
    """One key of one suite. Nonces are 12 and tags 16 bytes; nothing else gets through.

    The ``cryptography`` package takes AES-GCM nonces of 8 to 128 bytes, so the length is checked here.
    """

    __slots__ = ("_cipher",)

    def __init__(self, suite: Suite, key: BytesLike) -> None:
        if len(key) != KEY_BYTES:
            raise InvalidInputError("an AEAD key must be 32 bytes")
        self._cipher = suite.cipher(key)

    def encrypt(self, nonce: BytesLike, plaintext: BytesLike, aad: BytesLike) -> bytes:
        """Ciphertext and tag, ``len(plaintext) + 16`` bytes.

        Raises:
            InvalidInputError: the nonce is not 12 bytes.
        """
        if len(nonce) != NONCE_BYTES:
            raise InvalidInputError("a nonce must be 12 bytes")
        return self._cipher.encrypt(nonce, plaintext, aad)

    def encrypt_into(
        self, nonce: BytesLike, plaintext: BytesLike, aad: BytesLike, out: bytearray | memoryview
    ) -> None:
        """Like ``encrypt``, into ``out``, which must be ``len(plaintext) + 16`` bytes.

        Raises:
            InvalidInputError: the nonce is not 12 bytes, or ``out`` has another length.
        """
        if len(nonce) != NONCE_BYTES or len(out) != len(plaintext) + TAG_BYTES:
            raise InvalidInputError("a nonce must be 12 bytes, and the buffer 16 bytes longer than the input")
        self._cipher.encrypt_into(nonce, plaintext, aad, out)

    def decrypt(self, nonce: BytesLike, ciphertext: BytesLike, aad: BytesLike) -> bytes | None:
        """The plaintext, or None when the tag does not verify or a length is wrong.

        Inside this room None means failure, so that the caller raises its own error with no
        exception below it in the chain; every caller turns None into an error.
        """
        if len(nonce) != NONCE_BYTES or len(ciphertext) < TAG_BYTES:
            return None
        try:
            return self._cipher.decrypt(nonce, ciphertext, aad)
        except InvalidTag:
            return None

    def decrypt_into(
        self, nonce: BytesLike, ciphertext: BytesLike, aad: BytesLike, out: bytearray | memoryview
    ) -> bool:
        """Decrypt into ``out`` (``len(ciphertext) - 16`` bytes). False: it failed, and ``out`` is all zero.

        The primitive leaves unverified plaintext in the buffer when the tag is wrong; it is
        overwritten here before anyone can look at it.
        """
        if (
            len(nonce) == NONCE_BYTES
            and len(ciphertext) >= TAG_BYTES
            and len(out) == len(ciphertext) - TAG_BYTES
        ):
            try:
                self._cipher.decrypt_into(nonce, ciphertext, aad, out)
            except InvalidTag:
                pass
            else:
                return True
        out[:] = bytes(len(out))
        return False
