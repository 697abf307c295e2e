"""When snapshots are written and verified: the policy, and the threads that carry it out.

After a warm start one thread compares all rows of the ledger with the head and with the snapshot, and
opens every row, while searches go on; a cold load does the same before its first answer. Writing goes on
beside searches too, at a quarter of its speed, and at the end of the process for a bounded time.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Protocol

from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._snapshots import Restored, SnapshotFile, Snapshots
from strongroom.engine._survey import take_survey
from strongroom.errors import (
    ClosedError,
    IntegrityError,
    KeyStateError,
    NamespaceNotFoundError,
    StorageError,
    StrongroomError,
    cause_of,
    failure_of,
    require_thread,
    thread_started,
)
from strongroom.model import Field, State
from strongroom.recall import Learnt, NamespaceIndex, give_back, learnt_of

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_REST_S_MAX = 0.25
_GRACE_S = 1.0
_START_S = 0.5  # the first answer goes before its verification
_SWEEP_PARTS = 8  # of the time that a stale snapshot may stay
_RESTS = 3  # that many times as long as was worked: two cores also have searches and their helper to run
_DUTY = 20  # a snapshot is not written more often than this many times as long as its work took
_ROW_S = 30e-6  # that a row costs, when no snapshot of the namespace was written yet
_LEARNT_S = 60.0  # what was learnt is written this often, and at the end
_HEADERS_PAGE = 2000
_OPEN_PAGE = 100


class _GivenUpError(Exception):
    """The work is not wanted any more."""


class Projected(Protocol):
    """What the keeper needs of the indexes of a process."""

    def loaded_entries(self, rows_min: int = 0) -> list[tuple[NamespaceEntry, NamespaceIndex]]: ...
    def ready(self, entry: NamespaceEntry) -> NamespaceIndex: ...
    def mark_tampered(self, ns: int, index: NamespaceIndex) -> None: ...
    def detach(self, ns: int, index: NamespaceIndex) -> None: ...
    def let_go(self, index: NamespaceIndex) -> None: ...
    def requeue_lost(self, entry: NamespaceEntry, waiting: dict[bytes, int], seq: int) -> None: ...


class _Pace:
    """Rests ``rests`` times as long as was worked, unless somebody waits; gives up when told to, or when time
    is up."""

    def __init__(self, stop: Event, hurry: Event, rests: int = 1) -> None:
        self._stop = stop
        self._hurry = hurry
        self._rests = rests
        self.worked_s = 0.0
        self.deadline: float | None = None  # when set, ``stop`` alone does not end the work

    def __call__(self, worked_s: float) -> None:
        self.worked_s += worked_s
        if self.deadline is not None:
            if monotonic() >= self.deadline:
                raise _GivenUpError
            return
        if not self._hurry.is_set():
            self._stop.wait(min(self._rests * worked_s, _REST_S_MAX))
        if self._stop.is_set() and self.deadline is None:
            raise _GivenUpError


@dataclass(slots=True)
class _Kept:
    """What is known of one namespace's snapshot on disk."""

    seq: int | None = None
    made_us: int = 0
    removals: bool = False  # it holds texts that were deleted or replaced since
    not_before_s: float = 0.0  # monotonic
    lists: int = 0  # for how many vectors its lists were made
    learnt: Learnt | None = None  # that is in it, or beside it
    learnt_at_s: float = 0.0  # monotonic: to be looked at again
    work_s: float | None = None  # that writing it took
    read_s: float = 0.0  # that reading the rows took, when there was no snapshot


