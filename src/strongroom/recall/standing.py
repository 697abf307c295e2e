"""How single memories stand to a condition on rows, without opening any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strongroom.model.rows import ALL, Facts, Reach, Rows
from strongroom.recall.index import NEVER_US, NamespaceIndex

__all__ = ["Standing", "facts_of", "standing", "within"]


@dataclass(frozen=True, slots=True)
class Standing:
    """``seq``: the state of the memory that was looked at. ``label``: its sensitivity, "" when not seen."""

    seq: int
    seen: bool
    opened: bool
    label: str = ""
    created_us: int = 0
    expires_us: int = NEVER_US


def standing(index: NamespaceIndex, memory_id: bytes, reach: Reach) -> Standing | None:
    """How a memory stands to ``reach``; None: it is not there.

    Raises:
        InternalError, OperationTimeoutError, LimitExceededError, ClosedError.
    """
    index.prepare()
    with index.lock.read:
        rid, seq = index.rid_of(memory_id), index.seq_of(memory_id)
        if rid is None or seq is None:
            return None
        seen = rid < index.end and bool(index.mask(reach.seen)[rid])
        opened = seen and bool(index.mask(reach.opened)[rid])
        if not seen or opened:
            return Standing(seq, seen, opened)
        label = index.table.labels([rid])[rid]
        return Standing(seq, True, False, label, index.created_us(rid), int(index._expires[rid]))


def facts_of(index: NamespaceIndex, memory_id: bytes) -> tuple[Facts, int] | None:
    """What policies may ask of a memory, and its ``seq``; None: it is not there.

    Raises:
        As ``standing``.
    """
    index.prepare()
    with index.lock.read:
        rid, seq = index.rid_of(memory_id), index.seq_of(memory_id)
        facts = None if rid is None or rid >= index.end else index.table.facts(rid)
        return None if facts is None or seq is None else (facts, seq)


def within(index: NamespaceIndex, memory_ids: Sequence[bytes], rows: Rows) -> list[bool]:
    """For each id whether the condition holds for the memory; False for one that is not there."""
    if rows == ALL:
        return [True] * len(memory_ids)
    index.prepare()
    with index.lock.read:
        mask = index.mask(rows)
        rids = [index.rid_of(i) for i in memory_ids]
        return [rid is not None and rid < len(mask) and bool(mask[rid]) for rid in rids]
