"""Proofs as documents of one JSON line (spec/audit-log.md); ``strongroom.audit.verify`` reads them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom.audit._note import Checkpoint

EXPORT_FORMAT: Final = "strongroom-audit-export/v1"
PROOF_FORMAT: Final = "strongroom-audit-proof/v1"
CONSISTENCY_FORMAT: Final = "strongroom-audit-consistency/v1"


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


def export_header(origin: str, size: int) -> str:
    """The first line of an export."""
    return _dumps(format=EXPORT_FORMAT, origin=origin, size=size)


def export_leaf(seq: int, sealed: bytes, opened: str | None) -> str:
    """The line of an entry; ``opened`` is JSON of what it says."""
    line = f'{{"seq":{seq},"sealed":"{_text(sealed)}"'
    return line + (f',"entry":{opened}}}' if opened is not None else "}")


def export_end(checkpoint: Checkpoint) -> str:
    """The last line of an export; also the form of a line in a file of heads."""
    return _dumps(checkpoint=checkpoint.note)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _dumps(**values: str | int | Sequence[str]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
