"""Attribute policies about one memory: admitted, refused, or answered as if it were not there.

Who may not see a memory learns nothing of it: it is not there, and only the audit entry says that it was
denied. Who may see it, and not do what was asked, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

from strongroom.engine._decide import decide
from strongroom.engine._payload import MemoryPayload, from_us
from strongroom.errors import AccessDeniedError, MemoryNotFoundError, StorageBusyError
from strongroom.model import Action, Memory, SealedRecord
from strongroom.model.memory import redacted
from strongroom.model.rows import ALL, Facts, Reach, holds
from strongroom.recall import facts_of, standing

if TYPE_CHECKING:
    from strongroom.engine._call import Call
    from strongroom.engine._registry import NamespaceEntry

ATTEMPTS = 50


def hidden_memory(entry: NamespaceEntry, memory_id: bytes, label: str, created_us: int) -> Memory:
    """A memory that may be known of and not opened."""
    return redacted(UUID(bytes=memory_id), entry.name, label, from_us(created_us))


def admit_reading(
    call: Call, entry: NamespaceEntry, row: SealedRecord, reach: Reach
) -> tuple[SealedRecord, Memory | None]:
    """The row that may be opened now, and the memory instead when it may only be shown redacted.

    Raises:
        MemoryNotFoundError: it is not within reach.
    """
    for _ in range(ATTEMPTS):
        with call.engine.indexes.residency.asking():
            found = standing(call.engine.indexes.ready(entry), row.memory_id, reach)
        if found is None or found.seq != row.seq:
            row = _again(call, entry, row)
            continue
        if not found.seen:
            error = MemoryNotFoundError()
            call.conceal("the memory is outside the rows that the policies permit", error)
            raise error
        if found.opened:
            return row, None
        if found.expires_us <= call.engine.now_us():
            raise MemoryNotFoundError
        return row, hidden_memory(entry, row.memory_id, found.label, found.created_us)
    raise StorageBusyError("the memory changes all the time")


def _again(call: Call, entry: NamespaceEntry, row: SealedRecord) -> SealedRecord:
    fresh = call.engine.live_row(entry, row.memory_id)
    if fresh is None:
        raise MemoryNotFoundError
    return fresh


def known_facts(call: Call, entry: NamespaceEntry, row: SealedRecord) -> tuple[Facts, SealedRecord]:
    """What policies may ask of a memory, from the columns (nothing is opened for it), and its present row.

    Raises:
        MemoryNotFoundError: it went away meanwhile. StorageBusyError: it changes all the time.
    """
    for _ in range(ATTEMPTS):
        with call.engine.indexes.residency.asking():
            facts = facts_of(call.engine.indexes.ready(entry), row.memory_id)
        if facts is not None and facts[1] == row.seq:
            return facts[0], row
        row = _again(call, entry, row)
    raise StorageBusyError("the memory changes all the time")


def facts_in(payload: MemoryPayload, memory_id: bytes) -> Facts:
    """What policies may ask of a memory that is at hand."""
    return Facts(
        memory_id=memory_id,
        kind=payload.kind,
        sensitivity=payload.sensitivity,
        importance=math.floor(payload.importance * 1000),
        created_us=payload.created_us,
        tags=frozenset(payload.tags),
        subject=payload.subject,
        agent_id=payload.agent_id,
        session_id=payload.session_id,
        source=payload.source,
    )


def admit(call: Call, action: Action, entry: NamespaceEntry, row: SealedRecord, reach: Reach) -> SealedRecord:
    """Let something be done with one memory; the row for which it was decided.

    Nothing is done with a memory that the caller may not see: the answer would tell of it.

    Raises:
        AccessDeniedError: the caller may see it, and not do this. MemoryNotFoundError: it may not see it.
    """
    if reach.is_whole and _sees_all(call, entry):
        return row
    facts, row = known_facts(call, entry, row)
    answer = decide(call, action, entry.name, facts)
    visible = sees(call, entry, facts)
    if visible and answer.decision.allowed:
        return row
    if visible:
        call.reason = answer.decision.reason
        raise AccessDeniedError
    error = MemoryNotFoundError()
    call.conceal(OUT_OF_SIGHT if answer.decision.allowed else answer.decision.reason, error)
    raise error


_SEEING: Final = (Action.READ, Action.SEARCH)
OUT_OF_SIGHT: Final = "the memory is outside the rows that the policies permit to see"


def _sees_all(call: Call, entry: NamespaceEntry) -> bool:
    """Whether every memory of the namespace may be read, or every one found."""
    with _aside(call):
        answers = (decide(call, way, entry.name) for way in _SEEING)
        return any(a.decision.allowed and a.reach.seen == ALL for a in answers)


def sees(call: Call, entry: NamespaceEntry, facts: Facts) -> bool:
    """Whether the memory may be read or found: nothing else is done with it otherwise."""
    with _aside(call):
        return any(decide(call, way, entry.name, facts).decision.allowed for way in _SEEING)


@contextmanager
def _aside(call: Call) -> Iterator[None]:
    """Decisions that are not about what was asked: the audit entry does not name their policies."""
    noted = dict(call.details)
    try:
        yield
    finally:
        call.details = noted


def admit_new(call: Call, action: Action, namespace: str, facts: Facts, reach: Reach) -> None:
    """Let a memory come to be as it would be.

    Raises:
        AccessDeniedError: the policies do not permit such a memory.
    """
    if not reach.is_whole:
        call.require(action, namespace, facts)


def shown(call: Call, memory: Memory, facts: Facts) -> Memory:
    """The outcome of an update, as the caller may see it."""
    with _aside(call):
        answer = decide(call, Action.READ, memory.namespace)
    if answer.decision.allowed and (answer.reach.is_whole or holds(answer.reach.opened, facts)):
        return memory
    return redacted(memory.memory_id, memory.namespace, memory.sensitivity, memory.created_at)
