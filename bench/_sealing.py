"""A pass-through in place of sealing, to see what sealing costs. It exists only here.

``switch_off`` replaces the functions that the engine and the keyring call, in this process alone; the
product has no setting that does this. Records keep their length and their header, so that the database
does the same work; nothing in them is encrypted or authenticated. Only this module opens what it wrote.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from strongroom.crypto import AES_256_GCM, HEADER_BYTES

_HEAD = struct.Struct(">BBI")
_TAG = bytes(16)
_REST = bytes(HEADER_BYTES - _HEAD.size)


def _seal(key: Any, key_id: int, context: Any, plaintext: bytes, suite: int = AES_256_GCM) -> bytes:
    return _HEAD.pack(1, suite, key_id) + _REST + plaintext + _TAG


def _seal_many(jobs: Any) -> list[list[bytes]]:
    return [
        [_seal(key, key_id, bound, plaintext, suite) for bound, plaintext in items]
        for key, key_id, suite, items in jobs
    ]


def _open(key: Any, context: Any, sealed: bytes) -> bytes:
    return sealed[HEADER_BYTES:-16]


def _checksum(self: Any, data: bytes) -> bytes:
    """32 bytes that differ where the data differ, without a key; for blinded tokens and heads."""
    first = zlib.crc32(data)
    return struct.pack(">II", first, zlib.crc32(data, 0x9E3779B9)) + bytes(24)


def switch_off() -> None:
    """Seal nothing from here on in this process."""
    from strongroom.crypto import SecretKey
    from strongroom.keyring import _handles, _purposes

    both = {"seal": _seal, "open_sealed": _open}
    handles = {**both, "seal_many": _seal_many, "open_encoded": _open}
    for module, functions in ((_purposes, both), (_handles, handles)):
        for name, replacement in functions.items():
            if not hasattr(module, name):
                raise RuntimeError(
                    f"{module.__name__}.{name} is gone: the pass-through would measure nothing"
                )
            setattr(module, name, replacement)
    SecretKey.mac = _checksum  # type: ignore[method-assign]
