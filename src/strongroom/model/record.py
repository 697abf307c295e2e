"""A sealed row as the ledger holds it: all that a database ever sees of a memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Field(IntEnum):
    """Which part of a thing a row holds. Values are stored: never change one."""

    MEMORY = 0
    VECTOR = 1
    ACCESS = 2
    SUBJECT = 3  # the pseudonym of a data subject in the audit log; the row's id is a blinded subject
    NAMESPACE = 16  # namespace 0 (system): a namespace's name and settings
    CREDENTIAL = 17  # namespace 0: an API key
    MODEL = 18  # namespace 0: an embedding model known to this store
    AUDIT_SIGNER = 19  # namespace 0: the seeds that sign checkpoints of the audit log
    AUDIT_HEAD = 20  # namespace 0: size and root of the audit log as far as it is integrated
    CERTIFICATE = 24  # namespace 0: an identity that certificates of clients may carry
    REVOCATION = 25  # namespace 0: a certificate of a client that is not taken any more
    ELEVATION = 26  # namespace 0: an elevation that was asked for, granted or ended


class State(IntEnum):
    """Values are stored: never change one."""

    LIVE = 1
    TOMBSTONE = 2


class SealedRecord(NamedTuple):
    """One row of the ledger.

    ``seq`` is the namespace's sequence number of the last change of this row. ``version`` counts
    the changes of the row, ``content_version`` the changes of the content alone (on a vector row:
    the content that it embeds). ``model`` is the number of the embedding model on vector rows,
    else 0. ``sealed`` is empty on a tombstone.
    """

    ns: int
    memory_id: bytes  # 16 bytes
    field: int
    seq: int
    version: int
    content_version: int
    key_id: int
    state: int
    model: int
    sealed: bytes

    def __repr__(self) -> str:  # without the sealed bytes
        values = zip(self._fields[:-1], self[:-1], strict=True)
        return f"SealedRecord({', '.join(f'{name}={value!r}' for name, value in values)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One operation as the audit log records it. Holds no content.

    ``at_us``: microseconds since the epoch, UTC. ``outcome``: ``ok``, ``denied`` or an error code.
    ``namespaces`` are names (the entry is sealed); ``count`` is the number of memories touched.
    ``details`` are further facts by name, in the order of the names: the deciding policies, the
    elevation, the purpose, the TLS group, ... ``subjects`` are pseudonyms of data subjects, 8 bytes each.
    """

    at_us: int
    request_id: str
    principal: str
    surface: str
    action: str
    namespaces: tuple[str, ...]
    outcome: str
    reason: str = ""
    memory_ids: tuple[bytes, ...] = ()
    count: int = 0
    details: tuple[tuple[str, str], ...] = ()
    subjects: tuple[bytes, ...] = ()
    seq: int = 0
