"""The index of one namespace: columns, vectors and keywords behind one door.

``apply`` only notes what changed, under a short mutex; the lanes take it over before the next question,
so that a store is not held up by searches and a search sees every change that was applied before it.
Searches run side by side; a take-over runs alone. Large back-logs are taken over in the background.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import IntegrityError, InternalError, InvalidInputError, InvalidVectorError
from strongroom.model import Filter, Memory
from strongroom.model.rows import ALL, NONE, WHOLE, Reach, Rows
from strongroom.recall._allocator import Leavings
from strongroom.recall._allowed import Allowed, Permits
from strongroom.recall._blocks import Again, BlockReader, ByteSource
from strongroom.recall._columns import to_us
from strongroom.recall._frozen import LAYOUT_VERSION, FrozenIndex
from strongroom.recall._ids import ROWS_MIN
from strongroom.recall._in_passing import SMALL_ROWS
from strongroom.recall._items import ListItem
from strongroom.recall._masks import Masks
from strongroom.recall._newest import page_of
from strongroom.recall._roster import Pending, Roster, rids_of
from strongroom.recall._settings import MemoryTable, RecallSettings
from strongroom.recall._threads import BackgroundTask, ReadWriteLock
from strongroom.recall._unit import check_vector
from strongroom.recall.analyze import Analyzer
from strongroom.recall.changes import Change, VectorPut
from strongroom.recall.keywords import Blind, KeywordLane
from strongroom.recall.vectors import VectorLane

PENDING_BACKGROUND = 512  # changes that wait before the background takes them over
PENDING_MAX = 8_192  # changes that wait before ``apply`` itself takes them over
NEVER_US = np.iinfo(np.int64).max
_serials = count()
_log = logging.getLogger(__name__)


class NamespaceIndex:
    """Everything that is needed to find the memories of one namespace. Thread-safe.

    Args:
        table: the namespace's columns, empty.
        blind: turns stems into 64-bit numbers (a keyed hash); called with many stems at once.
        settings: weights, language and limits.
        ns: the namespace's number, carried on candidates; not looked at here.
        dimensions: length of the vectors; None: that of the first one.

    Raises:
        InvalidInputError: the language of the settings is not known.
    """

    def __init__(
        self,
        table: MemoryTable,
        blind: Blind,
        settings: RecallSettings | None = None,
        *,
        ns: int = 0,
        dimensions: int | None = None,
    ) -> None:
        self.ns = ns
        self.settings = settings or RecallSettings()
        self.serial = next(_serials)  # the order in which a search locks several indexes
        self.watermark = 0
        self.table = table
        self.keywords = KeywordLane(Analyzer(self.settings.language), blind)
        self.vectors: VectorLane | None = None
        self._dimensions = dimensions
        self._roster = Roster()
        self._mutex = threading.Lock()  # guards the roster and the watermark
        self.lock = ReadWriteLock()  # readers: searches; writer: the take-over into the lanes
        self._alive: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)  # by rid
        self._expires: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # microseconds, by rid
        self._created: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._expires_first: int = NEVER_US  # no row expires before
        self.end = 0  # every row in the lanes has a lower rid
        self.masks = Masks(table.permitted)
        self._permits, self._leavings = Permits(), Leavings()
        self._failed = self.loading = False  # while it is loading no lists are made of the part that is there
        self._task = BackgroundTask("strongroom-recall")

    # -- changes ----------------------------------------------------------------------------------
    def apply(self, changes: Sequence[Change], watermark: int) -> None:
        """Take note of changes; every question asked afterwards sees them.

        A change that is older than what is known of that memory does nothing, so changes may come
        twice. A vector of an older content is ignored, one of a newer content waits for its memory.

        Args:
            changes: in the order of their ``seq``.
            watermark: all changes up to this ``seq`` have now been applied.

        Raises:
            InvalidVectorError: a vector is not finite, all zero or of the wrong length; nothing is applied.
        """
        checked = [self._checked(change) for change in changes]
        with self._mutex:
            roster = self._roster
            for change in checked:
                roster.note(change)
            self.watermark = max(self.watermark, watermark)
            waiting = len(roster.pending)
        if waiting >= PENDING_MAX:
            self.prepare()
        elif waiting >= PENDING_BACKGROUND:
            self._task.start(self._prepare_alone)

    def _checked(self, change: Change) -> Change:
        """Refuse what would fail later, when it could spoil the lanes."""
        if not isinstance(change, VectorPut):
            return change
        vector = check_vector(change.vector, self._dimensions)
        if self._dimensions is None:
            with self._mutex:
                self._dimensions = self._dimensions or len(vector)
            vector = check_vector(vector, self._dimensions)
        return VectorPut(change.memory_id, change.content_version, vector, change.seq)

    @property
    def is_damaged(self) -> bool:
        """Whether there are memories that do not open, and so take no part."""
        return bool(self._roster.damaged)

    def settle(self) -> int:
        """To be called after the ledger's head was reached: drops vectors whose memory never came.

        One that waits now is dropped by the next call. Also brings the lanes up to date and builds what
        they need for a quick search, in the background. Returns how many vectors wait.
        """
        with self._mutex:
            waiting = self._roster.settle()
            rows = max(self.end, len(self._roster.pending))
        self._leavings.give_back_last()
        if rows > min(SMALL_ROWS, self.settings.exact_rows_max):  # of few the first question takes over all
            self._task.start(self._prepare_alone)
        return waiting

    def prepare(self) -> None:
        """Bring the lanes up to date with everything that was applied.

        Raises:
            InternalError: an earlier attempt failed half-way; the index has to be built anew.
        """
        self.check_usable()
        if not len(self._roster.pending):
            with self.lock.read:  # another thread may be at it
                return
        with self.lock.write:
            with self._mutex:
                pending = self._roster.take_pending()
            self._take_over_whole(pending)
        self.table.relieve()
        if self.loading:
            self._leavings.give_back_after(self.end)

    def is_behind(self) -> bool:  # something was applied that the lanes have not taken over; ask under a lock
        return bool(len(self._roster.pending))

    def _take_over_whole(self, pending: Pending) -> None:
        done = False
        try:
            self._take_over(pending)
            done = True
        finally:
            self._failed = self._failed or not done  # the lanes may no longer agree

    def _prepare_alone(self) -> None:
        """``prepare`` on a thread of its own."""
        self.prepare()  # when it fails half-way, the next question is told (``check_usable``)
        much = self.loading or len(self._roster.pending) >= PENDING_BACKGROUND
        if self.vectors is not None and not much:
            self.vectors.tend()

    def check_usable(self) -> None:
        """Raise InternalError when a change was taken over only in part: build the index anew."""
        if self._failed:
            raise InternalError("the index of a namespace is damaged and has to be built anew")
        self.table.check_usable()

    def _take_over(self, pending: Pending) -> None:
        self._permits.note(pending)
        if pending.rows:
            self._add_rows(pending.rows, pending.terms)
        if pending.moves and self.vectors is not None:
            self.vectors.move(rids_of(pending.moves.values()), rids_of(pending.moves))
        if pending.removed:
            self._remove_rows(pending.removed)
        if pending.voided and self.vectors is not None:
            self.vectors.remove(rids_of(pending.voided))
        if pending.vectors:
            self._add_vectors(pending.vectors)
        self._flag_embedded(pending)
        for rid, (times, last_us) in pending.access.items():
            self.table.set_access(rid, times, last_us)

    def _add_rows(self, rows: dict[int, tuple[Memory, int]], terms: dict[int, Sequence[int]]) -> None:
        self._reserve(max(rows) + 1)
        self.end = max(self.end, max(rows) + 1)
        for rid, (memory, _) in rows.items():
            self._alive[rid] = True
            self._created[rid] = to_us(memory.created_at)
            if memory.expires_at is not None:
                expires_us = to_us(memory.expires_at)
                self._expires[rid] = expires_us
                self._expires_first = min(self._expires_first, expires_us)
        self._add_columns([(rid, memory, seq) for rid, (memory, seq) in rows.items()])
        self.keywords.add(list(rows), [terms.get(rid, memory.content) for rid, (memory, _) in rows.items()])

    def _add_columns(self, rows: list[tuple[int, Memory, int]]) -> None:
        """A memory that the columns cannot hold fails alone; it is found as long as no filter is given."""
        try:
            self.table.append(rows)
        except InvalidInputError:
            for row in rows:
                try:
                    self.table.append([row])
                except InvalidInputError:
                    _log.error("a memory cannot be held in columns; filters do not find it")

    def _reserve(self, size: int) -> None:
        have = len(self._alive)
        if size <= have:
            return
        more = max(size, have + have // 2, ROWS_MIN) - have
        self._alive = np.concatenate([self._alive, np.zeros(more, dtype=np.bool_)])
        self._expires = np.concatenate([self._expires, np.full(more, NEVER_US, dtype=np.int64)])
        self._created = np.concatenate([self._created, np.zeros(more, dtype=np.int64)])

    def _remove_rows(self, rids: list[int]) -> None:
        index = np.asarray(rids, dtype=np.int64)
        self._alive[index] = False
        self.table.remove(rids)
        self.keywords.remove(rids)
        if self.vectors is not None:
            self.vectors.remove(index)

    def _add_vectors(self, vectors: dict[int, NDArray[np.float32]]) -> None:
        if self.vectors is None:
            if self._dimensions is None:
                raise InvalidVectorError("the length of the vectors is not known")
            self.vectors = VectorLane(self._dimensions, exact_rows_max=self.settings.exact_rows_max)
        self.vectors.add(rids_of(vectors), np.stack(list(vectors.values())))

    def _flag_embedded(self, pending: Pending) -> None:
        """Make the column has_embedding say what the vector lane holds, whatever the memory said."""
        gained = [*pending.vectors, *pending.moves]
        have = set(gained)
        lost = [rid for rid, (memory, _) in pending.rows.items() if memory.has_embedding and rid not in have]
        lost.extend(pending.voided)
        self.table.set_embedded(lost, False)
        self.table.set_embedded(gained, True)

    # -- snapshots ----------------------------------------------------------------------------------
    def freeze(self) -> FrozenIndex:
        """The index as it is now, to be written out while searches and changes go on. Close it soon.

        Searches wait while tables are copied: some milliseconds, some tens of them at a million rows.

        Raises:
            InternalError: the index is damaged. ClosedError: its columns were dropped.
        """
        self.prepare()
        self.table.flush()  # before the lock: after a bulk load there is much
        with self.lock.write:
            with self._mutex:
                pending = self._roster.take_pending()
                watermark = self.watermark
                roster = self._roster.freeze()
            self._take_over_whole(pending)
            return FrozenIndex(
                watermark,
                self._dimensions,
                np.flatnonzero(self._alive),
                self._created.copy(),
                self._expires.copy(),
                roster,
                self.keywords.freeze(),
                None if self.vectors is None else self.vectors.freeze(),
                self.table.freeze(),
            )

    def restore(self, source: ByteSource, again: Again | None = None) -> None:
        """Become what ``FrozenIndex.dump`` wrote. Only for an index that never saw a change.

        ``again``: gives the stream once more, to keep in the background what first answers do not need.

        After an error it is of no use: close it and drop its columns. The bytes must be authenticated.

        Raises:
            IntegrityError: they are of another form or version, or made with other vectors.
        """
        blocks = BlockReader(source)
        version, watermark, rows, dimensions, has_vectors = blocks.array("META", "<i8", rows=5).tolist()
        if version != LAYOUT_VERSION or self._dimensions not in (None, dimensions):
            raise IntegrityError("a snapshot is of another version")
        with self.lock.write:
            with self._mutex:
                if self._roster.table.rows or self.watermark:
                    raise InternalError("an index that is in use cannot be restored")
                self._roster.restore(blocks, rows, dimensions)
                self._dimensions = self._dimensions or dimensions or None
                self.watermark = watermark
            self._alive = np.ones(rows, dtype=np.bool_)
            self.end = rows
            self._created = blocks.array("CRTD", "<i8", rows=rows)
            self._expires = blocks.array("EXPR", "<i8", rows=rows)
            first = self._expires_first = int(self._expires.min(initial=NEVER_US))
            self.keywords.restore(blocks, rows)
            if has_vectors:
                self.vectors = VectorLane(dimensions, exact_rows_max=self.settings.exact_rows_max)
                self.vectors.restore(blocks, rows)
            self.table.restore(blocks, rows, None if first == NEVER_US else first, again)
            self._roster.check_restored()

    def known(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The ids of all memories, shape (memories, 16), and the ``seq`` of each, int64."""
        with self._mutex:
            return self._roster.known()

    # -- questions about single memories ------------------------------------------------------------
    def has(self, memory_id: bytes) -> bool:
        """Whether a memory with these 16 bytes is there (expired ones are, until they are removed)."""
        with self._mutex:
            return memory_id in self._roster

    def seq_of(self, memory_id: bytes) -> int | None:
        """The ``seq`` of the newest known state of a memory; None when it is not there."""
        with self._mutex:
            return self._roster.seq_of(memory_id)

    def rid_of(self, memory_id: bytes) -> int | None:
        """The row of a memory in the lanes, once they are up to date; None when it is not there."""
        with self._mutex:
            return self._roster.rid_of(memory_id)

    def has_vector(self, memory_id: bytes) -> bool:
        """Whether the present content of a memory can be found by meaning."""
        with self._mutex:
            return self._roster.has_vector(memory_id)

    @property
    def memories(self) -> int:
        """How many memories there are."""
        with self._mutex:
            return len(self._roster)

    @property
    def embedded(self) -> int:
        """How many of them have a vector of their present content."""
        with self._mutex:
            return self._roster.embedded

    def unembedded(self) -> dict[bytes, int]:
        """The memories that have no vector of their present content, and the version of that."""
        with self._mutex:
            return self._roster.unembedded()

    @property
    def dimensions(self) -> int | None:
        """The length of the vectors; None while it is not known."""
        return self._dimensions

    @property
    def sampled_recall(self) -> float | None:
        """Share of the true ten nearest that searches by meaning find; None: not known (yet)."""
        return self.vectors.recall if self.vectors is not None else None

    def memory_bytes(self) -> int:
        """Bytes of the lanes and tables here, without the columns."""
        with self._mutex:
            own = self._roster.memory_bytes() + 17 * len(self._alive)  # three arrays by rid
        return own + self.keywords.memory_bytes() + (self.vectors.memory_bytes() if self.vectors else 0)

    def list_newest(
        self, filter: Filter, limit: int, before: tuple[int, bytes] | None, now_us: int
    ) -> list[ListItem]:
        """At most ``limit`` memories, newest first; of one microsecond the lower memory_id first.

        Args:
            before: (created_us, memory_id) of the last item of the page before.

        Raises:
            InvalidFilterError: the filter's ``where`` is refused.
        """
        self.prepare()
        with self.lock.read:
            self.check_usable()
            items = self.newest(filter, limit, before, now_us)
        return sorted(items, key=lambda item: (-item.created_us, item.memory_id))[:limit]

    # -- for Recall: the caller holds ``lock.read`` -------------------------------------------------
    def allowed(self, filter: Filter, now_us: int, reach: Reach = WHOLE) -> Allowed:
        """What a question may see: sorted rids when they are few, else a mask by rid; None: every row.

        A filter that looks at more than the label of a memory reaches only those whose content may be opened.

        Raises:
            InvalidFilterError: the filter's ``where`` is refused.
        """
        rows = reach.seen
        if rows != reach.opened and self.table.looks_inside(filter):
            rows = reach.opened
        expired = now_us >= self._expires_first
        if filter.is_empty and rows == ALL:
            return self._alive & (self._expires > now_us) if expired else None
        return self._permits.of(self, filter, now_us, rows, expired)

    def living(self, mask: NDArray[np.bool_], now_us: int | None) -> NDArray[np.bool_]:
        """Of a mask by rid the rows that are there and, when a time is given, have not expired by then."""
        mask = mask[: len(self._alive)]
        alive = mask & self._alive[: len(mask)]
        return alive if now_us is None else alive & (self._expires[: len(mask)] > now_us)

    def chosen(self, filter: Filter, now_us: int, reach: Reach = WHOLE) -> NDArray[np.int64]:
        """The sorted rids that a question may see.

        Raises:
            InvalidFilterError: the filter's ``where`` is refused.
        """
        allowed = self.allowed(filter, now_us, reach)
        if allowed is None:
            return self.everything()
        return np.flatnonzero(allowed) if allowed.dtype == np.bool_ else allowed.astype(np.int64, copy=False)

    def mask(self, rows: Rows) -> NDArray[np.bool_]:
        """For each rid whether the condition holds, removed rows included; not to be changed."""
        if rows in (ALL, NONE):
            return np.full(self.end, rows == ALL, dtype=np.bool_)
        return self.masks.of(rows, self.end)

    def labels(self, rids: NDArray[np.int64], reach: Reach) -> dict[int, str]:
        """The sensitivity of those rows that are seen and not opened."""
        if reach.opened == reach.seen:
            return {}
        closed = rids[~self.mask(reach.opened)[rids]]
        return self.table.labels(closed.tolist()) if len(closed) else {}

    def everything(self) -> NDArray[np.int64]:
        """The sorted rids of all rows."""
        return np.flatnonzero(self._alive)

    def id_at(self, rid: int) -> bytes:
        """The memory that a live row stands for."""
        if not self._alive[rid]:
            raise InternalError("a search met a row that is gone")
        return self._roster.table.id_at(rid)

    def seq_at(self, rid: int) -> int:
        return self._roster.seqs[rid]

    def access_at(self, rid: int) -> tuple[int, int | None] | None:
        """How often the memory in a row was read, and when last (microseconds); None: never."""
        with self._mutex:
            return self._roster.access_at(rid)

    def created_us(self, rid: int) -> int:
        return int(self._created[rid])

    def created_at(self, rids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Microseconds since the epoch, int64, shape (len(rids),)."""
        return self._created[rids]

    def newest(
        self,
        filter: Filter,
        limit: int,
        before: tuple[int, bytes] | None,
        now_us: int,
        reach: Reach = WHOLE,
    ) -> list[ListItem]:
        """``list_newest`` without order."""
        chosen = self.chosen(filter, now_us, reach)
        rids, created = page_of(chosen, self._created[chosen], self._roster.table.ids, limit, before)
        labels = self.labels(rids, reach)
        return [
            ListItem(self, self.id_at(rid), self.seq_at(rid), at, labels.get(rid))
            for rid, at in zip(rids.tolist(), created.tolist(), strict=True)
        ]

    # -- upkeep -------------------------------------------------------------------------------------
    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait for work in the background; False when the time was up in one of its parts."""
        done = self._task.wait(timeout_s) and self.keywords.wait_merged(timeout_s)
        return done and (self.vectors is None or self.vectors.wait_built(timeout_s))

    def close(self) -> None:
        """Stop the background work. Idempotent."""
        self._task.close()
        self.keywords.close()
        if self.vectors is not None:
            self.vectors.close()
