"""One write transaction: batches are checked first and written only when they pass.

A batch that fails its checks has written nothing, so its neighbours in the transaction go on. All
statements lead with the namespace. Heads advance once per namespace at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import cast

import apsw

from strongroom.errors import (
    InternalError,
    InvalidInputError,
    KeyMovedError,
    NamespaceNotFoundError,
)
from strongroom.ledger._connect import translate
from strongroom.ledger._heads import ResetHead, present_rows
from strongroom.ledger._plan import ADD, AUDIT, AUDIT_NODE, DEQUEUE, ENQUEUE, Plan, Space, Values
from strongroom.ledger._rebase import Rebase, rename, rows_of, sealed_of
from strongroom.ledger._several import insert
from strongroom.ledger._told import Told
from strongroom.ledger._types import (
    LedgerHooks,
    OutdatedError,
    WriteBatch,
    root_of_head,
)
from strongroom.ledger._waves import ResealBatch, write_resealed
from strongroom.model import Field

_SYSTEM_NS = 0

_SPACE = (
    "SELECT seq, head, (SELECT coalesce(max(seq), 0) FROM audit),"
    " EXISTS (SELECT 1 FROM closed_key c WHERE c.ns = namespace.ns),"
    " (SELECT seq FROM namespace WHERE ns = 0) FROM namespace WHERE ns = ?"
)
_ADD_SPACE = "INSERT INTO namespace (ns, seq, head) VALUES (?, ?, ?)"
_SET_SPACE = "UPDATE namespace SET seq = ?, head = ? WHERE ns = ?"
_SYSTEM_CHANGED = (
    "SELECT EXISTS (SELECT 1 FROM record WHERE ns = 0 AND seq > ?"  # noqa: S608 (numbers of its own)
    f" AND field NOT IN ({int(Field.AUDIT_SIGNER)}, {int(Field.AUDIT_HEAD)}))"
)
_STANDS = "SELECT EXISTS (SELECT 1 FROM record WHERE ns = 0 AND seq = ?)"
_LAST_AUDIT = "SELECT coalesce(max(seq), 0) FROM audit"

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
_ADDING = frozenset((ADD, AUDIT, ENQUEUE))
_MISFIT = "a value of a row is of the wrong type or size"


class HalfWrittenError(Exception):
    """Inside the ledger only: a batch failed after it had begun to write. ``error`` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Transaction:
    """The writes of one group, between BEGIN and COMMIT (which are the caller's).

    ``is_trusting``: a memory that must not be there yet is added without a look first. When one is there
    after all, ``apply`` raises HalfWrittenError; without trust it tells whose error it is.
    """

    def __init__(self, connection: apsw.Connection, hooks: LedgerHooks, *, is_trusting: bool = False) -> None:
        self.connection = connection
        self.hooks = hooks
        self.is_trusting = is_trusting
        self._spaces: dict[int, Space] = {}
        self._last_audit: int | None = None  # before this transaction
        self._entries: list[bytes] = []  # of the audit log, in order; they are sealed and go in together
        self._system_seq: int | None = None  # as it was before this transaction
        self._closings: dict[int, int] = {}  # whether any key of a namespace was closed
        self._later: dict[str, list[Values]] = {}  # rows that only add, of several batches
        self._standing: set[int] = set()  # rows of namespace 0 that were found to stand
        self._changes_later = 0  # that were made by writing those

    def space(self, ns: int) -> Space | None:
        space = self._spaces.get(ns)
        if space is None:
            found = self.connection.execute(_SPACE, (ns,)).fetchone()
            if found is None:
                return None
            seq, head, last_audit, self._closings[ns], self._system_seq = found
            space = self._spaces[ns] = Space(ns, seq, head)
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
        self.catch_up()
        return bool(self.connection.execute(_SYSTEM_CHANGED, (relies_on,)).get)

    def _require_standing(self, settings: set[int]) -> None:
        if _SYSTEM_NS in self._spaces:  # rows of it may have come in this transaction
            self._standing.clear()
        for seq in settings - self._standing:
            if not self.connection.execute(_STANDS, (seq,)).get:
                raise OutdatedError
            self._standing.add(seq)

    def apply(self, batch: WriteBatch) -> list[int]:
        """Check and write one batch.

        Raises:
            OutdatedError: what it relies on has changed; nothing of it was written.
            StrongroomError: the batch does not fit; nothing of it was written.
            HalfWrittenError: writing failed halfway; the whole transaction has to be rolled back.
            apsw.Error: the storage failed.
        """
        if batch.filling is not None:
            raise InternalError("a batch was to be written before it was complete")
        self._require_roots(batch.roots)
        plan = Plan(self)
        for ns in batch.new_namespaces:
            plan.new_namespace(ns)
        try:
            seqs = plan.put_all(batch.puts)
        except _MISFITS:
            raise InvalidInputError(_MISFIT) from None
        for item in batch.dequeue:
            plan.emit(DEQUEUE, item)
        for item in batch.enqueue:
            plan.enqueue(item)
        if batch.relies_on is not None and self._is_outdated(batch.relies_on):
            raise OutdatedError
        self._require_standing(batch.settings)
        for node in batch.audit_nodes:
            plan.emit(AUDIT_NODE, node)
        self._execute(plan.operations)
        for ns, scratch in plan.spaces.items():
            self._merge(ns, scratch)
        self._entries += batch.audit
        return seqs

    def run(
        self,
        work: WriteBatch | ResealBatch | ResetHead | Rebase | Told | Callable[[apsw.Connection], int],
    ) -> list[int] | int:
        """Apply a batch, or let a job of the ledger itself write.

        Raises:
            HalfWrittenError: it failed after it had begun to write: the whole transaction has to be rolled
            back. apsw.Error: the storage failed. What the work raises otherwise: nothing was written.
        """
        if isinstance(work, WriteBatch) and work.is_audit_alone:
            if work.relies_on is not None and self._is_outdated(work.relies_on):
                raise OutdatedError
            self._entries += work.audit
            return []
        before = self._changes()
        try:
            return self._run(work)
        except (apsw.Error, HalfWrittenError):
            raise
        except Exception as e:  # whatever it is: half of a work must not be committed with that of others
            if self._changes() != before:
                raise HalfWrittenError(e) from None
            raise

    def _changes(self) -> int:
        """Rows that were changed so far, those of batches that had waited apart."""
        return self.connection.total_changes() - self._changes_later

    def _run(
        self,
        work: WriteBatch | ResealBatch | ResetHead | Rebase | Told | Callable[[apsw.Connection], int],
    ) -> list[int] | int:
        if isinstance(work, WriteBatch):
            return self.apply(work)
        self.catch_up()
        if isinstance(work, ResealBatch):
            return self.reseal(work)
        if isinstance(work, ResetHead):
            return self.reset_head(work.ns)
        if isinstance(work, Rebase):
            return self.rebase(work)
        if isinstance(work, Told):
            return self._tell(work)
        self._closings.clear()  # the job may close one
        return work(self.connection)

    def _tell(self, told: Told) -> int:
        """Let the work be done, and add its entry.

        Raises:
            OutdatedError: what it relies on has changed; nothing was written. As ``run``.
        """
        if told.relies_on is not None and self._is_outdated(told.relies_on):
            raise OutdatedError
        done = cast(int, self._run(told.work))
        entry = told.entry(self.connection, done)
        if entry is not None:
            self._entries.append(entry)
        return done

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

    def _execute(self, operations: list[tuple[str, list[Values]]]) -> None:
        """Carry out the statements of a batch; those that only add rows wait for those of the next ones.

        So the rows of a group go in together: each statement lets go of the interpreter, and the callers
        whose turn comes next are waiting for it.
        """
        later = self._later
        if all(sql in _ADDING for sql, _ in operations):
            for sql, rows in operations:
                if sql in later:
                    later[sql] += rows
                else:
                    later[sql] = rows
            return
        self.catch_up()
        self._write(operations)

    def catch_up(self) -> None:
        """Write what waits; to be called before anything is read that it could be.

        Raises:
            HalfWrittenError: the whole transaction has to be rolled back. apsw.Error: the storage failed.
        """
        if self._later:
            later, self._later = self._later, {}
            before = self.connection.total_changes()
            self._write(list(later.items()))
            self._changes_later += self.connection.total_changes() - before

    def _write(self, operations: list[tuple[str, list[Values]]]) -> None:
        connection = self.connection
        try:
            for sql, rows in operations:
                if len(rows) == 1:
                    connection.execute(sql, rows[0])
                elif sql is ADD or sql is AUDIT:
                    insert(connection, sql, rows)
                else:
                    connection.executemany(sql, rows)
        except _STORAGE:
            raise
        except apsw.Error as e:
            raise HalfWrittenError(translate(e)) from None
        except (*_MISFITS, ValueError):
            raise HalfWrittenError(InvalidInputError(_MISFIT)) from None

    def _merge(self, ns: int, scratch: Space) -> None:
        space = self._spaces.get(ns)
        if space is None:
            self._spaces[ns] = scratch
            return
        space.seq = scratch.seq
        space.removed += scratch.removed
        space.added += scratch.added

    def finish(self) -> None:
        """Write what waits, the head of every namespace that changed, once each, and the audit entries.

        Raises:
            HalfWrittenError: the transaction has to be rolled back. apsw.Error: the storage failed.
        """
        try:
            self.catch_up()
            for space in self._spaces.values():
                self._advance(space)
            if self._entries:
                first = self.last_audit() + 1
                sealed = self.hooks.seal_audits(first, self._entries)
                self._write([(AUDIT, list(enumerate(sealed, first)))])
        except (apsw.Error, HalfWrittenError):
            raise
        except Exception as e:  # noqa: BLE001 (a hook's, or ours: rows without their head or entry must not be committed)
            raise HalfWrittenError(e) from None

    def _advance(self, space: Space) -> None:
        if space.seq == space.seq_before and not space.is_changed:
            return
        head = self.hooks.advance_head(
            space.ns, space.head, space.seq_before, space.seq, space.removed, space.added
        )
        if space.is_new:
            self.connection.execute(_ADD_SPACE, (space.ns, space.seq, head))
        else:
            self.connection.execute(_SET_SPACE, (space.seq, head, space.ns))