class Keeper:
    """Looks after the snapshots of the namespaces that a process has loaded."""

    def __init__(self, engine: Engine, indexes: Projected) -> None:
        self._engine = engine
        self._config = engine.config.recall
        self._indexes = indexes
        self.snapshots = Snapshots(engine)
        self._kept: dict[int, _Kept] = {}
        self._lock = Lock()
        self._stop = Event()
        self._hurry = Event()
        self._verifying: dict[int, Thread] = {}
        self._writer: Thread | None = None
        self._writing: tuple[int, _Pace] | None = None
        self._sweep_at_s = 0.0
        self._ahead: Thread | None = None

    # -- what the indexes tell ------------------------------------------------------------------------
    def loaded(
        self, entry: NamespaceEntry, index: NamespaceIndex, restored: Restored | None, took_s: float
    ) -> None:
        """A namespace was loaded: from its snapshot, which is then verified, or from the ledger.

        Raises:
            LimitExceededError: there is no thread that could verify it.
        """
        kept = _Kept(not_before_s=monotonic())
        self._kept[entry.ns] = kept
        if restored is None:
            kept.read_s = took_s
            return
        kept.seq, kept.made_us, kept.lists = restored.seq, restored.made_us, _lists_of(index)
        kept.learnt = learnt_of(index)
        thread = Thread(
            target=self._verify, args=(entry, index, restored), name="strongroom-verify", daemon=False
        )
        with self._lock:
            if self._stop.is_set():
                return
            require_thread(thread)
            self._verifying[entry.ns] = thread

    def load_ahead(self, entry: NamespaceEntry) -> None:
        """Begin to load a namespace for a caller who has something else to do first; one at a time."""
        with self._lock:
            if self._stop.is_set() or (self._ahead is not None and self._ahead.is_alive()):
                return
            ahead = Thread(target=self._load_ahead, args=(entry,), name="strongroom-ahead", daemon=False)
            self._ahead = ahead if thread_started(ahead) else None

    def _load_ahead(self, entry: NamespaceEntry) -> None:
        failure = failure_of(partial(self._indexes.ready, entry))
        if failure:  # who asks loads it, and is told
            self._engine.log.warning("namespace_not_loaded_ahead", ns=entry.ns, code=failure)

    def note_removals(self, ns: int) -> None:
        """A text of the namespace was deleted or replaced, so its snapshot must not stay for long."""
        kept = self._kept.get(ns)
        if kept is not None:
            kept.removals = True

    def wait_verified(self, timeout_s: float) -> bool:
        """Wait for the verifications that run; False when the time was up."""
        until = monotonic() + timeout_s
        self._hurry.set()
        try:
            for thread in list(self._verifying.values()):
                thread.join(max(0.0, until - monotonic()))
                if thread.is_alive():
                    return False
            return True
        finally:
            self._hurry.clear()

    # -- verification ---------------------------------------------------------------------------------
    def _verify(self, entry: NamespaceEntry, index: NamespaceIndex, restored: Restored) -> None:
        engine = self._engine
        self._hurry.wait(_START_S)
        started = perf_counter()
        pace = _Pace(self._stop, self._hurry)
        try:
            pace(0.0)
            survey = take_survey(engine.ledger, engine.heads, entry, pace)
            if not survey.matches:
                self._indexes.mark_tampered(entry.ns, index)
            elif not survey.agrees(restored.seq, restored.ids, restored.seqs, restored.prints):
                self._rebuild(entry, index, "history")
            else:
                if survey.unembedded and engine.models.embeds(entry):
                    self._indexes.requeue_lost(entry, survey.unembedded, survey.seq)
                if not self._all_open(entry, survey.seq, pace):
                    self._rebuild(entry, index, "rows that do not open")
            engine.metrics.step("verify_namespace", perf_counter() - started)
        except (_GivenUpError, ClosedError):
            return
        except IntegrityError:
            self._indexes.mark_tampered(entry.ns, index)
        except Exception as e:  # noqa: BLE001 - a snapshot that cannot be verified is not used: build anew
            engine.log.error("namespace_not_verified", ns=entry.ns, code=cause_of(e))
            self._rebuild(entry, index, "not verified")

    def _all_open(self, entry: NamespaceEntry, up_to: int, pace: _Pace) -> bool:
        """Whether every memory and vector opens; a cold load would have opened them all."""
        engine = self._engine
        after = 0
        while after < up_to:
            started = perf_counter()
            rows = engine.ledger.changes(entry.ns, after, _OPEN_PAGE)
            for row in rows:
                if row.state != State.LIVE or row.field not in (Field.MEMORY, Field.VECTOR):
                    continue
                if row.field == Field.VECTOR and row.model != entry.model_no:
                    continue
                try:
                    engine.vault.open(entry.tenant, row)
                except (IntegrityError, KeyStateError):
                    return False
            if not rows:
                break
            after = rows[-1].seq
            pace(3 * (perf_counter() - started))
        return True

    def _rebuild(self, entry: NamespaceEntry, index: NamespaceIndex, why: str) -> None:
        """The snapshot was not what the ledger says: build from the ledger, as if there were none."""
        engine = self._engine
        engine.metrics.snapshots.labels("refuted").inc()
        engine.log.warning("snapshot_refuted", ns=entry.ns, why=why)
        try:
            self.snapshots.discard(entry.ns)
        except StrongroomError as e:
            engine.log.warning("snapshots_not_discarded", ns=entry.ns, code=e.code)
        self._indexes.detach(entry.ns, index)
        try:
            if not self._stop.is_set():
                self._indexes.ready(entry)
        except StrongroomError as e:  # the next question raises it
            engine.log.warning("namespace_not_rebuilt", ns=entry.ns, code=e.code)
        self._stop.wait(_GRACE_S)  # questions that were put to the old index may end
        self._indexes.let_go(index)

    def is_busy(self, ns: int) -> bool:
        """Whether a thread of the keeper works on this namespace."""
        writing = self._writing
        thread = self._verifying.get(ns)
        return (writing is not None and writing[0] == ns) or (thread is not None and thread.is_alive())

    # -- writing --------------------------------------------------------------------------------------
    def tend(self) -> None:
        """Start what is due; called by the housekeeping now and then, and quick."""
        self._tidy()
        self._sweep()
        if not self._config.snapshots or self._writer is not None:
            return
        loaded = self._large()
        for entry, index in loaded:
            if monotonic() >= self._of(entry.ns).learnt_at_s:
                self._keep_learnt(entry, index)
        for entry, index in loaded:
            if monotonic() < self._of(entry.ns).not_before_s or _is_building(index):
                continue  # a snapshot without the lists would let the next process make them again
            if self._is_due(entry, index):
                self._start_writing(entry, index)
                return

    def _tidy(self) -> None:
        """Take away the threads that have ended, and let the system have the memory that their work took.

        Both hold some 100 bytes a memory for a while, which the allocator would keep.
        """
        with self._lock:
            writer, verifying = self._writer, len(self._verifying)
            self._verifying = {ns: thread for ns, thread in self._verifying.items() if thread.is_alive()}
            if writer is not None and not writer.is_alive():
                self._writer = None
            has_ended = self._writer is not writer or len(self._verifying) < verifying
        if has_ended:
            give_back()

    def _keep_learnt(self, entry: NamespaceEntry, index: NamespaceIndex) -> None:
        """Write what was learnt, when that is of the lists of the snapshot: at most 0.6 MB, some ms."""
        kept = self._of(entry.ns)
        kept.learnt_at_s = monotonic() + _LEARNT_S
        if kept.seq is None or kept.learnt is None:
            return
        learnt = learnt_of(index, kept.learnt)
        if learnt is None or learnt == kept.learnt or learnt.lists != kept.learnt.lists:
            return
        if self.snapshots.keep_learnt(entry, kept.seq, kept.made_us, learnt):
            kept.learnt = learnt

    def _start_writing(self, entry: NamespaceEntry, index: NamespaceIndex) -> None:
        pace = _Pace(self._stop, Event(), _RESTS)
        with self._lock:
            if self._stop.is_set():
                return
            self._writing = (entry.ns, pace)
            writer = Thread(
                target=self._write, args=(entry, index, pace), name="strongroom-snapshot", daemon=False
            )
            self._writer = writer if thread_started(writer) else None
            if self._writer is None:  # at another time
                self._writing = None

    def _large(self) -> list[tuple[NamespaceEntry, NamespaceIndex]]:
        """The loaded namespaces that may have snapshots; thousands of small ones are passed over."""
        return self._indexes.loaded_entries(self._config.snapshot_rows_min)

    def _of(self, ns: int) -> _Kept:
        return self._kept.setdefault(ns, _Kept())

    def _is_due(self, entry: NamespaceEntry, index: NamespaceIndex) -> bool:
        if index.memories < self._config.snapshot_rows_min or entry.ns in self._verifying:
            return False
        kept = self._of(entry.ns)
        if not self._has_grown(kept, index):
            return False
        for file in self.snapshots.files(entry.ns)[:1]:  # another process may have been quicker
            header = self.snapshots.header(file)
            if header is not None and file.seq > (kept.seq or -1):
                kept.seq, kept.made_us, kept.removals = file.seq, header.made_us, False
                kept.lists, kept.learnt = _lists_of(index), None  # not known: it may be as good
        return self._has_grown(kept, index)

    def _has_grown(self, kept: _Kept, index: NamespaceIndex) -> bool:
        config = self._config
        if kept.seq is None:
            return True
        share = min(config.snapshot_changes_max, int(config.snapshot_changes_share * index.memories))
        enough = max(config.snapshot_changes_min, share)
        if index.watermark - kept.seq > enough or _lists_of(index) > kept.lists:
            return True
        return kept.removals and self._age_ms(kept.made_us) > config.snapshot_stale_ms_max // 2

    def _age_ms(self, made_us: int) -> int:
        """How long ago that was; one from the future, after a clock was put back, ages as well."""
        return abs(self._engine.now_us() - made_us) // 1000

    def _write(self, entry: NamespaceEntry, index: NamespaceIndex, pace: _Pace) -> None:
        kept = self._of(entry.ns)
        done = None
        removals, kept.removals = kept.removals, False  # what is deleted from now on is not in the new one
        try:
            lists, learnt = _lists_of(index), learnt_of(index)
            done = self.snapshots.write(entry, index, pace)
            if done is not None:
                kept.seq, kept.made_us, kept.lists = done.seq, done.made_us, lists
                kept.learnt = None if learnt is None else replace(learnt, seen=b"")  # that is beside it alone
                kept.work_s = pace.worked_s
        except (_GivenUpError, ClosedError):
            pass
        except IntegrityError:
            self._indexes.mark_tampered(entry.ns, index)
        except Exception as e:  # noqa: BLE001 - without a snapshot nothing is lost, and closing goes on
            self._engine.log.warning("snapshot_not_written", ns=entry.ns, code=cause_of(e))
        finally:
            if done is None:
                kept.removals = kept.removals or removals
            pause_s = max(self._config.snapshot_interval_ms_min / 1000, _DUTY * pace.worked_s)
            kept.not_before_s = monotonic() + pause_s
            self._writing = None

    # -- throwing away --------------------------------------------------------------------------------
    def discard(self, ns: int) -> int:
        """Throw away the snapshots of a namespace, also the one that is being written; how many there were.

        Raises:
            StorageBusyError: another process writes one just now. StorageError.
        """
        writing, writer = self._writing, self._writer
        if writing is not None and writing[0] == ns and writer is not None:
            writing[1].deadline = 0.0
            writer.join()
        self._kept.pop(ns, None)
        return self.snapshots.discard(ns)

    def _sweep(self) -> None:
        """Throw away what is too old and holds texts that were deleted or replaced since."""
        now_s = monotonic()
        stale_ms = self._config.snapshot_stale_ms_max
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + stale_ms / 1000 / _SWEEP_PARTS
        self.snapshots.clear_drafts()
        for file in self.snapshots.files():
            header = self.snapshots.header(file)
            if header is None or self._age_ms(header.made_us) <= stale_ms:
                continue
            if self._has_removals_since(file):
                self._engine.log.info("snapshot_stale", ns=file.ns)
                try:
                    self.discard(file.ns)
                except StorageError as e:  # another process writes: what was there is gone all the same
                    self._engine.log.warning("snapshots_not_discarded", ns=file.ns, code=e.code)

    def _has_removals_since(self, file: SnapshotFile) -> bool:
        after = file.seq
        try:
            while rows := self._engine.ledger.headers(file.ns, after, _HEADERS_PAGE):
                if any(r.field == Field.MEMORY and (r.state != State.LIVE or r.version > 1) for r in rows):
                    return True
                after = rows[-1].seq
        except NamespaceNotFoundError:
            return True
        return False

    # -- the end --------------------------------------------------------------------------------------
    def close(self) -> None:
        """End verifications; finish or write what is worth it, for at most ``snapshot_close_ms_max``.

        Where the rows had to be read, for up to half as long as that took: the next process is spared it.
        What would not be done by then is not begun, nor gone on with. What was learnt is written in any case.
        """
        started = monotonic()

        def until(ns: int) -> float:
            return started + max(self._config.snapshot_close_ms_max / 1000, self._of(ns).read_s / 2)

        loaded = self._large() if self._config.snapshots else []
        writing = self._writing
        if writing is not None:
            ns, pace = writing
            work_s = next((self._work_s(e, i) for e, i in loaded if e.ns == ns), 0.0)
            is_hopeful = started + work_s - pace.worked_s <= until(ns)
            pace.deadline = until(ns) if is_hopeful else 0.0
        with self._lock:
            self._stop.set()
            self._hurry.set()
        if self._ahead is not None:  # what it loads is verified by a thread
            self._ahead.join()
        for thread in list(self._verifying.values()):
            thread.join()
        writer = self._writer
        if writer is not None:
            writer.join()
        with suppress(StrongroomError):  # what stays is thrown away at the next look
            self._sweep_at_s = 0.0
            self._sweep()
        if not self._config.snapshots:
            return
        for entry, index in self._large():
            may_take_s = until(entry.ns) - monotonic()
            if may_take_s > 0 and self._is_due(entry, index):
                if self._work_s(entry, index) <= may_take_s:
                    pace = _Pace(self._stop, self._hurry)
                    pace.deadline = until(entry.ns)
                    self._write(entry, index, pace)
                else:
                    self._engine.log.info("snapshot_left_out", ns=entry.ns, why="no time")
            self._keep_learnt(entry, index)

    def _work_s(self, entry: NamespaceEntry, index: NamespaceIndex) -> float:
        """How long writing a snapshot takes, from the last one."""
        known = self._of(entry.ns).work_s
        return _ROW_S * index.memories if known is None else known


def _lists_of(index: NamespaceIndex) -> int:
    return index.vectors.standing[0] if index.vectors is not None else 0


def _is_building(index: NamespaceIndex) -> bool:
    return index.vectors is not None and index.vectors.is_building
