"""The bytes of an audit entry, and the leaf hash of the log that will hold them."""

from strongroom.audit._entry import (
    MEMORY_IDS_MAX,
    NAMESPACES_MAX,
    REASON_BYTES_MAX,
    decode,
    encode,
    leaf_hash,
)

__all__ = ["MEMORY_IDS_MAX", "NAMESPACES_MAX", "REASON_BYTES_MAX", "decode", "encode", "leaf_hash"]
