"""The text of an API key (spec/api-key.md).

    sr_live_ | key id        | secret        | checksum
    8        | 12 characters | 43 characters | 6 characters

    key id    60 random bits, Crockford base32 in lower case
    secret    32 random bytes as one big-endian number, base62, most significant digit first
    checksum  CRC-32 of everything before it (as in zlib), base62

The checksum tells a typing mistake from a wrong key without touching storage. It protects nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from strongroom.errors import UnauthenticatedError

PREFIX = "sr_live_"
ID_CHARACTERS = 12
SECRET_BYTES = 32
SECRET_CHARACTERS = 43
CHECKSUM_CHARACTERS = 6
KEY_CHARACTERS = len(PREFIX) + ID_CHARACTERS + SECRET_CHARACTERS + CHECKSUM_CHARACTERS

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DIGITS = {c: i for i, c in enumerate(_BASE62)}
_FORM = re.compile(rf"sr_live_([{_BASE32}]{{12}})([0-9A-Za-z]{{43}})([0-9A-Za-z]{{6}})", re.ASCII)
_KEY_ID = re.compile(rf"[{_BASE32}]{{12}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just made. ``text`` is shown once and never stored."""

    key_id: str
    text: str = field(repr=False)
    secret: bytes = field(repr=False)  # 32 bytes, to be hashed by the engine


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key as presented; its secret is not yet checked."""

    key_id: str
    secret: bytes = field(repr=False)  # 32 bytes


def generate_key(random_bytes: Callable[[int], bytes]) -> NewApiKey:
    """Make a key from a source of random bytes (``os.urandom``)."""
    number = int.from_bytes(random_bytes(8), "big") >> 4
    key_id = _digits(number, ID_CHARACTERS, _BASE32)
    secret = random_bytes(SECRET_BYTES)
    if len(secret) != SECRET_BYTES:
        raise ValueError("random_bytes gave too few bytes")
    body = PREFIX + key_id + _digits(int.from_bytes(secret, "big"), SECRET_CHARACTERS, _BASE62)
    return NewApiKey(key_id, body + _checksum(body), secret)


def parse_key(text: object) -> ParsedKey:
    """Read a key.

    Raises:
        UnauthenticatedError: it is no key of this form; the message is that of every other refusal.
    """
    parsed = _read(text)
    if isinstance(parsed, str):
        raise UnauthenticatedError
    return parsed


def key_problem(text: object) -> str | None:
    """Why ``parse_key`` refuses ``text``, for the operator's log alone; None when it does not."""
    parsed = _read(text)
    return parsed if isinstance(parsed, str) else None


def is_key_id(text: object) -> bool:
    """Whether ``text`` has the form of a key id."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None


def _read(text: object) -> ParsedKey | str:
    if not isinstance(text, str) or not text:
        return "no key given"
    match = _FORM.fullmatch(text) if len(text) == KEY_CHARACTERS else None
    if match is None:
        return "not of the form of a key"
    if _checksum(text[:-CHECKSUM_CHARACTERS]) != match[3]:
        return "checksum does not match: mistyped or cut"
    number = 0
    for c in match[2]:
        number = number * 62 + _DIGITS[c]
    if number >> (8 * SECRET_BYTES):
        return "not of the form of a key"
    return ParsedKey(match[1], number.to_bytes(SECRET_BYTES, "big"))


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode("ascii")), CHECKSUM_CHARACTERS, _BASE62)


def _digits(number: int, width: int, alphabet: str) -> str:
    out = []
    for _ in range(width):
        number, digit = divmod(number, len(alphabet))
        out.append(alphabet[digit])
    return "".join(reversed(out))
