"""A key is a handle: it can be used, and neither shown, compared, copied nor stored."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, final

from strongroom.crypto._arena import ARENA, KEY_SLOT_BYTES
from strongroom.crypto._encoding import length_prefixed, utf8
from strongroom.crypto._kdf import KeyedHash
from strongroom.crypto._suites import KEY_BYTES, BytesLike
from strongroom.crypto._uncopied import Uncopied
from strongroom.errors import InvalidInputError, KeyStateError
from strongroom.pages import overwrite

_DERIVE_LABEL: Final = b"strongroom/derive@v1\0"
_BLIND_LABEL: Final = "strongroom/blind@v1"
_READY_MAX: Final = 2048  # keys whose HMAC blocks are kept ready


@final
class SecretKey(Uncopied):
    """32 secret bytes, held so that they do not slip out by accident.

    ``repr`` shows nothing; pickling, copying, formatting, ``bytes()``, ``==`` and hashing raise
    TypeError. The bytes leave only through ``strongroom.crypto.danger``. They lie in protected pages
    (docs/memory.md), are zeroed when the handle is wiped or dies, and do not outlive a fork. What
    Python cannot promise: docs/limitations.md.
    """

    _noun = "a secret key"
    __slots__ = ("__weakref__", "_blind", "_key_slot", "_mac", "_prf", "_wiped")

    _key_slot: int
    _wiped: bool
    _prf: KeyedHash | None
    _mac: KeyedHash | None
    _blind: KeyedHash | None

    def __init__(self) -> None:
        raise TypeError("use SecretKey.generate() or SecretKey.from_bytes()")

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key of 32 random bytes from the operating system.

        Raises:
            KeyMemoryError: there is no room for it in protected memory.
        """
        self = cls._blank()
        ARENA.randomize(self._key_slot)
        return self

    @classmethod
    def from_bytes(cls, raw: BytesLike) -> SecretKey:
        """The key with exactly these 32 bytes, which must be uniformly random.

        Raises:
            InvalidInputError: it is not 32 bytes. KeyMemoryError: as ``generate``.
        """
        if not isinstance(raw, bytes | bytearray | memoryview) or len(raw) != KEY_BYTES:
            raise InvalidInputError("a secret key must be 32 bytes")
        return cls._of(raw)

    @classmethod
    def _blank(cls) -> SecretKey:
        """A key of zeros, for whoever fills it in at once (``material_of``)."""
        self = object.__new__(cls)
        self._wiped = False
        self._prf = self._mac = self._blind = None
        self._key_slot = ARENA.take(KEY_SLOT_BYTES)
        return self

    @classmethod
    def _of(cls, raw: BytesLike) -> SecretKey:
        self = cls._blank()
        ARENA.view(self._key_slot)[:] = raw
        return self

    def __del__(self, give_back: Callable[[int], None] = ARENA.give_back) -> None:
        slot = getattr(self, "_key_slot", 0)
        if slot:
            give_back(slot)

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
        okm = prf_of(self).digest(info + b"\x01")  # HKDF-Expand, first block
        derived = SecretKey._of(memoryview(okm)[:KEY_BYTES])
        overwrite(okm)
        return derived

    def mac(self, data: bytes) -> bytes:
        """HMAC-SHA256 (RFC 2104) of ``data`` under this key: 32 bytes.

        Use a key that was derived for this one purpose. Compare with ``hmac.compare_digest``.

        Raises:
            KeyStateError: the key was wiped.
        """
        mac = self._mac
        if mac is None:
            mac = self._mac = KeyedHash(material_of(self), "sha256")
            _made_ready(self)
            _require_unwiped(self)
        return mac.digest(data)

    def blind(self, data: bytes) -> bytes:
        """A keyed pseudonym of ``data`` for blind indexes: 32 bytes, HMAC-SHA256 under a derived key.

        Equal inputs give equal outputs under one key; without the key neither can be told.

        Raises:
            KeyStateError: the key was wiped.
        """
        blind = self._blind
        if blind is None:
            blind_key = self.derive(_BLIND_LABEL)
            blind = self._blind = KeyedHash(material_of(blind_key), "sha256")
            _made_ready(self)
            _require_unwiped(self)
        return blind.digest(data)

    def wipe(self) -> None:
        """Overwrite the bytes; every later use raises KeyStateError. May be called twice."""
        if not self._wiped:
            self._wiped = True
            self._prf = self._mac = self._blind = None
            if ARENA.holds(self._key_slot):  # the slot itself is given back when nobody can use it any more
                ARENA.view(self._key_slot)[:] = bytes(KEY_SLOT_BYTES)

    @property
    def wiped(self) -> bool:
        """Whether ``wipe`` was called."""
        return self._wiped

    def __repr__(self) -> str:
        return "<SecretKey>"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secret keys cannot be compared")

    __hash__ = None  # type: ignore[assignment]

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError("a secret key cannot be formatted")

    def __bytes__(self) -> NoReturn:
        raise TypeError("a secret key cannot be turned into bytes")


_ready: deque[weakref.ref[SecretKey]] = deque()


def _made_ready(key: SecretKey) -> None:
    """Note a key whose HMAC blocks were made; the one that was noted longest ago lets its own go."""
    _ready.append(weakref.ref(key))
    if len(_ready) > _READY_MAX:
        oldest = _ready.popleft()()
        if oldest is not None and oldest is not key:
            oldest._prf = oldest._mac = oldest._blind = None


def material_of(key: SecretKey) -> memoryview:
    """The bytes themselves, for this room only. They are zeroed when ``key`` dies: hold on to it.

    Raises:
        KeyStateError: the key was wiped, or is of the process that this one was forked from.
    """
    if key._wiped:
        raise KeyStateError("the key was wiped")
    return ARENA.view(key._key_slot)


def prf_of(key: SecretKey) -> KeyedHash:
    """HMAC-SHA512 under the key, for HKDF-Expand; made once, and again after many other keys were used.

    Raises:
        KeyStateError: as ``material_of``.
    """
    prf = key._prf
    if prf is None:
        prf = key._prf = KeyedHash(material_of(key), "sha512")
        _made_ready(key)
        _require_unwiped(key)
    return prf


def _require_unwiped(key: SecretKey) -> None:
    """After HMAC blocks were made: another thread may have wiped the key meanwhile, and they be of zeros.

    ``wipe`` notes that it was called before it overwrites anything, so blocks of an unwiped key are right.
    """
    if key._wiped:
        key._prf = key._mac = key._blind = None
        raise KeyStateError("the key was wiped")
