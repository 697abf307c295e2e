"""The audit log: the bytes of an entry, the Merkle tree, signed checkpoints, proofs, formats for export.

``strongroom.audit.verify`` is the offline verifier. It shares no code with the rest of this room.
"""

from strongroom.audit._entry import (
    MEMORY_IDS_MAX,
    NAMESPACES_MAX,
    REASON_BYTES_MAX,
    decode,
    encode,
    leaf_hash,
)
from strongroom.audit._export import export_end, export_header, export_leaf
from strongroom.audit._formats import (
    FORMATS,
    as_csv,
    as_json,
    as_ocsf,
    csv_header,
)
from strongroom.audit._heads import HeadSink, HeadSinks
from strongroom.audit._note import KeyChange, Signer, origin_of
from strongroom.audit._tree import (
    EMPTY_ROOT,
    STORED_LEVEL_MIN,
    Frontier,
    consistency_ranges,
    fold,
    hashes,
    inclusion_ranges,
    needed,
    subtree_hash,
    subtrees,
)
from strongroom.model import EVERYTHING, AuditFilter, Checkpoint, ConsistencyProof, InclusionProof

__all__ = [
    "EMPTY_ROOT",
    "EVERYTHING",
    "FORMATS",
    "MEMORY_IDS_MAX",
    "NAMESPACES_MAX",
    "REASON_BYTES_MAX",
    "STORED_LEVEL_MIN",
    "AuditFilter",
    "Checkpoint",
    "ConsistencyProof",
    "Frontier",
    "HeadSink",
    "HeadSinks",
    "InclusionProof",
    "KeyChange",
    "Signer",
    "as_csv",
    "as_json",
    "as_ocsf",
    "consistency_ranges",
    "csv_header",
    "decode",
    "encode",
    "export_end",
    "export_header",
    "export_leaf",
    "fold",
    "hashes",
    "inclusion_ranges",
    "leaf_hash",
    "needed",
    "origin_of",
    "subtree_hash",
    "subtrees",
]
