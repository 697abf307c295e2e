"""The sealed record: the only form in which a field of a memory is stored (spec/sealed-record.md).

    0        1       2             6              30                 62             62+n          78+n
    +--------+-------+-------------+--------------+------------------+--------------+-------------+
    | format | suite | key_id (be) | salt (24)    | commitment (32)  | ciphertext n | tag (16)    |
    +--------+-------+-------------+--------------+------------------+--------------+-------------+
    format 1: one AEAD message, n <= 65536

    +--------+-------+-------------+--------------+------------------+---------------+-----------------+
    | format | suite | key_id (be) | salt (24)    | commitment (32)  | chunk 0 | tag | ... | last | tag |
    +--------+-------+-------------+--------------+------------------+---------------+-----------------+
    format 2: more than 65536 bytes of plaintext, in chunks of 65536, the last one shorter

Keys:  format 1: record key (32) | commitment (32)                     = HKDF-Expand-SHA512(data key, info)
       format 2: record key (32) | base nonce (12) | commitment (32)   = HKDF-Expand-SHA512(data key, info)
       info = label of the format | suite | salt | context
AAD:   format 1: bytes 0..61 | context;   format 2: bytes 0..61 | context | 0 or, on the last chunk, 1

The nonce of format 1 is all zero: a record key is derived from a fresh 192-bit salt and seals one message.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from hmac import compare_digest
from typing import Final, NamedTuple

from strongroom.crypto._chunks import CHUNKED_OKM_BYTES, ChunkKey, chunked_length, plain_length
from strongroom.crypto._encoding import SealContext
from strongroom.crypto._keys import SecretKey, prf_of
from strongroom.crypto._suites import (
    AES_256_GCM,
    KEY_BYTES,
    SUITES,
    TAG_BYTES,
    open_once,
    seal_once,
    suite_by_number,
)
from strongroom.errors import ContentTooLargeError, DecryptionError, InternalError, InvalidInputError

FORMAT_WHOLE: Final = 1
FORMAT_CHUNKED: Final = 2
SALT_BYTES: Final = 24
HEADER_BYTES: Final = 62
OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES
WHOLE_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES: Final = 64 * 1024
PLAINTEXT_BYTES_MAX: Final = 256 * 1024 * 1024

_COMMITMENT_AT: Final = 30
_KEY_ID_MAX: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct(">BBI")
_WHOLE_LABEL: Final = b"strongroom/sealed-record@v1\0"
_CHUNKED_LABEL: Final = b"strongroom/sealed-chunks@v1\0"
_WHOLE_INFO: Final = {n: _WHOLE_LABEL + bytes((n,)) for n in SUITES}
_CHUNKED_INFO: Final = {n: _CHUNKED_LABEL + bytes((n,)) for n in SUITES}


def seal(
    key: SecretKey, key_id: int, context: SealContext, plaintext: bytes, suite: int = AES_256_GCM
) -> bytes:
    """Seal ``plaintext`` under ``key``; it opens again only with the same key and an equal context.

    The result is 78 bytes longer than the plaintext (over 64 KiB: 16 bytes more per further chunk).

    Raises:
        InvalidInputError: the suite is unknown, or ``key_id`` or a part of the context is out of range.
        ContentTooLargeError: the plaintext is longer than 256 MiB.
        KeyStateError: the key was wiped.
    """
    return seal_with(key, key_id, context, plaintext, suite=suite, salt=os.urandom(SALT_BYTES))


class SealJob(NamedTuple):
    """What goes under one key: ``(encoded context, plaintext)`` each."""

    key: SecretKey
    key_id: int
    suite: int
    items: Sequence[tuple[bytes, bytes]]


def seal_many(jobs: Sequence[SealJob]) -> list[list[bytes]]:
    """``seal`` for each item of each job, with the salts of all drawn at once.

    Raises:
        As ``seal``.
    """
    salts = os.urandom(SALT_BYTES * sum(len(job.items) for job in jobs))
    out: list[list[bytes]] = []
    at = 0
    for key, key_id, suite, items in jobs:
        end = at + SALT_BYTES * len(items)
        out.append(_seal_each(key, key_id, items, suite, salts[at:end]))
        at = end
    return out


def seal_with(
    key: SecretKey, key_id: int, context: SealContext, plaintext: bytes, *, suite: int, salt: bytes
) -> bytes:
    """``seal`` with a given salt. For ``seal`` and for test vectors: a salt MUST NOT be used twice."""
    return _sealed(key, key_id, context.encode(), plaintext, suite, salt)


def _sealed(key: SecretKey, key_id: int, bound: bytes, plaintext: bytes, suite: int, salt: bytes) -> bytes:
    """``seal_with`` for a context that was encoded before."""
    return _seal_each(key, key_id, ((bound, plaintext),), suite, salt)[0]


def _seal_each(
    key: SecretKey, key_id: int, items: Sequence[tuple[bytes, bytes]], suite: int, salts: bytes
) -> list[bytes]:
    """Each ``(encoded context, plaintext)`` sealed; ``salts`` are theirs, one behind the other."""
    spec = SUITES.get(suite) or suite_by_number(suite)
    if not 0 <= key_id <= _KEY_ID_MAX or len(salts) != SALT_BYTES * len(items):
        raise InvalidInputError("a key_id must be an unsigned 32-bit number, a salt 24 bytes")
    derive, info, head = prf_of(key).digest, _WHOLE_INFO[suite], _HEAD.pack(FORMAT_WHOLE, suite, key_id)
    out: list[bytes] = []
    at = 0
    for bound, plaintext in items:
        salt = salts[at : at + SALT_BYTES]
        at += SALT_BYTES
        if len(plaintext) > WHOLE_BYTES_MAX:
            out.append(_seal_chunked(key, key_id, bound, plaintext, suite=suite, salt=salt))
            continue
        okm = derive(b"".join((info, salt, bound, b"\x01")))  # HKDF-Expand, first block
        header = head + salt + okm[KEY_BYTES:]
        out.append(header + seal_once(spec, okm[:KEY_BYTES], plaintext, header + bound))
    return out


def open_sealed(key: SecretKey, context: SealContext, sealed: bytes) -> bytes:
    """The plaintext of a sealed record, all of it verified.

    Raises:
        DecryptionError: anything about the record, the key or the context is not as it was when it
            was sealed. It never says what.
        InvalidInputError: a part of ``context`` is out of range. KeyStateError: the key was wiped.
    """
    opened = _opened(key, context.encode(), sealed)
    if opened is None:
        raise DecryptionError
    return opened


def open_encoded(key: SecretKey, bound: bytes, sealed: bytes) -> bytes:
    """``open_sealed`` for a context that was encoded before. Raises: as there."""
    opened = _opened(key, bound, sealed)
    if opened is None:
        raise DecryptionError
    return opened


class ResealJob(NamedTuple):
    """A sealed record to go from the key ``old`` to the key ``new``; ``bound``: its encoded context."""

    old: SecretKey
    new: SecretKey
    key_id: int
    suite: int
    bound: bytes
    sealed: bytes


def reseal_many(jobs: Sequence[ResealJob]) -> list[bytes | None]:
    """What each record holds, sealed under its new key for the same context; None for one that does not open.

    Each result is opened again with keys derived anew, and compared, before anybody may rely on it.

    Raises:
        InternalError: what was sealed does not open to the same bytes. As ``seal`` otherwise.
    """
    salts = os.urandom(SALT_BYTES * len(jobs))
    out: list[bytes | None] = []
    for place, (old, new, key_id, suite, bound, sealed) in enumerate(jobs):
        plaintext = _opened(old, bound, sealed)
        if plaintext is None:
            out.append(None)
            continue
        salt = salts[place * SALT_BYTES : (place + 1) * SALT_BYTES]
        made = _sealed(new, key_id, bound, plaintext, suite, salt)
        again = _opened(new, bound, made)
        if again is None or not compare_digest(again, plaintext):
            raise InternalError("a record that was sealed anew does not open to what it was")
        out.append(made)
    return out


def _opened(key: SecretKey, bound: bytes, sealed: bytes) -> bytes | None:
    """The plaintext, or None."""
    prf = prf_of(key)
    spec = SUITES.get(sealed[1]) if len(sealed) >= OVERHEAD_BYTES else None
    if spec is None:
        return None
    if sealed[0] == FORMAT_CHUNKED:
        return _open_chunked(key, bound, sealed)
    if sealed[0] != FORMAT_WHOLE or len(sealed) > OVERHEAD_BYTES + WHOLE_BYTES_MAX:
        return None
    okm = prf.digest(_WHOLE_INFO[sealed[1]] + sealed[6:_COMMITMENT_AT] + bound + b"\x01")
    if not compare_digest(okm[KEY_BYTES:], sealed[_COMMITMENT_AT:HEADER_BYTES]):
        return None
    return open_once(spec, okm[:KEY_BYTES], sealed[HEADER_BYTES:], sealed[:HEADER_BYTES] + bound)


def sealed_header(sealed: bytes) -> tuple[int, int]:
    """``(suite, key_id)`` of a sealed record, to find its key. Nothing is verified yet.

    Raises:
        DecryptionError: the bytes cannot be a sealed record.
    """
    if len(sealed) >= OVERHEAD_BYTES:
        form, suite, key_id = _HEAD.unpack_from(sealed)
        length = _plaintext_length(form, len(sealed))
        if suite in SUITES and length is not None:
            return suite, key_id
    raise DecryptionError


def sealed_length(plaintext_bytes: int) -> int:
    """The length in bytes of the sealed record of a plaintext of that length."""
    if plaintext_bytes <= WHOLE_BYTES_MAX:
        return plaintext_bytes + OVERHEAD_BYTES
    return HEADER_BYTES + chunked_length(plaintext_bytes, CHUNK_BYTES)


def _plaintext_length(form: int, sealed_bytes: int) -> int | None:
    """The length of the plaintext; None when no record of that format has that length."""
    if form == FORMAT_WHOLE:
        length = sealed_bytes - OVERHEAD_BYTES
        return length if 0 <= length <= WHOLE_BYTES_MAX else None
    if form == FORMAT_CHUNKED:
        inner = plain_length(sealed_bytes - HEADER_BYTES, CHUNK_BYTES)
        return inner if inner is not None and WHOLE_BYTES_MAX < inner <= PLAINTEXT_BYTES_MAX else None
    return None


def _seal_chunked(
    key: SecretKey, key_id: int, bound: bytes, plaintext: bytes, *, suite: int, salt: bytes
) -> bytes:
    if len(plaintext) > PLAINTEXT_BYTES_MAX:
        raise ContentTooLargeError("a record holds at most 256 MiB")
    okm = prf_of(key).expand(_CHUNKED_INFO[suite] + salt + bound, CHUNKED_OKM_BYTES)
    chunks = ChunkKey(SUITES[suite], okm)
    header = _HEAD.pack(FORMAT_CHUNKED, suite, key_id) + salt + okm[KEY_BYTES + 12 :]
    out = bytearray(sealed_length(len(plaintext)))
    out[:HEADER_BYTES] = header
    source, target = memoryview(plaintext), memoryview(out)[HEADER_BYTES:]
    for number in range(len(plaintext) // CHUNK_BYTES + 1):
        piece = source[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        final = b"\x00" if len(piece) == CHUNK_BYTES else b"\x01"
        at = number * (CHUNK_BYTES + TAG_BYTES)
        room = target[at : at + len(piece) + TAG_BYTES]
        chunks.aead.encrypt_into(chunks.nonce(number), piece, header + bound + final, room)
    return bytes(out)


def _open_chunked(key: SecretKey, bound: bytes, sealed: bytes) -> bytes | None:
    """The plaintext once every chunk has verified; otherwise None, and the buffer is zeroed."""
    length = _plaintext_length(FORMAT_CHUNKED, len(sealed))
    if length is None:
        return None
    suite = sealed[1]
    info = _CHUNKED_INFO[suite] + sealed[6:_COMMITMENT_AT] + bound
    okm = prf_of(key).expand(info, CHUNKED_OKM_BYTES)
    header = sealed[:HEADER_BYTES]
    if not compare_digest(okm[KEY_BYTES + 12 :], header[_COMMITMENT_AT:]):
        return None
    chunks = ChunkKey(SUITES[suite], okm)
    out = bytearray(length)
    source, target = memoryview(sealed)[HEADER_BYTES:], memoryview(out)
    for number in range(length // CHUNK_BYTES + 1):
        room = target[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        final = b"\x00" if len(room) == CHUNK_BYTES else b"\x01"
        at = number * (CHUNK_BYTES + TAG_BYTES)
        piece = source[at : at + len(room) + TAG_BYTES]
        if not chunks.aead.decrypt_into(chunks.nonce(number), piece, header + bound + final, room):
            target[:] = bytes(length)
            return None
    opened = bytes(out)
    target[:] = bytes(length)
    return opened
