"""Suites, sealed records, streams, key handles: pure functions over bytes.

Formats: spec/sealed-record.md and spec/stream.md. The bytes of a key leave only through
``strongroom.crypto.danger``, which this module does not import.
"""

from strongroom.crypto._encoding import SealContext, encode_pairs
from strongroom.crypto._keys import SecretKey
from strongroom.crypto._record import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PLAINTEXT_BYTES_MAX,
    open_sealed,
    seal,
    sealed_header,
    sealed_length,
)
from strongroom.crypto._suites import (
    AES_256_GCM,
    AES_256_GCM_SIV,
    CHACHA20_POLY1305,
    Suite,
    suite_by_name,
    suite_by_number,
)
from strongroom.crypto._wrap import WRAPPED_BYTES, unwrap_key, wrap_key

__all__ = [
    "AES_256_GCM",
    "AES_256_GCM_SIV",
    "CHACHA20_POLY1305",
    "HEADER_BYTES",
    "OVERHEAD_BYTES",
    "PLAINTEXT_BYTES_MAX",
    "WRAPPED_BYTES",
    "SealContext",
    "SecretKey",
    "Suite",
    "encode_pairs",
    "open_sealed",
    "seal",
    "sealed_header",
    "sealed_length",
    "suite_by_name",
    "suite_by_number",
    "unwrap_key",
    "wrap_key",
]
