"""One write transaction: batches are checked first and written only when they pass.

A batch that fails its checks has written nothing, so its neighbours in the transaction go on. All
statements lead with the namespace. Heads advance once per namespace at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import apsw

from strongroom.errors import (
    ConflictError,
    DuplicateMemoryError,
    InvalidInputError,
    KeyMovedError,
    NamespaceNotFoundError,
    VersionConflictError,
)
from strongroom.ledger._connect import translate
from strongroom.ledger._heads import ResetHead, present_rows
from strongroom.ledger._rebase import Rebase, rename, rows_of, sealed_of
from strongroom.ledger._types import (
    ELEMENT_PREFIX_BYTES,
    EXPECT_ABSENT,
    EXPECT_ANY,
    SKIPPED,
    LedgerHooks,
    OutdatedError,
    Put,
    QueueItem,
    WriteBatch,
    element,
    root_of_head,
)
from strongroom.ledger._waves import ResealBatch, is_closed, write_resealed
from strongroom.model import Field, State

_MEMORY, _VECTOR, _ACCESS = int(Field.MEMORY), int(Field.VECTOR), int(Field.ACCESS)
_LIVE, _TOMBSTONE = int(State.LIVE), int(State.TOMBSTONE)
_SYSTEM_NS = 0

_SPACE = (
    "SELECT seq, head, (SELECT coalesce(max(seq), 0) FROM audit),"
    " EXISTS (SELECT 1 FROM closed_key c WHERE c.ns = namespace.ns),"
    " (SELECT seq FROM namespace WHERE ns = 0) FROM namespace WHERE ns = ?"
)
_ADD_SPACE = "INSERT INTO namespace (ns, seq, head) VALUES (?, ?, ?)"
_SET_SPACE = "UPDATE namespace SET seq = ?, head = ? WHERE ns = ?"
_ROW = (
    f"SELECT seq, version, content_version, state, substr(sealed, 1, {ELEMENT_PREFIX_BYTES})"  # noqa: S608
    " FROM record WHERE ns = ? AND memory_id = ? AND field = ?"
)
_PUT = (
    "INSERT INTO record (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ns, memory_id, field) DO UPDATE SET"
    " seq = excluded.seq, version = excluded.version, content_version = excluded.content_version,"
    " key_id = excluded.key_id, state = excluded.state, model = excluded.model, sealed = excluded.sealed"
)
_ADD = (
    "INSERT INTO record (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_DROP = "DELETE FROM record WHERE ns = ? AND memory_id = ? AND field = ?"
_QUEUED = "SELECT content_version FROM embedding_queue WHERE ns = ? AND memory_id = ?"
_UNQUEUE_ALL = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ?"
_UNQUEUE_OTHERS = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ? AND content_version <> ?"
_DEQUEUE = "DELETE FROM embedding_queue WHERE ns = ? AND memory_id = ? AND content_version = ?"
_ENQUEUE = (
    "INSERT INTO embedding_queue (ns, memory_id, content_version, attempts, dead, error_code)"
    " VALUES (?, ?, ?, 0, 0, NULL) ON CONFLICT (ns, memory_id) DO UPDATE SET"
    " content_version = excluded.content_version, attempts = 0, dead = 0, error_code = NULL"
)
_SYSTEM_CHANGED = (
    "SELECT EXISTS (SELECT 1 FROM record WHERE ns = 0 AND seq > ?"  # noqa: S608 (numbers of its own)
    f" AND field NOT IN ({int(Field.AUDIT_SIGNER)}, {int(Field.AUDIT_HEAD)}))"
)
_LAST_AUDIT = "SELECT coalesce(max(seq), 0) FROM audit"
_AUDIT = "INSERT INTO audit (seq, sealed) VALUES (?, ?)"
_AUDIT_NODE = "INSERT OR REPLACE INTO audit_node (level, position, hash) VALUES (?, ?, ?)"


# What is wrong with the device or the file, and not with one batch.
_STORAGE = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.NoMemError,
)


_MISFITS = (TypeError, OverflowError, struct.error)
_MISFIT = "a value of a row is of the wrong type or size"


class HalfWrittenError(Exception):
    """Inside the ledger only: a batch failed after it had begun to write. ``error`` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Row(NamedTuple):
    """What has to be known of the row that stands at a key."""

    seq: int
    version: int
    content_version: int
    state: int
    prefix: bytes


