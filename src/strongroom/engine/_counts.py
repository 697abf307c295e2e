"""Counts and queues of a namespace, as far as the caller's reach goes: what it may not see is not counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.engine._registry import NamespaceEntry
from strongroom.ledger import QueueRow
from strongroom.model.rows import ALL, WHOLE
from strongroom.recall import within

if TYPE_CHECKING:
    from strongroom.engine._call import Call

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Counts:
    memories: int
    embedded: int
    pending: int
    dead: int


def counts(call: Call, entry: NamespaceEntry) -> Counts:
    """How many memories of a namespace are within reach.

    Where all are, a namespace that is not in memory is not taken there to be counted: that is left to the
    ledger, once its key is there and its head is genuine.
    """
    engine = call.engine
    seen = call.reaches.get(entry.ns, WHOLE).seen
    if seen == ALL:
        if engine.indexes.is_loaded(entry.ns):
            index = engine.indexes.ready(entry)
            memories, embedded = index.memories, index.embedded
        else:
            seq, head = engine.ledger.head(entry.ns)
            engine.heads.open_head(entry.ns, head, seq)
            closed = engine.vault.keyring.closed_keys(entry.ns)  # as if they were not there
            memories, embedded = engine.ledger.counts(entry.ns, entry.model_no, closed)
        queue = engine.ledger.queue_stats(entry.ns)
        return Counts(memories, embedded, queue.pending, queue.dead)
    with engine.indexes.residency.asking():
        index = engine.indexes.ready(entry)
        index.prepare()
        memories, embedded = index.table.tally(seen)
    waiting = [row.dead for page in queue_pages(call, entry) for row in page]
    return Counts(memories, embedded, waiting.count(False), waiting.count(True))


def queue_pages(call: Call, entry: NamespaceEntry, dead: bool | None = None) -> Iterator[list[QueueRow]]:
    """The entries of the embedding queue of a namespace that are within reach."""
    engine = call.engine
    seen = call.reaches.get(entry.ns, WHOLE).seen
    after = 0
    while page := engine.ledger.queue(ns=entry.ns, dead=dead, after=after, limit=_PAGE):
        after = page[-1].id
        if seen == ALL:
            yield list(page)
        else:
            with engine.indexes.residency.asking():
                permitted = within(engine.indexes.ready(entry), [r.memory_id for r in page], seen)
            yield [row for row, allowed in zip(page, permitted, strict=True) if allowed]
