"""What is asked of the audit log and what it answers: filters, checkpoints, proofs (spec/audit-log.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom.model.namespace import NamespacePattern
from strongroom.model.record import AuditEntry

PROOF_FORMAT: Final = "strongroom-audit-proof/v1"
CONSISTENCY_FORMAT: Final = "strongroom-audit-consistency/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries: of a time (microseconds since the epoch, ``since`` included, ``until`` not), and whose
    principal, action, outcome and namespace are among those named; nothing named: any.

    ``subjects`` are data subjects by name; the store puts their pseudonyms into ``pseudonyms``, which is what
    entries are compared with (None: any).
    """

    since_us: int | None = None
    until_us: int | None = None
    principals: Collection[str] = ()
    actions: Collection[str] = ()
    outcomes: Collection[str] = ()
    namespaces: tuple[NamespacePattern, ...] = ()
    subjects: Collection[str] = ()
    pseudonyms: frozenset[bytes] | None = None

    def matches(self, entry: AuditEntry) -> bool:
        if self.since_us is not None and entry.at_us < self.since_us:
            return False
        if self.until_us is not None and entry.at_us >= self.until_us:
            return False
        return (
            (not self.principals or entry.principal in self.principals)
            and (not self.actions or entry.action in self.actions)
            and (not self.outcomes or entry.outcome in self.outcomes)
            and (self.pseudonyms is None or not self.pseudonyms.isdisjoint(entry.subjects))
            and (not self.namespaces or any(p.matches(n) for p in self.namespaces for n in entry.namespaces))
        )


EVERYTHING: Final = AuditFilter()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of the log: its size in entries, the root over them (32 bytes), and the note."""

    origin: str
    size: int
    root: bytes
    note: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """That entry ``seq`` is in the log of ``checkpoint``. ``hashes``: 32 bytes each, from the leaf up."""

    seq: int
    sealed: bytes = field(repr=False)
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint

    def to_json(self) -> str:
        return _dumps(
            format=PROOF_FORMAT,
            seq=self.seq,
            sealed=_text(self.sealed),
            hashes=[_text(h) for h in self.hashes],
            checkpoint=self.checkpoint.note,
        )


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the log of ``old_size`` entries, with root ``old_root``, is the beginning of ``checkpoint``'s."""

    old_size: int
    old_root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint

    def to_json(self) -> str:
        return _dumps(
            format=CONSISTENCY_FORMAT,
            old_size=self.old_size,
            old_root=_text(self.old_root),
            hashes=[_text(h) for h in self.hashes],
            checkpoint=self.checkpoint.note,
        )


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _dumps(**values: str | int | Sequence[str]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
