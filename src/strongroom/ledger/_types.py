"""The words of the ledger: what is written, what is read, and what the engine lends for it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from strongroom.model import Field, Finding, QueueStats, SealedRecord, State

if TYPE_CHECKING:
    from strongroom.ledger._told import Telling

_ROOT_AT = 2  # of the key id in a sealed record (spec/sealed-record.md)
ELEMENT_PREFIX_BYTES = 62  # of the sealed bytes: header, salt and commitment stand there
EXPECT_ANY = -1
EXPECT_ABSENT = 0
SKIPPED = 0  # the seq of a put that was left out because its memory had gone on without it

_ELEMENT = struct.Struct(">H16sQQB")
_MEMORY, _VECTOR, _TOMBSTONE = int(Field.MEMORY), int(Field.VECTOR), int(State.TOMBSTONE)


class Put(NamedTuple):
    """One row to write.

    ``memory_id``: 16 bytes. ``expect``: -1 any, 0 no row there (a tombstone is a row), n the present
    version is n. ``requires_queue_item``: leave the row out (seq 0) unless the embedding queue still
    holds this memory with this ``content_version``.
    """

    ns: int
    memory_id: bytes
    field: int
    version: int
    content_version: int
    key_id: int
    state: int
    model: int
    sealed: bytes
    expect: int = EXPECT_ANY
    requires_queue_item: bool = False


class QueueItem(NamedTuple):
    """A memory whose content of that version waits for its embedding."""

    ns: int
    memory_id: bytes
    content_version: int


class QueueRow(NamedTuple):
    """An item of the embedding queue as it is stored. ``id`` grows in the order of arrival."""

    id: int
    ns: int
    memory_id: bytes
    content_version: int
    attempts: int
    dead: bool
    error_code: str | None

    @property
    def item(self) -> QueueItem:
        return QueueItem(self.ns, self.memory_id, self.content_version)


class AuditNode(NamedTuple):
    """The hash (32 bytes) of the complete subtree number ``position`` of 2^``level`` audit entries."""

    level: int
    position: int
    hash: bytes


class Filling(Protocol):
    """What a batch lacks until its turn comes; whoever leads a group has it made for all of them at once."""

    def fill(self, batches: Sequence[WriteBatch]) -> Sequence[Exception | None]:
        """Complete batches whose fillings are all of this one's class; why one of them cannot be, or None.

        Called on the thread of whichever caller leads the group, once for a batch; inside the transaction
        when its caller came late. It must not call the ledger, nor wait for anybody who does.
        """
        ...


@dataclass(slots=True)
class WriteBatch:
    """All or nothing. Applied in this order: namespaces, puts, dequeue, enqueue, audit, audit_nodes.

    ``relies_on``: the number of the last change of namespace 0 that whoever prepared the batch knew of; the
    batch is refused when there is a later one, rows of the audit log apart. None: it relies on nothing there.
    ``settings``: numbers of rows of namespace 0 that must still stand: those of the namespaces it is for.
    ``audit`` holds plain entries; the hook seals each under its number. ``dequeue`` removes an item
    only when its version matches. ``enqueue`` replaces the item of an older version, and does nothing
    when the memory is not live with that content. ``roots``: under which purpose root the ids of rows of a
    namespace were made, where they are made by a keyed hash; KeyMovedError when its head hangs on another.
    ``filling``: what is still missing; it has been put in when the batch is written or refused.
    """

    puts: list[Put] = field(default_factory=list)
    enqueue: list[QueueItem] = field(default_factory=list)
    dequeue: list[QueueItem] = field(default_factory=list)
    new_namespaces: list[int] = field(default_factory=list)
    audit: list[bytes] = field(default_factory=list)
    audit_nodes: list[AuditNode] = field(default_factory=list)
    roots: dict[int, int] = field(default_factory=dict)
    relies_on: int | None = None
    settings: set[int] = field(default_factory=set)
    filling: Filling | None = field(default=None, repr=False)

    @property
    def is_audit_alone(self) -> bool:
        """Whether it is entries of the audit log and nothing else, whatever they rely on."""
        others = self.puts or self.enqueue or self.dequeue or self.new_namespaces or self.audit_nodes
        return not (others or self.roots or self.settings)


class OutdatedError(Exception):
    """What a batch was prepared from has changed since: prepare it anew. Nothing was written.

    It never leaves the engine: whoever prepares a batch repeats the work.
    """


def root_of_head(head: bytes) -> int:
    """The number of the purpose root that a sealed head hangs on: the key id in its header."""
    return int.from_bytes(head[_ROOT_AT : _ROOT_AT + 4])


class RowHeader(NamedTuple):
    """A row without its contents: what a comparison with the head needs."""

    field: int
    memory_id: bytes
    seq: int
    version: int
    content_version: int
    key_id: int
    state: int
    model: int
    prefix: bytes  # the first 62 of the sealed bytes


class LedgerHooks(Protocol):
    """What the ledger cannot do, because it cannot seal.

    Called inside the write transaction, on the thread of whichever caller leads the group. They must
    not call the ledger. What they raise fails only the batches that needed them.
    """

    def advance_head(
        self,
        ns: int,
        head: bytes | None,
        seq_before: int,
        seq_after: int,
        removed: list[bytes],
        added: list[bytes],
    ) -> bytes:
        """The new sealed head. ``head`` is None for a namespace that is made in this transaction."""
        ...

    def seal_audits(self, first: int, entries: Sequence[bytes]) -> list[bytes]:
        """The sealed forms of audit entries, of which the first has the number ``first``."""
        ...


class LedgerReader(Protocol):
    """Reads, each of one consistent state."""

    def head(self, ns: int) -> tuple[int, bytes]:
        """``(seq, sealed head)``. NamespaceNotFoundError."""
        ...

    def changes(self, ns: int, after: int, limit: int) -> list[SealedRecord]:
        """Rows with a seq above ``after``, ordered by seq, at most ``limit``."""
        ...

    def get(self, ns: int, memory_id: bytes, field: int = _MEMORY) -> SealedRecord | None:
        """One row; a tombstone is a row."""
        ...

    def get_many(self, ns: int, memory_ids: Sequence[bytes], field: int = _MEMORY) -> list[SealedRecord]:
        """The rows that exist, in the order asked for."""
        ...

    def get_parts(self, ns: int, memory_ids: Sequence[bytes], fields: Sequence[int]) -> list[SealedRecord]:
        """The rows of one or two fields of each memory, in any order, of one state."""
        ...

    def iter_changes(self, ns: int, after: int = 0, page: int = 2000) -> Iterator[SealedRecord]:
        """All rows above ``after`` in order of seq, in bounded memory."""
        ...


class Ledger(LedgerReader, Protocol):
    """The sealed-row store."""

    def commit(self, batch: WriteBatch) -> list[int]:
        """Write a batch; durable on return. Gives the seqs of the puts in order (0: left out)."""
        ...

    def queue(
        self, *, ns: int | None = None, dead: bool | None = None, after: int = 0, limit: int = 100
    ) -> list[QueueRow]: ...

    def queue_turns(
        self, *, after_ns: int, namespaces_max: int, limit: int
    ) -> tuple[list[QueueRow], int]: ...

    def queue_stats(self, ns: int | None = None) -> QueueStats: ...

    def queue_mark(self, items: Sequence[QueueItem], *, error_code: str, dead: bool) -> int: ...

    def requeue(
        self, namespaces: Sequence[int] | None = None, telling: Telling[int] | None = None
    ) -> int: ...

    def audit_entries(self, after: int, limit: int) -> list[tuple[int, bytes]]: ...

    def audit_count(self) -> int: ...

    def audit_nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]: ...

    def namespaces(self) -> list[int]: ...

    def check(self) -> list[Finding]: ...

    def checkpoint(self) -> None: ...

    def close(self) -> None: ...


def element(field: int, memory_id: bytes, seq: int, version: int, state: int, sealed: bytes) -> bytes:
    """What stands for a row in the head's multiset (spec/ledger.md).

    ``sealed`` may be the row's sealed bytes or only their first 62; nothing of it counts on a tombstone.
    """
    packed = _ELEMENT.pack(field, memory_id, seq, version, state)
    return packed if state == _TOMBSTONE else packed + sealed[:ELEMENT_PREFIX_BYTES]


def element_of_header(row: RowHeader) -> bytes:
    """``element`` of a row that was read without its contents."""
    return element(row.field, row.memory_id, row.seq, row.version, row.state, row.prefix)


def element_of(record: SealedRecord) -> bytes:
    """``element`` of a record as it was read."""
    return element(record.field, record.memory_id, record.seq, record.version, record.state, record.sealed)