class _Space:
    """A namespace during the transaction: the state it had, and what happened since."""

    __slots__ = ("added", "head", "is_changed", "is_new", "ns", "removed", "seq", "seq_before")

    def __init__(self, ns: int, seq: int, head: bytes | None) -> None:
        self.ns = ns
        self.seq_before = self.seq = seq
        self.head = head
        self.is_new = self.is_changed = head is None
        self.removed: list[bytes] = []
        self.added: list[bytes] = []

    def start_anew(self, seq: int, elements: list[bytes]) -> None:
        """As if all rows had been written in this transaction, into an empty namespace."""
        self.seq_before, self.seq, self.head = 0, seq, None
        self.removed, self.added = [], elements
        self.is_changed = True


_Key = tuple[int, bytes, int]


class _Plan:
    """One batch: reads and checks everything, writes nothing, and leaves a list of statements."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._is_trusting = transaction.is_trusting
        self._execute = transaction.connection.execute
        self._known: dict[_Key, _Row | None] = {}
        self._closed: dict[tuple[int, int], bool] = {}
        self.spaces: dict[int, _Space] = {}
        self.operations: list[tuple[str, list[tuple[int | bytes, ...]]]] = []

    def emit(self, sql: str, values: tuple[int | bytes, ...]) -> None:
        operations = self.operations
        if operations and operations[-1][0] is sql:
            operations[-1][1].append(values)
        else:
            operations.append((sql, [values]))

    def new_namespace(self, ns: int) -> None:
        if self._transaction.space(ns) is not None or ns in self.spaces:
            raise ConflictError("a namespace with that number exists already")
        self.spaces[ns] = _Space(ns, 0, None)

    def space(self, ns: int) -> _Space:
        """A scratch copy; the transaction takes it over only when the whole batch passes."""
        space = self.spaces.get(ns)
        if space is None:
            base = self._transaction.space(ns)
            if base is None:
                raise NamespaceNotFoundError()
            space = self.spaces[ns] = _Space(ns, base.seq, base.head)
        return space

    def row(self, ns: int, memory_id: bytes, field: int) -> _Row | None:
        key = (ns, memory_id, field)
        try:
            return self._known[key]
        except KeyError:
            pass
        found: tuple[int, int, int, int, bytes] | None = self._execute(_ROW, key).fetchone()
        row = self._known[key] = _Row(*found) if found else None
        return row

    def put(self, put: Put) -> int:
        """Check one put and note what it does; its seq, or 0 when it is left out."""
        ns, memory_id, field, version, content_version, key_id, state, model, sealed, expect, queued = put
        if len(memory_id) != 16:
            raise InvalidInputError("a memory id has 16 bytes")
        space = self.spaces.get(ns) or self.space(ns)
        if state == _LIVE and self._is_closed(ns, key_id):
            raise KeyMovedError()
        if field in (_VECTOR, _ACCESS) and not self._fits_memory(put):
            return SKIPPED
        if queued and not self._is_queued(put):
            return SKIPPED
        known = self._known
        if (
            expect == EXPECT_ABSENT
            and field == _MEMORY
            and self._is_trusting
            and (ns, memory_id, field) not in known
        ):
            old = None  # no look: the index refuses a second one
        else:
            old = self.row(ns, memory_id, field)
        if expect != EXPECT_ANY:
            if expect == EXPECT_ABSENT:
                if old is not None:
                    raise DuplicateMemoryError()
            elif old is None or old.version != expect:
                raise VersionConflictError()
        space.seq += 1
        seq = space.seq
        if old is not None:
            self._replace(space, put, old)
        elif field == _MEMORY:
            known[ns, memory_id, _VECTOR] = known[ns, memory_id, _ACCESS] = None
        sql = _ADD if old is None else _PUT
        self.emit(sql, (ns, memory_id, field, seq, version, content_version, key_id, state, model, sealed))
        space.added.append(element(field, memory_id, seq, version, state, sealed))
        known[ns, memory_id, field] = _Row(
            seq, version, content_version, state, sealed[:ELEMENT_PREFIX_BYTES]
        )
        return seq

    def _is_closed(self, ns: int, key_id: int) -> bool:
        if not self._transaction.may_be_closed(ns):
            return False
        closed = self._closed.get((ns, key_id))
        if closed is None:
            closed = self._closed[ns, key_id] = is_closed(self._transaction.connection, ns, key_id)
        return closed

    def _fits_memory(self, put: Put) -> bool:
        """Whether a vector or counter still belongs to a live memory, a vector to its very content."""
        memory = self.row(put.ns, put.memory_id, _MEMORY)
        if memory is None or memory.state != _LIVE:
            return False
        return put.field != _VECTOR or memory.content_version == put.content_version

    def _is_queued(self, put: Put) -> bool:
        found = self._execute(_QUEUED, (put.ns, put.memory_id)).fetchone()
        return found is not None and found[0] == put.content_version

    def _replace(self, space: _Space, put: Put, old: _Row) -> None:
        """The old row leaves the head; a deleted memory takes its other rows and queue item along."""
        ns, memory_id = put.ns, put.memory_id
        space.removed.append(element(put.field, memory_id, old.seq, old.version, old.state, old.prefix))
        if put.field != _MEMORY:
            return
        if put.version <= old.version:
            raise VersionConflictError()
        if put.state == _TOMBSTONE:
            for field in (_VECTOR, _ACCESS):
                row = self.row(ns, memory_id, field)
                if row is not None:
                    space.removed.append(
                        element(field, memory_id, row.seq, row.version, row.state, row.prefix)
                    )
                    self.emit(_DROP, (ns, memory_id, field))
                    self._known[ns, memory_id, field] = None
            self.emit(_UNQUEUE_ALL, (ns, memory_id))
        elif old.content_version != put.content_version:
            self.emit(_UNQUEUE_OTHERS, (ns, memory_id, put.content_version))

    def enqueue(self, item: QueueItem) -> None:
        self.space(item.ns)
        memory = self.row(item.ns, item.memory_id, _MEMORY)
        if memory and memory.state == _LIVE and memory.content_version == item.content_version:
            self.emit(_ENQUEUE, item)

    def audit(self, entries: Sequence[bytes]) -> int:
        seq = self._transaction.last_audit()
        for entry in entries:
            seq += 1
            self.emit(_AUDIT, (seq, self._transaction.hooks.seal_audit(seq, entry)))
        return seq


class Transaction:
    """The writes of one group, between BEGIN and COMMIT (which are the caller's).

    ``is_trusting``: a memory that must not be there yet is added without a look first. When one is there
    after all, ``apply`` raises HalfWrittenError; without trust it tells whose error it is.
    """

    def __init__(self, connection: apsw.Connection, hooks: LedgerHooks, *, is_trusting: bool = False) -> None:
        self.connection = connection
        self.hooks = hooks
        self.is_trusting = is_trusting
        self._spaces: dict[int, _Space] = {}
        self._last_audit: int | None = None
        self._system_seq: int | None = None  # as it was before this transaction
        self._closings: dict[int, int] = {}  # whether any key of a namespace was closed

    def space(self, ns: int) -> _Space | None:
        space = self._spaces.get(ns)
        if space is None:
            found = self.connection.execute(_SPACE, (ns,)).fetchone()
            if found is None:
                return None
            seq, head, last_audit, self._closings[ns], self._system_seq = found
            space = self._spaces[ns] = _Space(ns, seq, head)
            if self._last_audit is None:
                self._last_audit = last_audit
        return space

    def last_audit(self) -> int:
        if self._last_audit is None:
            self._last_audit = int(self.connection.execute(_LAST_AUDIT).get)
        return self._last_audit

    def _require_roots(self, roots: dict[int, int]) -> None:
        for ns, root in roots.items():
            space = self.space(ns)
            if space is not None and space.head and root_of_head(space.head) != root:
                raise KeyMovedError()

    def _is_outdated(self, relies_on: int) -> bool:
        """Whether namespace 0 has changed after that number, in this transaction or before it."""
        if self._system_seq == relies_on and _SYSTEM_NS not in self._spaces:
            return False
        return bool(self.connection.execute(_SYSTEM_CHANGED, (relies_on,)).get)

    def apply(self, batch: WriteBatch) -> list[int]:
        """Check and write one batch.

        Raises:
            OutdatedError: what it relies on has changed; nothing of it was written.
            StrongroomError: the batch does not fit; nothing of it was written.
            HalfWrittenError: writing failed halfway; the whole transaction has to be rolled back.
            apsw.Error: the storage failed.
        """
        self._require_roots(batch.roots)
        plan = _Plan(self)
        for ns in batch.new_namespaces:
            plan.new_namespace(ns)
        put = plan.put
        try:
            seqs = [put(p) for p in batch.puts]
        except _MISFITS:
            raise InvalidInputError(_MISFIT) from None
        for item in batch.dequeue:
            plan.emit(_DEQUEUE, item)
        for item in batch.enqueue:
            plan.enqueue(item)
        if batch.relies_on is not None and self._is_outdated(batch.relies_on):
            raise OutdatedError
        last_audit = plan.audit(batch.audit) if batch.audit else None
        for node in batch.audit_nodes:
            plan.emit(_AUDIT_NODE, node)
        try:
            self._execute(plan)
        except _STORAGE:
            raise
        except apsw.Error as e:
            raise HalfWrittenError(translate(e)) from None
        except (*_MISFITS, ValueError):
            raise HalfWrittenError(InvalidInputError(_MISFIT)) from None
        for ns, scratch in plan.spaces.items():
            self._merge(ns, scratch)
        if last_audit is not None:
            self._last_audit = last_audit
        return seqs

    def run(
        self, work: WriteBatch | ResealBatch | ResetHead | Rebase | Callable[[apsw.Connection], int]
    ) -> list[int] | int:
        """Apply a batch, or let a job of the ledger itself write.

        Raises:
            HalfWrittenError: it failed after it had begun to write: the whole transaction has to be rolled
            back. apsw.Error: the storage failed. What the work raises otherwise: nothing was written.
        """
        before = self.connection.total_changes()
        try:
            return self._run(work)
        except (apsw.Error, HalfWrittenError):
            raise
        except Exception as e:  # whatever it is: half of a work must not be committed with that of others
            if self.connection.total_changes() != before:
                raise HalfWrittenError(e) from None
            raise

    def _run(
        self, work: WriteBatch | ResealBatch | ResetHead | Rebase | Callable[[apsw.Connection], int]
    ) -> list[int] | int:
        if isinstance(work, WriteBatch):
            return self.apply(work)
        if isinstance(work, ResealBatch):
            return self.reseal(work)
        if isinstance(work, ResetHead):
            return self.reset_head(work.ns)
        if isinstance(work, Rebase):
            return self.rebase(work)
        self._closings.clear()  # the job may close one
        return work(self.connection)

    def may_be_closed(self, ns: int) -> bool:
        """Whether a key of the namespace may be closed: worth a look at each."""
        return self._closings.get(ns, 1) != 0

    def reseal(self, batch: ResealBatch) -> int:
        """Write rows that were sealed anew in their places; how many still stood as they were read.

        Raises:
            ConflictError: the part of the wave is not the owner's any more.
        """
        space = self.space(batch.ns)
        if space is None:
            raise NamespaceNotFoundError()
        try:
            count, removed, added = write_resealed(self.connection, batch)
        except _STORAGE:
            raise
        except apsw.Error as e:
            raise HalfWrittenError(translate(e)) from None
        if count:
            space.removed += removed
            space.added += added
            space.is_changed = True
        return count

    def reset_head(self, ns: int) -> int:
        """Start the head of a namespace anew from its rows, those of this transaction included.

        Raises:
            NamespaceNotFoundError: the namespace was never made.
        """
        space = self.space(ns)
        if space is None:
            raise NamespaceNotFoundError()
        last, elements = present_rows(self.connection, ns)
        space.start_anew(max(last, space.seq), elements)
        return len(elements)

    def rebase(self, work: Rebase) -> int:
        """Give a namespace a head under another root, and some of its rows other ids; how many.

        Raises:
            NamespaceNotFoundError: the namespace was never made. What ``make`` raises: nothing was written.
        """
        space = self.space(work.ns)
        if space is None:
            raise NamespaceNotFoundError()
        self._advance(space)  # what others have written in this transaction
        del self._spaces[work.ns]
        seq, head, *_ = self.connection.execute(_SPACE, (work.ns,)).get
        head, renamed = work.make(seq, head, rows_of(self.connection, work.ns), sealed_of(self.connection))
        try:
            rename(self.connection, renamed)
            self.connection.execute(_SET_SPACE, (seq, head, work.ns))
        except _STORAGE:
            raise
        except apsw.Error as e:
            raise HalfWrittenError(translate(e)) from None
        return len(renamed)

    def _execute(self, plan: _Plan) -> None:
        connection = self.connection
        for sql, rows in plan.operations:
            if len(rows) == 1:
                connection.execute(sql, rows[0])
            else:
                connection.executemany(sql, rows)

    def _merge(self, ns: int, scratch: _Space) -> None:
        space = self._spaces.get(ns)
        if space is None:
            self._spaces[ns] = scratch
            return
        space.seq = scratch.seq
        space.removed += scratch.removed
        space.added += scratch.added

    def finish(self) -> None:
        """Advance the head of every namespace that changed, once each."""
        for space in self._spaces.values():
            self._advance(space)

    def _advance(self, space: _Space) -> None:
        if space.seq == space.seq_before and not space.is_changed:
            return
        try:
            head = self.hooks.advance_head(
                space.ns, space.head, space.seq_before, space.seq, space.removed, space.added
            )
        except Exception as e:  # noqa: BLE001 (a hook's: heads are half advanced, and the caller gets it as it is)
            raise HalfWrittenError(e) from None
        if space.is_new:
            self.connection.execute(_ADD_SPACE, (space.ns, space.seq, head))
        else:
            self.connection.execute(_SET_SPACE, (space.seq, head, space.ns))
