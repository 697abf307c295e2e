"""The sealed-row store in one SQLite file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import TypeVar, cast
from uuid import UUID

import apsw

from strongroom.config import LedgerConfig
from strongroom.errors import (
    ClosedError,
    StorageError,
    StorageReadOnlyError,
    StoreNotFoundError,
    StrongroomError,
)
from strongroom.ledger import _read, _waves
from strongroom.ledger._apply import HalfWrittenError, Transaction
from strongroom.ledger._check import check_ledger
from strongroom.ledger._checkpoint import Checkpointer
from strongroom.ledger._connect import CACHE_KIB_WRITER, connect, translate, translated
from strongroom.ledger._group import GroupCommit, Take, Ticket
from strongroom.ledger._heads import ResetHead
from strongroom.ledger._queue import mark, requeue
from strongroom.ledger._rebase import Rebase, Renamed, Rows, SealedOf
from strongroom.ledger._schema import FILE_NAME, create_file, require_own_logs, store_id_of, verify_file
from strongroom.ledger._told import Job, Telling, Told, counted
from strongroom.ledger._types import Filling, LedgerHooks, QueueItem, QueueRow, RowHeader, WriteBatch
from strongroom.ledger._wave_store import Waves
from strongroom.model import Field, Finding, QueueStats, SealedRecord

T = TypeVar("T")
_MEMORY = int(Field.MEMORY)
_DEFAULTS = LedgerConfig()

Work = WriteBatch | _waves.ResealBatch | Told | ResetHead | Rebase | Job


class SqliteLedger(Waves):
    """``DIR/ledger.db``. Safe for many threads, and for several processes on one directory.

    ``commit`` shares one transaction and one fsync among the callers that come at the same time.
    Reads never wait for a writer: they run on connections of their own, or on an idle writer's.
    """

    def __init__(self, path: Path, hooks: LedgerHooks, config: LedgerConfig, vfs: str | None = None) -> None:
        """Use ``create`` or ``open``."""
        self._path = path
        self._hooks = hooks
        self._config = config
        self._vfs = vfs
        self._group: GroupCommit[Work] = GroupCommit(self._write)
        self._checkpointer = Checkpointer(path, self._connect, self._group.alone)
        self._pool = _read.ReadPool(self._connect)
        self._writer: apsw.Connection | None = None
        self._wrote_last = 0  # the thread that did
        self._closed = False
        writer = self._writer_connection()
        try:
            with translated(writer):
                verify_file(writer)
                self.store_id: UUID = store_id_of(writer)
                if writer.readonly("main"):
                    raise StorageReadOnlyError()
        except BaseException:
            self._drop_writer()
            raise

    @classmethod
    def create(
        cls, directory: Path, store_id: UUID, hooks: LedgerHooks, config: LedgerConfig = _DEFAULTS
    ) -> SqliteLedger:
        """Make an empty ledger in an existing directory.

        Raises:
            StoreExistsError: there is one. StorageError: it cannot be written.
        """
        return cls(create_file(directory, store_id), hooks, config)

    @classmethod
    def open(
        cls,
        directory: Path,
        hooks: LedgerHooks,
        config: LedgerConfig = _DEFAULTS,
        *,
        vfs: str | None = None,
    ) -> SqliteLedger:
        """Open a ledger; an older schema is brought up to date. ``vfs`` is for fault injection.

        Raises:
            StoreNotFoundError: there is none. SchemaVersionError: it is newer than this program.
            StorageCorruptError: the file is not a ledger. StorageError: it cannot be read or written.
        """
        path = directory / FILE_NAME
        if not path.is_file():
            raise StoreNotFoundError("there is no ledger in the data directory")
        require_own_logs(path)
        return cls(path, hooks, config, vfs)

    # -- writing ------------------------------------------------------------------------------
    def commit(self, batch: WriteBatch) -> list[int]:
        """Write a batch, all or nothing; durable on return.

        Returns:
            The sequence numbers of the puts, in order; 0 for a put that was left out because its
            memory was changed or deleted meanwhile.

        Raises:
            NamespaceNotFoundError: a namespace was never made. ConflictError: it was made already.
            DuplicateMemoryError, VersionConflictError: ``expect`` does not hold.
            StorageError: nothing was written.
        """
        return self._group.submit(batch)  # type: ignore[return-value]

    def queue_mark(self, items: Sequence[QueueItem], *, error_code: str, dead: bool) -> int:
        """Note a failed attempt for those items whose version is still queued; how many they were."""
        return self._group.submit(mark(items, error_code, dead))  # type: ignore[return-value]

    def requeue(self, namespaces: Sequence[int] | None = None, telling: Telling[int] | None = None) -> int:
        """Give the dead items (of these namespaces) another chance; how many they were.

        ``telling``, here and below: the entry of the audit log, which is in the same transaction.

        Raises:
            OutdatedError: what the entry relies on has changed. StorageError. Nothing was written.
        """
        return self._group.submit(counted(requeue(namespaces), telling))  # type: ignore[return-value]

    def reset_head(self, ns: int, telling: Telling[int] | None = None) -> int:
        """Seal a head over the rows that are there, whatever is missing; how many rows there are.

        This gives up the evidence of tampering: for a repair that somebody has asked for.

        Raises:
            NamespaceNotFoundError: the namespace was never made. StorageError: nothing was written.
        """
        return self._group.submit(counted(ResetHead(ns), telling))  # type: ignore[return-value]

    def rebase(
        self, ns: int, make: Callable[[int, bytes, Rows, SealedOf], tuple[bytes, list[Renamed]]]
    ) -> int:
        """Give a namespace a head under another purpose root, and some of its rows other ids; how many.

        ``make`` gets seq, head, every row and a way to the sealed bytes of one, inside the transaction.

        Raises:
            NamespaceNotFoundError: the namespace was never made. What ``make`` raises, StorageError:
            nothing was written.
        """
        return self._group.submit(Rebase(ns, make))  # type: ignore[return-value]

    def _write(self, take: Take[Work]) -> None:
        """Write what stands in line as one transaction; one by one when they cannot go together.

        What their batches lack is made first, for all of them, those included who come while it is made.
        """
        limit = self._config.group_items_max
        tickets = more = take(limit)
        while _fill(more) and len(tickets) < limit:
            more = take(limit - len(tickets))
            tickets = tickets + more
        if not self._together(tickets, take):
            for ticket in tickets:
                if not ticket.settled:
                    self._together([ticket], None)

    def _together(self, tickets: list[Ticket[Work]], take: Take[Work] | None) -> bool:
        """One transaction for ``tickets`` (which grows). False: one of them spoils it for the others.

        Without ``take`` it is the second attempt, with one ticket.
        """
        connection = None
        try:
            connection = self._writer_connection()
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self._hooks, is_trusting=take is not None)
            done = self._apply(transaction, tickets, take)
            transaction.finish()
            connection.execute("COMMIT" if done else "ROLLBACK")
            self._wrote_last = get_ident()
            for ticket, result in done:
                ticket.settle(result)
        except HalfWrittenError as e:
            if take is not None:
                return False
            tickets[0].fail(e.error)
        except apsw.Error as e:
            _fail_all(tickets, translate(e, connection))
            self._drop_after(e)
        except StorageError as e:
            _fail_all(tickets, e)
        finally:
            if connection is not None:
                self._roll_back(connection)
        return True

    def _apply(
        self, transaction: Transaction, tickets: list[Ticket[Work]], take: Take[Work] | None
    ) -> list[tuple[Ticket[Work], object]]:
        """Apply the tickets and those that arrive meanwhile; the ones that fit, with their results."""
        done: list[tuple[Ticket[Work], object]] = []
        start = 0
        while start < len(tickets):
            _fill(tickets[start:])
            for ticket in tickets[start:]:
                if ticket.settled:
                    continue
                try:
                    done.append((ticket, transaction.run(ticket.work)))
                except (apsw.Error, HalfWrittenError):
                    raise
                except Exception as e:  # noqa: BLE001 (nothing was written: it is this caller's own, as it is)
                    ticket.fail(e)
            start = len(tickets)
            room = self._config.group_items_max - start
            if take is not None and room > 0:
                tickets += take(room)
        return done

    def _writer_connection(self) -> apsw.Connection:
        if self._writer is None:
            writer = self._connect(CACHE_KIB_WRITER)
            writer.set_wal_hook(self._checkpointer.on_commit)
            self._writer = writer
        return self._writer

    def _roll_back(self, connection: apsw.Connection) -> None:
        if connection is self._writer and connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except apsw.Error as e:
                self._drop_after(e, always=True)

    def _drop_after(self, error: apsw.Error, *, always: bool = False) -> None:
        """After an error of the device trust no cached page: the next write opens the file anew.

        A file that could not be opened for writing at some moment (no more descriptors, a file system that
        was read-only) is open for reading alone until its connection ends; the memory that all connections
        of the process share, until every one of them has.
        """
        if always or isinstance(error, apsw.IOError | apsw.CorruptError | apsw.ReadOnlyError):
            self._drop_writer()
        if isinstance(error, apsw.ReadOnlyError):
            self._pool.renew()
            self._checkpointer.renew()

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(apsw.Error):
                writer.close(True)

    # -- reading ------------------------------------------------------------------------------
    def _quick(self, read: Callable[..., T], *arguments: object) -> T:
        """A short read, on the writer's connection when that is at hand, else on one of the pool.

        A commit makes every connection but its own read its pages from the log or the file anew. Only the
        thread that wrote last reads here: threads that write at the same time do not wait for it.
        """
        if self._wrote_last != get_ident():
            return self._pool.run(read, *arguments)
        found: list[T] = []
        if self._group.try_alone(lambda: found.append(self._read_as_writer(read, *arguments))):
            return found[0]
        return self._pool.run(read, *arguments)

    def _read_as_writer(self, read: Callable[..., T], *arguments: object) -> T:
        connection = self._writer_connection()
        try:
            return read(connection, *arguments)
        except apsw.Error as e:
            own = translate(e, connection)
            self._drop_writer()
            raise own from None
        except StrongroomError:
            raise
        except BaseException:  # see ReadPool.run: a cursor that is still alive would hold it at this state
            self._drop_writer()
            raise

    def head(self, ns: int) -> tuple[int, bytes]:
        """``(seq, sealed head)`` of a namespace. NamespaceNotFoundError."""
        return self._quick(_read.read_head, ns)

    def changes(self, ns: int, after: int, limit: int) -> list[SealedRecord]:
        """Rows with a seq above ``after``, ordered by seq, at most ``limit``; tombstones included."""
        return self._pool.run(_read.read_changes, ns, after, limit)

    def headers(self, ns: int, after: int, limit: int) -> list[RowHeader]:
        """Rows above ``after`` in order of seq, at most ``limit``, without their contents."""
        return self._pool.run(_read.read_headers, ns, after, limit)

    def get(self, ns: int, memory_id: bytes, field: int = _MEMORY) -> SealedRecord | None:
        """One row, or None. A tombstone is a row."""
        return self._pool.run(_read.read_one, ns, memory_id, field)

    def get_many(self, ns: int, memory_ids: Sequence[bytes], field: int = _MEMORY) -> list[SealedRecord]:
        """The rows that exist, in the order of ``memory_ids``, of one state."""
        with self.snapshot() as snapshot:
            return snapshot.get_many(ns, memory_ids, field)

    def get_parts(self, ns: int, memory_ids: Sequence[bytes], fields: Sequence[int]) -> list[SealedRecord]:
        """The rows of one or two fields of each memory, in any order, of one state."""
        if len(memory_ids) <= _read.PARTS_MAX:
            return self._quick(_read.read_parts, ns, memory_ids, fields)
        with self.snapshot() as snapshot:
            return snapshot.get_parts(ns, memory_ids, fields)

    def iter_changes(self, ns: int, after: int = 0, page: int = 2000) -> Iterator[SealedRecord]:
        """All rows above ``after`` in order of seq, ``page`` rows in memory at a time.

        Each page is a state of its own: a row that changes meanwhile comes again with its new seq.
        """
        while rows := self.changes(ns, after, page):
            yield from rows
            after = rows[-1].seq

    def snapshot(self) -> _read.Snapshot:
        """Several reads of one state: ``with ledger.snapshot() as s: s.head(1); s.iter_changes(1)``."""
        return _read.Snapshot(self._pool)

    def namespaces(self) -> list[int]:
        """The numbers of all namespaces, ascending."""
        return self._pool.run(_read.read_namespaces)

    def queue(
        self, *, ns: int | None = None, dead: bool | None = None, after: int = 0, limit: int = 100
    ) -> list[QueueRow]:
        """Items of the embedding queue with an id above ``after``, in order of arrival.

        ``after`` pages within one sweep; each sweep begins at 0.
        """
        return self._pool.run(_read.read_queue, ns, dead, after, limit)

    def queue_turns(self, *, after_ns: int, namespaces_max: int, limit: int) -> tuple[list[QueueRow], int]:
        """Some items that wait of each of the next namespaces, in no order; and where to go on (0: at the
        beginning)."""
        return self._pool.run(_read.read_queue_turns, after_ns, namespaces_max, limit)

    def queue_stats(self, ns: int | None = None) -> QueueStats:
        """How many items wait, and how many were given up."""
        return self._pool.run(_read.read_queue_stats, ns)

    def counts(self, ns: int, model: int, without: Sequence[int] = ()) -> tuple[int, int]:
        """How many live memories there are, and how many have a vector of their content by this model.

        ``without``: rows under these keys do not count.
        """
        return self._pool.run(_read.read_counts, ns, model, without)

    def unembedded(self, ns: int, after: int = 0, limit: int = 100) -> list[tuple[int, QueueItem]]:
        """``(seq, item)`` of live memories above seq ``after`` that have neither a vector of their content
        nor a place in the queue."""
        return self._pool.run(_read.read_unembedded, ns, after, limit)

    def audit_entries(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """``(seq, sealed)`` of the audit entries above ``after``, ascending."""
        return self._pool.run(_read.read_audit, after, limit)

    def audit_count(self) -> int:
        """The number of the last audit entry, which is how many there are."""
        return self._pool.run(_read.read_audit_count)

    def audit_nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """The hashes of those subtrees ``(level, position)`` of the audit log that are stored."""
        return self._pool.run(_read.read_audit_nodes, wanted)

    def check(self) -> list[Finding]:
        """Examine the structure of the whole file; reads everything, changes nothing."""
        connection = self._pool.take()
        try:
            return check_ledger(connection)
        finally:
            self._pool.end(connection)

    # -- upkeep -------------------------------------------------------------------------------
    def checkpoint(self) -> None:
        """Copy the write-ahead log into the database file and empty it, as far as readers allow."""
        if self._closed:
            raise ClosedError()
        self._checkpointer.now()

    def close(self) -> None:
        """Finish what was begun and let go of the file. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._group.close()
        self._checkpointer.close()
        self._pool.close()
        self._drop_writer()  # what it cannot copy into the file stays in the log

    def __enter__(self) -> SqliteLedger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, cache_kib: int | None = None) -> apsw.Connection:
        timeout_ms = self._config.busy_timeout_ms
        if cache_kib is None:
            return connect(self._path, busy_timeout_ms=timeout_ms, vfs=self._vfs)
        return connect(self._path, busy_timeout_ms=timeout_ms, vfs=self._vfs, cache_kib=cache_kib)


def _fill(tickets: list[Ticket[Work]]) -> bool:
    """Have those batches completed that lack something, one that cannot be fails; whether there were any."""
    waiting = [t for t in tickets if isinstance(t.work, WriteBatch) and t.work.filling is not None]
    if not waiting:
        return False
    batches = [cast(WriteBatch, t.work) for t in waiting]
    errors = cast(Filling, batches[0].filling).fill(batches)
    for ticket, batch, error in zip(waiting, batches, errors, strict=True):
        batch.filling = None
        if error is not None:
            ticket.fail(error)
    return True


def _fail_all(tickets: list[Ticket[Work]], error: StrongroomError) -> None:
    """Each caller gets an error object of its own."""
    for ticket in tickets:
        if not ticket.settled:
            ticket.fail(type(error)(error.message, hint=error.hint))
