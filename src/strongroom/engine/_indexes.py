"""Which namespaces have their index in memory, and how an index keeps up with the ledger.

A commit of this process offers its change with its number; changes of other processes leave a gap, which is
filled by reading the ledger. A query first takes in everything up to the namespace's head, so it sees
every write that was acknowledged before it began, whoever made it.

An index comes from the newest snapshot and the ledger's changes since then, or from the whole ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING

from strongroom.engine._changes import change_of, upsert_of
from strongroom.engine._collector import collector_paused
from strongroom.engine._keeper import Keeper
from strongroom.engine._large_pages import LargePages
from strongroom.engine._reading import Reading, pages
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._residency import Residency
from strongroom.engine._slot import Slot
from strongroom.engine._snapshots import Restored
from strongroom.errors import (
    IntegrityError,
    InternalError,
    InvalidVectorError,
    KeyManagementError,
    KeyStateError,
    StorageError,
    StrongroomError,
    TamperedError,
    failure_of,
)
from strongroom.ledger import QueueItem, WriteBatch, element_of
from strongroom.locks import work_under
from strongroom.model import Field, Filter, Memory, SealedRecord, State
from strongroom.recall import (
    Change,
    ColumnarStore,
    NamespaceIndex,
    RecallSettings,
    Remove,
    Upsert,
)
from strongroom.recall.sql import SqlEngine

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_PENDING_MAX = 4096  # changes that wait; a thread that takes them in sooner slows who writes much
_APPLY_ROWS = 4096
_QUEUE_PAGE = 5000


class Indexes:
    """All namespace indexes of a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._columnar = ColumnarStore(
            memory_limit=engine.config.recall.memory_limit,
            where_bytes_max=engine.config.limits.where_bytes_max,
            sql_timeout_ms=engine.config.limits.sql_timeout_ms,
        )
        self.sql = SqlEngine(
            self._columnar, engine.config.limits, match_min=engine.config.recall.semantic_match_min
        )
        self._lock = Lock()
        self._slots: dict[int, Slot] = {}
        self._keeper = Keeper(engine, self)
        self.snapshots = self._keeper.snapshots
        self.tend, self.load_ahead = self._keeper.tend, self._keeper.load_ahead
        self.wait_verified = self._keeper.wait_verified
        self.discard_snapshots = self._keeper.discard
        self._table_numbers = count(1)
        self.residency = Residency(engine, self)
        self.reading = Reading(engine)
        wanted = engine.config.recall.large_pages
        self._large_pages = LargePages(engine.metrics.large_page_bytes.set, wanted=wanted)

    def _slot(self, ns: int) -> Slot:
        slot = self._slots.get(ns)
        if slot is None:
            with self._lock:
                slot = self._slots.setdefault(ns, Slot())
        return slot

    def is_loaded(self, ns: int) -> bool:
        """Whether a commit of this process has to be offered; a later load reads it from the ledger."""
        slot = self._slots.get(ns)
        return slot is not None and slot.index is not None

    def loaded_index(self, ns: int) -> NamespaceIndex | None:
        """The index of a namespace if it is in memory, as it is."""
        slot = self._slots.get(ns)
        return None if slot is None else slot.index

    def offer(self, ns: int, change: Change) -> None:
        """Hand over what a commit of this process has written, under its number."""
        slot = self._slots.get(ns)
        if slot is not None:
            self._offer(slot, slot.pending, change)

    def _offer(self, slot: Slot, pending: dict[int, Change], change: Change) -> None:
        """``pending`` is the slot's from before the index was looked at that the change was made for."""
        if slot.index is None:
            return  # the load will read it
        pending[change.seq] = change
        if (waiting := len(slot.pending)) <= _PENDING_MAX:
            return
        if work_under(slot.lock, partial(self._take_in, slot)):
            return
        if waiting > 4 * _PENDING_MAX:  # whoever holds the lock does not come to an end
            slot.pending = {}
        else:  # whoever writes does not wait for it
            slot.beside(partial(self._take_beside, slot))

    def _take_beside(self, slot: Slot) -> None:
        with slot.lock:
            self._take_in(slot)

    def _take_in(self, slot: Slot) -> None:
        """Take in much that was offered; behind a commit, so it fails nobody. Needs the slot's lock."""
        if slot.index is not None:
            failure = failure_of(partial(self._take_offered, slot))
            if failure:  # whoever asks reads the ledger, and is told
                self._engine.log.warning("changes_not_taken_in", code=failure)
        if len(slot.pending) > _PENDING_MAX:  # a gap of another process: the ledger has them all
            slot.pending = {}

    def offer_memory(self, entry: NamespaceEntry, memory: Memory, seq: int, content_version: int) -> None:
        """``offer`` a memory that is new or changed."""
        slot = self._slots.get(entry.ns)
        if slot is None:
            return
        pending = slot.pending  # first: another index, whose words may be blinded otherwise, has another one
        index = slot.index
        if index is not None:
            with suppress(KeyManagementError):  # the key of its words ended meanwhile: who asks is told
                self._offer(slot, pending, upsert_of(index, entry, memory, seq, content_version))

    def ready(self, entry: NamespaceEntry) -> NamespaceIndex:
        """The index of a namespace, holding everything acknowledged before this call.

        Raises:
            TamperedError: the rows do not match the namespace's head.
        """
        try:
            self._engine.vault.keyring.require_usable(entry.ns)
        except KeyManagementError:  # what was opened with a key that may not be used is not shown either
            self.drop(entry.ns)
            raise
        slot = self._slot(entry.ns)
        if slot.tampered:
            raise TamperedError("the rows of a namespace do not match its head")
        seq, _ = self._engine.ledger.head(entry.ns)
        self.residency.used(entry.ns)
        index = slot.index
        if index is not None and index.watermark >= seq and self._fits(slot, entry):
            return index
        fresh: NamespaceIndex | None = None
        with slot.lock:
            if slot.index is not None and not self._fits(slot, entry):
                self._unload(slot)
            if slot.index is None:
                built_for = self._settings(entry)
                slot.index = self._load(entry)
                slot.built_for, slot.entry = built_for, entry
                watermark = slot.index.watermark
                slot.pending = {s: c for s, c in list(slot.pending.items()) if s > watermark}
                fresh = slot.index
            if slot.index.watermark < seq:
                self._take_offered(slot)
            if slot.index.watermark < seq:
                self._read_gap(slot, entry)
            index = slot.index
        if fresh is index:
            self.residency.loaded(entry.ns, index)  # without the lock: others may have to go
        return index

    def _settings(self, entry: NamespaceEntry) -> tuple[int, str, bool, int]:
        """What an index is built for; its words are blinded under the purpose root."""
        root = self._engine.vault.keyring.root(entry.ns)
        return entry.model_no, entry.language, entry.sealed, root

    def _fits(self, slot: Slot, entry: NamespaceEntry) -> bool:
        """Whether the index was built for the namespace's present settings and is whole."""
        index = slot.index  # once: without the lock somebody may take it away at any moment
        if index is None or slot.built_for != self._settings(entry):
            return False
        try:
            index.check_usable()
        except InternalError:
            return False
        return True

    def check_where(self, wanted: Filter) -> None:
        """Refuse a malformed expression, whether or not there is anything to filter.

        Raises:
            InvalidFilterError: it is not one boolean expression over the columns of a memory.
        """
        if isinstance(wanted.where, str) and wanted.where.strip():
            self._columnar.checker.check(wanted.where)

    def where_columns(self, wanted: Filter) -> frozenset[str]:
        """The columns that the filter's expression looks at.

        Raises:
            InvalidFilterError: as ``check_where``.
        """
        if isinstance(wanted.where, str) and wanted.where.strip():
            return self._columnar.checker.check(wanted.where).columns
        return frozenset()

    def seq_seen(self, ns: int, memory_id: bytes) -> int | None:
        """The newest number of a live memory that a loaded index knows; None when none is loaded."""
        index = self.loaded_index(ns)
        return None if index is None else index.seq_of(memory_id)

    def loaded(self) -> int:
        return sum(1 for s in list(self._slots.values()) if s.index is not None)

    def observe(self) -> None:
        """Keep the gauges of the loaded indexes fresh."""
        indexes = [index for slot in list(self._slots.values()) if (index := slot.index) is not None]
        sampled = [recall for index in indexes if (recall := index.sampled_recall) is not None]
        metrics = self._engine.metrics
        self.residency.tend()
        index_bytes = self.residency.total_bytes()
        metrics.index_bytes.set(index_bytes)
        self._large_pages.tend(index_bytes)
        metrics.loaded_namespaces.set(len(indexes))
        metrics.recall_sampled.set(min(sampled, default=1.0))
        reads = Counter(index.vectors.reads for index in indexes if index.vectors is not None)
        for what in ("all", "codes", "vectors"):
            metrics.vector_lanes.labels(what).set(reads[what])

    def loaded_entries(self, rows_min: int = 0) -> list[tuple[NamespaceEntry, NamespaceIndex]]:
        """The namespaces of so many memories whose index is there and may be trusted."""
        return [
            (entry, index)
            for slot in list(self._slots.values())
            if (index := slot.index)
            and (entry := slot.entry)
            and index.memories >= rows_min
            and self._fits(slot, entry)
            and not slot.tampered
        ]

    def drop(self, ns: int) -> None:
        """Forget the index of a namespace and its snapshots; the next query builds it from the ledger."""
        try:
            self.discard_snapshots(ns)
        except StorageError as e:  # what stays fits no more, or is verified when it is read
            self._engine.log.warning("snapshots_not_discarded", ns=ns, code=e.code)
        slot = self._slots.get(ns)
        if slot is not None:
            with slot.lock:
                self._unload(slot)
                self.residency.gone(ns)
                slot.tampered = False

    def detach(self, ns: int, index: NamespaceIndex) -> None:
        """Use this index no more, unless another one has taken its place; it is closed by ``let_go``."""
        slot = self._slots.get(ns)
        if slot is not None:
            with slot.lock:
                if slot.index is index:
                    slot.index, slot.built_for, slot.pending = None, None, {}
                    self.residency.gone(ns)

    def is_busy(self, ns: int) -> bool:
        """Whether a namespace is just being verified or written to a snapshot."""
        return self._keeper.is_busy(ns)

    @staticmethod
    def let_go(index: NamespaceIndex) -> None:
        """Close an index that was detached."""
        _discard(index)

    def mark_tampered(self, ns: int, index: NamespaceIndex) -> None:
        """Refuse every question to a namespace whose rows do not match its head, until it is dropped."""
        slot = self._slots.get(ns)
        if slot is None:
            return
        with slot.lock:
            if slot.index is not index or slot.tampered:
                return
            slot.tampered = True
        self._engine.metrics.tampered.inc()
        self._engine.log.error("namespace_tampered", ns=ns)

    @staticmethod
    def _unload(slot: Slot) -> None:
        """Needs the slot's lock."""
        index, slot.index, slot.built_for, slot.pending = slot.index, None, None, {}
        if index is not None:
            _discard(index)

    def close(self) -> None:
        """Finish what the snapshots need, and forget every index."""
        self._large_pages.close()
        self._keeper.close()
        self.residency.close()
        for slot in list(self._slots.values()):
            with slot.lock:
                self._unload(slot)
            slot.wait()
        self.sql.close()
        self._columnar.close()

    # -- keeping up -------------------------------------------------------------------------------------
    def _take_offered(self, slot: Slot) -> None:
        index = slot.index
        assert index is not None
        seq = index.watermark
        changes: list[Change] = []
        pending = slot.pending
        while seq + 1 in pending:
            seq += 1
            changes.append(pending.pop(seq))
        if seq > index.watermark:
            self._apply(index, changes, seq)

    def _read_gap(self, slot: Slot, entry: NamespaceEntry) -> None:
        index = slot.index
        assert index is not None
        while rows := self._engine.ledger.changes(entry.ns, index.watermark, _APPLY_ROWS):
            changes = [c for row in rows if (c := self._change(index, entry, row)) is not None]
            self._apply(index, changes, rows[-1].seq)
            for seq in [s for s in list(slot.pending) if s <= index.watermark]:
                slot.pending.pop(seq, None)
        index.settle()

    def _apply(self, index: NamespaceIndex, changes: Sequence[Change], seq: int) -> None:
        """Hand changes to an index; a vector that it refuses is left out."""
        if any(type(c) is Remove or (type(c) is Upsert and c.memory.version > 1) for c in changes):
            self._keeper.note_removals(index.ns)
        try:
            index.apply(changes, seq)
        except InvalidVectorError:
            pass
        else:
            return
        refused = 0
        for change in changes:
            try:
                index.apply((change,), min(change.seq, seq))
            except InvalidVectorError:
                refused += 1
        index.apply((), seq)
        self._engine.metrics.unreadable.labels("vector").inc(refused)
        self._engine.log.error("vectors_refused", ns=index.ns, count=refused)

    def _change(self, index: NamespaceIndex, entry: NamespaceEntry, row: SealedRecord) -> Change | None:
        """What a row means for the index; one that does not open is noted, and a memory then left out."""
        try:
            return change_of(self._engine.vault, index, entry, row)
        except (IntegrityError, KeyStateError) as e:
            self._unreadable(entry, row, e.code)
            damaged = isinstance(e, IntegrityError)
            return Remove(row.memory_id, row.seq, damaged) if row.field == Field.MEMORY else None

    def forget_unreadable(
        self, entry: NamespaceEntry, index: NamespaceIndex, row: SealedRecord, error: StrongroomError
    ) -> None:
        """Take a memory that does not open any more out of an index; the ledger keeps its row.

        Where the key was destroyed that is as it should be; what is damaged is told with every answer.
        """
        self._unreadable(entry, row, error.code)
        change = Remove(row.memory_id, row.seq + 1, isinstance(error, IntegrityError))
        index.apply((change,), index.watermark)

    def _unreadable(self, entry: NamespaceEntry, row: SealedRecord, code: str) -> None:
        field = Field(row.field).name.lower()
        self._engine.metrics.unreadable.labels(field).inc()
        self._engine.log.error("row_unreadable", ns=entry.ns, field=field, seq=row.seq, code=code)

    # -- loading ----------------------------------------------------------------------------------------
    def _load(self, entry: NamespaceEntry) -> NamespaceIndex:
        """Take an index from a snapshot, or build it from all rows and compare them with the head."""
        started = perf_counter()
        with collector_paused():
            restored = self._restore(entry)
            index = self._new_index(entry) if restored is None else restored.index
            try:
                if restored is None:
                    self._fill(index, entry)
                else:
                    index.settle()
                self._keeper.loaded(entry, index, restored, perf_counter() - started)
            except BaseException:
                _discard(index)
                raise
        return index

    def _restore(self, entry: NamespaceEntry) -> Restored | None:
        """An index out of a snapshot. Its rows are compared with the head in the background."""
        engine = self._engine
        if not engine.config.recall.snapshots:
            return None
        started = perf_counter()
        restored = self.snapshots.restore(entry, lambda: self._new_index(entry), _discard)
        if restored is None:
            return None
        try:
            seq, head = engine.ledger.head(entry.ns)
            engine.heads.open_head(entry.ns, head, seq)
        except BaseException:
            _discard(restored.index)
            raise
        engine.metrics.snapshots.labels("loaded").inc()
        engine.metrics.step("load_snapshot", perf_counter() - started)
        return restored

    def _fill(self, index: NamespaceIndex, entry: NamespaceEntry) -> None:
        started = perf_counter()
        engine = self._engine
        index.loading = True
        with engine.ledger.snapshot() as reader:
            seq, head = reader.head(entry.ns)
            total = engine.heads.open_head(entry.ns, head, seq)
            summed = engine.heads.summer(entry.ns, head)
            with self.reading.of(entry.ns, seq) as passed:
                for rows in pages(reader.iter_changes(entry.ns), _APPLY_ROWS):
                    changes: list[Change] = []
                    for row in rows:
                        summed.add(element_of(row))
                        change = self._change(index, entry, row)
                        if change is not None:
                            changes.append(change)
                    self._apply(index, changes, rows[-1].seq)
                    passed(rows[-1].seq)
        if not summed.matches(total):
            raise TamperedError("the rows of a namespace do not match its head")
        index.apply([], seq)
        index.loading = False
        index.settle()
        waiting = index.unembedded() if engine.models.embeds(entry) else {}
        if waiting:
            self.requeue_lost(entry, waiting, seq)
        engine.metrics.step("load_namespace", perf_counter() - started)

    def requeue_lost(self, entry: NamespaceEntry, waiting: dict[bytes, int], seq: int) -> None:
        """Queue memories whose vector was missing or unreadable at ``seq`` and that nobody queued (P1.4)."""
        ledger = self._engine.ledger
        after = 0
        while page := ledger.queue(ns=entry.ns, after=after, limit=_QUEUE_PAGE):
            for item in page:
                if waiting.get(item.memory_id) == item.content_version:
                    del waiting[item.memory_id]
            after = page[-1].id
        for few in pages(list(waiting), _APPLY_ROWS):
            for row in ledger.get_many(entry.ns, few, Field.VECTOR):
                is_new = row.seq > seq and row.state == State.LIVE and row.model == entry.model_no
                if is_new and row.content_version == waiting[row.memory_id]:
                    del waiting[row.memory_id]
        if waiting:
            ledger.commit(WriteBatch(enqueue=[QueueItem(entry.ns, m, v) for m, v in waiting.items()]))
            self._engine.log.warning("vectors_lost_and_queued", ns=entry.ns, count=len(waiting))
            self._engine.models.wake()

    def _new_index(self, entry: NamespaceEntry) -> NamespaceIndex:
        engine = self._engine
        key = engine.vault.purpose_key(entry.ns, "blind-index")

        def blind(stems: Sequence[str]) -> list[int]:
            return [int.from_bytes(key.mac(s.encode())[:8]) for s in stems]

        return NamespaceIndex(
            # A number never used before: what an interrupted load has left behind is in nobody's way.
            self._columnar.table(next(self._table_numbers), entry.name, sealed=entry.sealed),
            blind,
            RecallSettings.from_config(engine.config.recall, language=entry.language, namespace=entry.name),
            ns=entry.ns,
            dimensions=engine.models.dimensions(entry),
        )


def _discard(index: NamespaceIndex) -> None:
    index.close()
    index.table.drop()
