"""A wrapped key: one key sealed under another. Version 1, see spec/sealed-record.md.

    0        1       2           26                58              90          106
    +--------+-------+-----------+-----------------+---------------+-----------+
    | 3      | suite | salt (24) | commitment (32) | ciphertext 32 | tag (16)  |
    +--------+-------+-----------+-----------------+---------------+-----------+

The same construction as a sealed record, with its own label:
wrapping key (32) | commitment (32) = HKDF-Expand-SHA512(kek, label | suite | salt | context),
nonce all zero, AAD = bytes 0..57 | context.
"""

from __future__ import annotations

import os
from hmac import compare_digest
from typing import Final

from strongroom.crypto._encoding import PART_BYTES_MAX
from strongroom.crypto._keys import SecretKey, material_of, prf_of
from strongroom.crypto._suites import (
    AES_256_GCM,
    KEY_BYTES,
    SUITES,
    open_once_into,
    seal_once,
    suite_by_number,
)
from strongroom.errors import InvalidInputError, UnwrapError
from strongroom.pages import overwrite

FORMAT_WRAPPED: Final = 3
WRAPPED_BYTES: Final = 106

_SALT_BYTES: Final = 24
_HEADER_BYTES: Final = 58
_LABEL: Final = b"strongroom/wrapped-key@v1\0"


def wrap_key(kek: SecretKey, key: SecretKey | bytes, context: bytes, suite: int = AES_256_GCM) -> bytes:
    """``key`` (a handle, or 32 bytes) sealed under ``kek``: 106 bytes that open only with ``context``.

    Raises:
        InvalidInputError: ``key`` is not 32 bytes, ``context`` is longer than 65535 bytes, or the suite
            is unknown. KeyStateError: one of the keys was wiped.
    """
    return wrap_with(kek, key, context, suite, os.urandom(_SALT_BYTES))


def wrap_with(kek: SecretKey, key: SecretKey | bytes, context: bytes, suite: int, salt: bytes) -> bytes:
    """``wrap_key`` with a given salt. For ``wrap_key`` and test vectors: a salt MUST NOT be used twice."""
    spec = suite_by_number(suite)
    _check_context(context)
    if len(salt) != _SALT_BYTES:
        raise InvalidInputError("a salt must be 24 bytes")
    secret = key if isinstance(key, SecretKey) else SecretKey.from_bytes(key)
    okm = prf_of(kek).digest(_LABEL + bytes((suite,)) + salt + context + b"\x01")  # HKDF-Expand, first block
    header = bytes((FORMAT_WRAPPED, suite)) + salt + okm[KEY_BYTES:]
    sealed = seal_once(spec, memoryview(okm)[:KEY_BYTES], material_of(secret), header + context)
    overwrite(okm)
    material_of(secret)  # wiped by another thread meanwhile? Then these are zeros that were wrapped
    return header + sealed


def unwrap_key(kek: SecretKey, wrapped: bytes, context: bytes) -> SecretKey:
    """The key inside ``wrapped``.

    Raises:
        UnwrapError: another master key, another context, or altered bytes. It never says which.
        InvalidInputError: ``context`` is longer than 65535 bytes. KeyStateError: ``kek`` was wiped.
    """
    _check_context(context)
    prf = prf_of(kek)
    if len(wrapped) != WRAPPED_BYTES or wrapped[0] != FORMAT_WRAPPED or wrapped[1] not in SUITES:
        raise UnwrapError
    suite, header = wrapped[1], wrapped[:_HEADER_BYTES]
    okm = prf.digest(_LABEL + header[1:26] + context + b"\x01")
    opened = SecretKey._blank()
    right = compare_digest(okm[KEY_BYTES:], header[26:]) and open_once_into(
        SUITES[suite],
        memoryview(okm)[:KEY_BYTES],
        wrapped[_HEADER_BYTES:],
        header + context,
        material_of(opened),
    )
    overwrite(okm)
    if not right:
        raise UnwrapError
    return opened


def _check_context(context: bytes) -> None:
    if len(context) > PART_BYTES_MAX:
        raise InvalidInputError("a context is longer than 65535 bytes")
