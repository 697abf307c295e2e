"""Canonical bytes for names and contexts: every part with its length in front, in a fixed order.

length_prefixed(part)   length (2, big-endian) | part
encode_pairs(mapping)   count (2) | length_prefixed(name) length_prefixed(value) ...,
                        UTF-8, by name in byte order

SealContext.encode():
 0        2          2+t    +2  +8    +2  +16         +2  +2      +2  +8        +2  +2
+--------+----------+------+------+------+-----------+------+-------+------+---------+------+--------+
| t      | tenant   | 0008 | ns   | 0010 | memory_id | 0002 | field | 0008 | version | 0002 | schema |
+--------+----------+------+------+------+-----------+------+-------+------+---------+------+--------+
Integers are unsigned and big-endian; t is the length of the tenant's UTF-8 bytes, 1024 at most.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from strongroom.errors import InvalidInputError

PART_BYTES_MAX: Final = 0xFFFF
TENANT_BYTES_MAX: Final = 1024
MEMORY_ID_BYTES: Final = 16

_NS: Final = struct.Struct(">HQ")
_REST: Final = struct.Struct(">H16sHHHQHH")


def length_prefixed(part: bytes) -> bytes:
    """``part`` with its length in two bytes in front.

    Raises:
        InvalidInputError: it is longer than 65535 bytes.
    """
    if len(part) > PART_BYTES_MAX:
        raise InvalidInputError("a part of a context is longer than 65535 bytes")
    return len(part).to_bytes(2, "big") + part


def utf8(text: str) -> bytes:
    """``text`` in UTF-8.

    Raises:
        InvalidInputError: it holds half a surrogate pair.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError("text is not valid Unicode") from None


def encode_pairs(pairs: Mapping[str, str]) -> bytes:
    """The one encoding of a mapping of names to values, for example of a KMS context.

    Raises:
        InvalidInputError: more than 65535 pairs, a part longer than 65535 bytes, or bad Unicode.
    """
    if len(pairs) > PART_BYTES_MAX:
        raise InvalidInputError("a context has more than 65535 pairs")
    parts = sorted((utf8(name), utf8(value)) for name, value in pairs.items())
    body = b"".join(length_prefixed(name) + length_prefixed(value) for name, value in parts)
    return len(parts).to_bytes(2, "big") + body


@lru_cache(maxsize=4096, typed=True)
def _prefix(tenant: str, ns: int) -> bytes:
    name = utf8(tenant)
    if len(name) > TENANT_BYTES_MAX:
        raise InvalidInputError("a tenant is longer than 1024 bytes")
    return length_prefixed(name) + _NS.pack(8, ns)


@dataclass(frozen=True, slots=True)
class SealContext:
    """What a sealed record *is*: authenticated with it, never stored in it.

    ``memory_id`` is 16 bytes; ``ns`` and ``version`` are unsigned 64-bit, ``field`` and ``schema``
    unsigned 16-bit numbers. ``schema`` is the version of the plaintext's own encoding.
    """

    tenant: str
    ns: int
    memory_id: bytes
    field: int
    version: int
    schema: int

    def encode(self) -> bytes:
        """The canonical bytes (layout: see this module).

        Raises:
            InvalidInputError: a part is out of its range.
        """
        return encoded(self.tenant, self.ns, self.memory_id, self.field, self.version, self.schema)


def encoded(tenant: str, ns: int, memory_id: bytes, field: int, version: int, schema: int) -> bytes:
    """``SealContext(...).encode()`` without the object, for many at once. Raises: as there."""
    if len(memory_id) != MEMORY_ID_BYTES:
        raise InvalidInputError("a memory_id must be 16 bytes")
    try:
        return _prefix(tenant, ns) + _REST.pack(MEMORY_ID_BYTES, memory_id, 2, field, 8, version, 2, schema)
    except struct.error:
        raise InvalidInputError("a number of a seal context is out of range") from None


def encoded_rows(
    tenant: str, ns: int, schema: int, rows: Sequence[tuple[bytes, int, int, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Encoded context and plaintext of each ``(memory_id, field, version, plaintext)``; as ``encoded``."""
    prefix, pack = _prefix(tenant, ns), _REST.pack
    try:
        found = [
            (prefix + pack(MEMORY_ID_BYTES, memory_id, 2, field, 8, version, 2, schema), plaintext)
            for memory_id, field, version, plaintext in rows
            if len(memory_id) == MEMORY_ID_BYTES
        ]
    except struct.error:
        raise InvalidInputError("a number of a seal context is out of range") from None
    if len(found) != len(rows):
        raise InvalidInputError("a memory_id must be 16 bytes")
    return found
