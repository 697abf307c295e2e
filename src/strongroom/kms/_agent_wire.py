"""Frames between the key agent and its clients (spec/key-agent.md). Pure: no I/O.

request:   | length (4) | version 1 (1) | operation (1) | payload |
answer:    | length (4) | status (1)    | payload       |
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

from strongroom.crypto import encode_pairs
from strongroom.errors import (
    InvalidInputError,
    KeyManagementError,
    KeyMemoryError,
    KeyringMismatchError,
    KeystoreFormatError,
    KeystoreMissingError,
    KeystorePermissionError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsRegionError,
    KmsThrottledError,
    KmsUnavailableError,
    LimitExceededError,
    StorageError,
    StrongroomError,
    UnwrapError,
)
from strongroom.kms._contract import KmsKeyInfo, encode_context

VERSION: Final = 1
OK: Final = 0
FAILED: Final = 1
FRAME_BYTES_MAX: Final = 65_536
KEY_BYTES: Final = 32
LENGTH: Final = struct.Struct(">I")
REQUEST_HEAD: Final = struct.Struct(">IBB")
ANSWER_HEAD: Final = struct.Struct(">IB")
_SHORT: Final = struct.Struct(">H")
_TEXTS_MAX: Final = 16


class Operation(IntEnum):
    """What a client asks for."""

    DESCRIBE = 1
    WRAP = 2
    UNWRAP = 3
    HEALTH = 4


_ERRORS: Final[dict[str, type[StrongroomError]]] = {
    e.code: e
    for e in (
        InvalidInputError,
        KeyManagementError,
        KeyMemoryError,
        KeyringMismatchError,
        KeystoreFormatError,
        KeystoreMissingError,
        KeystorePermissionError,
        KmsDeniedError,
        KmsKeyDeletedError,
        KmsKeyDisabledError,
        KmsRegionError,
        KmsThrottledError,
        KmsUnavailableError,
        LimitExceededError,
        StorageError,
        UnwrapError,
    )
}


def error_of(payload: bytes) -> StrongroomError:
    """The error that an answer names; ``kms_unavailable`` for anything that it cannot mean."""
    found = _ERRORS.get(payload.decode("ascii", "replace"))
    if found is None:
        return KmsUnavailableError("the key agent gave an unexpected answer")
    return found()


def code_of(error: StrongroomError) -> bytes:
    """The code that an answer carries; errors that no client would understand become the general one."""
    for kind in type(error).__mro__:
        code = getattr(kind, "code", "")
        if code in _ERRORS and _ERRORS[code] is kind:
            return str(code).encode("ascii")
    return KeyManagementError.code.encode("ascii")


def describe_payload(info: KmsKeyInfo, former: Sequence[str]) -> bytes:
    """The answer to ``describe``."""
    texts = (info.provider, info.key_uri, *former)
    parts = [text.encode("utf-8") for text in texts]
    return LENGTH.pack(info.version) + b"".join(_SHORT.pack(len(p)) + p for p in parts)


def read_description(payload: bytes) -> tuple[KmsKeyInfo, tuple[str, ...]]:
    """``(the key in use, the addresses of all keys, that one first)``.

    Raises:
        KmsUnavailableError: it has not the form.
    """
    try:
        (version,) = LENGTH.unpack_from(payload)
        texts = _texts(payload, LENGTH.size)
        if version < 1 or not 2 <= len(texts) <= _TEXTS_MAX or not all(texts):
            raise ValueError
    except (ValueError, struct.error):
        raise KmsUnavailableError("the key agent gave an unexpected answer") from None
    return KmsKeyInfo(provider=texts[0], key_uri=texts[1], version=version), tuple(texts[1:])


def _texts(data: bytes, at: int) -> list[str]:
    out: list[str] = []
    while at < len(data):
        (length,) = _SHORT.unpack_from(data, at)
        at += 2
        if at + length > len(data):
            raise ValueError
        out.append(data[at : at + length].decode("utf-8"))
        at += length
    return out


def read_context(data: bytes) -> dict[str, str]:
    """The context behind its canonical encoding.

    Raises:
        InvalidInputError: another encoding, or a context over its limits.
    """
    try:
        (count,) = _SHORT.unpack_from(data)
        texts = _texts(data, 2)
    except (ValueError, struct.error):
        raise InvalidInputError("the context is not encoded as it should be") from None
    context = dict(zip(texts[::2], texts[1::2], strict=False))
    if len(texts) != 2 * count or len(context) != count or encode_context(context) != data:
        raise InvalidInputError("the context is not encoded as it should be")
    return context


def unwrap_payload(bound: bytes, wrapped: bytes) -> bytes:
    """The payload of ``unwrap``."""
    return _SHORT.pack(len(bound)) + bound + wrapped


def split_unwrap(payload: bytes) -> tuple[bytes, bytes]:
    """``(encoded context, wrapped key)``.

    Raises:
        InvalidInputError: it has not the form.
    """
    if len(payload) < 2 or len(payload) < 2 + _SHORT.unpack_from(payload)[0]:
        raise InvalidInputError("the request has not the form of an unwrap")
    end = 2 + _SHORT.unpack_from(payload)[0]
    return payload[2:end], payload[end:]


def health_payload(figures: Mapping[str, str]) -> bytes:
    """The answer to ``health``."""
    return encode_pairs(figures)
