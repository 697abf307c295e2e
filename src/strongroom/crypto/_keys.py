"""A key is a handle: it can be used, and neither shown, compared, copied nor stored."""

from __future__ import annotations

import os
from typing import Final, NoReturn, SupportsIndex, final

from strongroom.crypto._encoding import length_prefixed, utf8
from strongroom.crypto._kdf import KeyedHash
from strongroom.crypto._suites import KEY_BYTES, BytesLike
from strongroom.errors import InvalidInputError, KeyStateError

_DERIVE_LABEL: Final = b"strongroom/derive@v1\0"
_BLIND_LABEL: Final = "strongroom/blind@v1"


@final
class SecretKey:
    """32 secret bytes, held so that they do not slip out by accident.

    ``repr`` shows nothing; pickling, copying, formatting, ``bytes()``, ``==`` and hashing raise
    TypeError. The bytes leave only through ``strongroom.crypto.danger``. Python cannot promise that
    no copy stays in memory: see docs/limitations.md.
    """

    __slots__ = ("__weakref__", "_blind", "_mac", "_material", "_prf")

    _material: bytearray | None
    _prf: KeyedHash | None
    _mac: KeyedHash | None
    _blind: KeyedHash | None

    def __init__(self) -> None:
        raise TypeError("use SecretKey.generate() or SecretKey.from_bytes()")

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key of 32 random bytes from the operating system."""
        return cls._of(os.urandom(KEY_BYTES))

    @classmethod
    def from_bytes(cls, raw: bytes) -> SecretKey:
        """The key with exactly these 32 bytes, which must be uniformly random.

        Raises:
            InvalidInputError: it is not 32 bytes.
        """
        if not isinstance(raw, bytes | bytearray | memoryview) or len(raw) != KEY_BYTES:
            raise InvalidInputError("a secret key must be 32 bytes")
        return cls._of(raw)

    @classmethod
    def _of(cls, raw: BytesLike) -> SecretKey:
        self = object.__new__(cls)
        self._material = bytearray(raw)
        self._prf = self._mac = self._blind = None
        return self

    def derive(self, label: str, context: bytes = b"") -> SecretKey:
        """Another key, the same every time for the same label and context.

        HKDF-Expand-SHA512 (RFC 5869) with ``info`` = a fixed label, then ``label`` and ``context``,
        each with its length. Derived keys cannot be shredded: their parent makes them again.

        Raises:
            InvalidInputError: the label is empty, or a part is longer than 65535 bytes.
            KeyStateError: the key was wiped.
        """
        if not label:
            raise InvalidInputError("a derived key needs a label")
        info = _DERIVE_LABEL + length_prefixed(utf8(label)) + length_prefixed(context)
        return SecretKey._of(prf_of(self).expand(info, KEY_BYTES))

    def mac(self, data: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of ``data`` under this key: 32 bytes.

        Use a key that was derived for this one purpose. Compare with ``hmac.compare_digest``.

        Raises:
            KeyStateError: the key was wiped.
        """
        mac = self._mac
        if mac is None:
            mac = self._mac = KeyedHash(material_of(self), "sha256")
        return mac.digest(data)

    def blind(self, data: bytes) -> bytes:
        """A keyed pseudonym of ``data`` for blind indexes: 32 bytes, HMAC-SHA256 under a derived key.

        Equal inputs give equal outputs under one key; without the key neither can be told.

        Raises:
            KeyStateError: the key was wiped.
        """
        blind = self._blind
        if blind is None:
            blind = self._blind = KeyedHash(material_of(self.derive(_BLIND_LABEL)), "sha256")
        return blind.digest(data)

    def wipe(self) -> None:
        """Overwrite the bytes; every later use raises KeyStateError. May be called twice."""
        material, self._material = self._material, None
        self._prf = self._mac = self._blind = None
        if material is not None:
            material[:] = bytes(len(material))

    def __repr__(self) -> str:
        return "<SecretKey>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secret keys cannot be compared")

    __hash__ = None  # type: ignore[assignment]

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a secret key cannot be formatted")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret key cannot be turned into bytes")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a secret key cannot be pickled")

    def __copy__(self) -> NoReturn:
        raise TypeError("a secret key cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a secret key cannot be copied")


def material_of(key: SecretKey) -> bytearray:
    """The bytes themselves, for this room only.

    Raises:
        KeyStateError: the key was wiped.
    """
    material = key._material
    if material is None:
        raise KeyStateError("the key was wiped")
    return material


def prf_of(key: SecretKey) -> KeyedHash:
    """HMAC-SHA512 under the key, for HKDF-Expand; made once per key.

    Raises:
        KeyStateError: the key was wiped.
    """
    prf = key._prf
    if prf is None:
        prf = key._prf = KeyedHash(material_of(key), "sha512")
    return prf
