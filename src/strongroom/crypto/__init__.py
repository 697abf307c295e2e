"""Suites, sealed records, streams, key handles: pure functions over bytes.

Formats: spec/sealed-record.md and spec/stream.md. The bytes of a key leave only through
``strongroom.crypto.danger``, which this module does not import.
"""

from strongroom.crypto._arena import KeyMemory, key_memory, require_locked_keys
from strongroom.crypto._encoding import SealContext, encode_pairs, encoded, encoded_rows
from strongroom.crypto._keys import SecretKey
from strongroom.crypto._password import PASSWORD_HEADER_BYTES, new_password_header, password_kdf
from strongroom.crypto._record import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PLAINTEXT_BYTES_MAX,
    ResealJob,
    SealJob,
    open_encoded,
    open_sealed,
    reseal_many,
    seal,
    seal_many,
    sealed_header,
    sealed_length,
)
from strongroom.crypto._selftest import self_test
from strongroom.crypto._stream import OpenStream, SealStream, stream_length
from strongroom.crypto._suites import (
    AES_256_GCM,
    AES_256_GCM_SIV,
    CHACHA20_POLY1305,
    Suite,
    suite_by_name,
    suite_by_number,
)
from strongroom.crypto._uncopied import Uncopied
from strongroom.crypto._wrap import WRAPPED_BYTES, unwrap_key, wrap_key

__all__ = [
    "AES_256_GCM",
    "AES_256_GCM_SIV",
    "CHACHA20_POLY1305",
    "HEADER_BYTES",
    "OVERHEAD_BYTES",
    "PASSWORD_HEADER_BYTES",
    "PLAINTEXT_BYTES_MAX",
    "WRAPPED_BYTES",
    "KeyMemory",
    "OpenStream",
    "ResealJob",
    "SealContext",
    "SealJob",
    "SealStream",
    "SecretKey",
    "Suite",
    "Uncopied",
    "encode_pairs",
    "encoded",
    "encoded_rows",
    "key_memory",
    "new_password_header",
    "open_encoded",
    "open_sealed",
    "password_kdf",
    "require_locked_keys",
    "reseal_many",
    "seal",
    "seal_many",
    "sealed_header",
    "sealed_length",
    "self_test",
    "stream_length",
    "suite_by_name",
    "suite_by_number",
    "unwrap_key",
    "wrap_key",
]
