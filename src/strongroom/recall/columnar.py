"""The columnar projection: opened memories in a locked-down in-memory DuckDB, one table a namespace.

One ``ColumnarStore`` a process; one ``ColumnarTable`` a namespace, in a schema of its own. Changes wait
in a buffer and are applied, in one transaction, before the next query that could see them: a reader
always sees what was written before it began, and a single store never pays for a single insert.
Nothing here touches the disk: no spill directory, no external access, no extensions, and the
configuration is locked before the first memory arrives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from strongroom.errors import ClosedError, InternalError, InvalidFilterError
from strongroom.model import Filter, Memory
from strongroom.model.rows import ALL, Rows
from strongroom.recall._allocator import give_back
from strongroom.recall._apply_batch import apply_batch, with_arrow
from strongroom.recall._blocks import Again, BlockReader, ByteSource
from strongroom.recall._buffer import ChangeBuffer
from strongroom.recall._column_dump import FrozenColumns, passed_over, restored_columns, with_keys
from strongroom.recall._column_engine import ColumnEngine
from strongroom.recall._columns import CONTENT, METADATA, Row, expires_us, to_row
from strongroom.recall._cursors import BadInputError
from strongroom.recall._facets import Facets
from strongroom.recall._filter_sql import Compiled, compile_filter
from strongroom.recall._in_passing import ASKED_MAX, BARE, SMALL_ROWS, answer_in_passing
from strongroom.recall._kept_filters import KeptFilters, key_of
from strongroom.recall._later import Later
from strongroom.recall._row_questions import RowQuestions
from strongroom.recall._rows_sql import behind_barrier
from strongroom.recall._weight import TABLE_BYTES, WAITING_BYTES

__all__ = ["ColumnarStore", "ColumnarTable"]

_T = TypeVar("_T")

_PATIENCE_S: Final = 0.3  # that restoring in the background leaves to the first answer
COUNTERS_MAX: Final = 10_000  # counter changes that wait for a query that looks at them


class ColumnarStore(ColumnEngine):
    """The tables of a process, in one engine."""

    def table(self, ns: int, namespace: str, *, sealed: bool = False) -> ColumnarTable:
        """A new, empty table for namespace number ``ns``, which callers call ``namespace``.

        ``sealed``: content and metadata stay out of it and are null.

        Raises:
            InternalError: there is a table of that number already.
        """
        if ns < 0:
            raise InternalError("a namespace number is never negative")
        with self._catalog_lock:
            if ns in self._given:
                raise InternalError("the namespace has a table already")
            self._given.add(ns)
        return ColumnarTable(self, ns, namespace, sealed=sealed)


class ColumnarTable(RowQuestions):
    """The memories of one namespace. All methods may be called from any thread.

    Row ids (``rid``) are given by the caller, grow with every append and are never used twice; an
    updated memory is a new row, and the old one removed.
    """

    def __init__(self, store: ColumnarStore, ns: int, namespace: str, *, sealed: bool = False) -> None:
        """``sealed``: content and metadata stay out of the columns."""
        self._store = store
        self.sealed = sealed
        self._ns = ns
        self._name = f"{store._schema(ns)}.mem"
        self._namespace = namespace
        self._buffer = ChangeBuffer()
        self._facets = Facets()  # as of the last change, whether it was flushed or not
        self._restoring = Later("strongroom-columns")
        self._kept = KeptFilters()
        self._flush_lock = threading.Lock()
        self._created = self._dropped = False
        self._asked = 0  # how often, as long as there is no table in the engine
        self._weight = store.weight.table()
        self._ending = False

    def append(self, rows: Sequence[tuple[int, Memory, int]]) -> None:
        """Add ``(rid, memory, seq)``; each rid greater than all before it.

        Raises:
            InvalidInputError: a memory cannot be held; none of ``rows`` was taken.
            InternalError: a rid does not grow.
        """
        made = [to_row(rid, memory, seq) for rid, memory, seq in rows]
        if self.sealed:
            for row in made:
                row[CONTENT] = row[METADATA] = None
        ends = [e for e in map(expires_us, made) if e is not None]
        self._weight.add(row[CONTENT] for row in made)
        self._buffer.append(made, min(ends, default=None))
        self._restoring.after(lambda: self._facets.append(made))

    def remove(self, rids: Sequence[int]) -> None:
        """Take rows away; a rid that is not there is no error."""
        self._buffer.remove(rids)
        self._weight.remove(len(rids))
        self._restoring.after(lambda: self._facets.remove(rids))

    def set_embedded(self, rids: Sequence[int], embedded: bool) -> None:
        """Set ``has_embedding``."""
        self._buffer.set_embedded(rids, embedded)

    def set_access(self, rid: int, count: int, last_us: int | None) -> None:
        """Set ``access_count`` and ``last_accessed_at`` (microseconds UTC)."""
        self._buffer.set_access(rid, count, last_us)

    def select(self, filter: Filter, *, now_us: int, rows: Rows = ALL) -> NDArray[np.int64]:
        """Row ids, shape (n,), int64, ascending, of the memories that match and have not expired.

        ``rows``: only among these; nothing of the filter is looked at for another.

        Raises:
            InvalidFilterError, OperationTimeoutError, LimitExceededError, ClosedError.
        """
        compiled = self._compile(filter, now_us)
        rids = self._rids(compiled, rows)
        if len(rids) > 1 and not bool(np.all(rids[1:] > rids[:-1])):
            rids.sort()
        return rids

    def mask(self, filter: Filter, *, now_us: int) -> NDArray[np.bool_] | None:
        """Whether each row matches, by rid, shape (rids,); removed and expired rows may be True.

        None when the filter looks at what changes without a new row (counters, the clock): use ``select``.

        Raises:
            InvalidFilterError, OperationTimeoutError, LimitExceededError, ClosedError.
        """
        compiled = self._lasting(filter, now_us)
        if compiled is None:
            return None

        def ask(first: int) -> NDArray[np.int64]:
            compiled.conditions.insert(0, f"rid >= {int(first)}")
            return self._rids(compiled)

        return self._kept.mask(key_of(compiled), self._buffer.rid_last + 1, ask)

    def mask_key(self, filter: Filter, *, now_us: int) -> bytes | None:
        """The same for two filters only when ``mask`` is the same, as long as no row comes; None: as there.

        Raises:
            InvalidFilterError, ClosedError.
        """
        compiled = self._lasting(filter, now_us)
        return None if compiled is None else key_of(compiled)

    def _lasting(self, filter: Filter, now_us: int) -> Compiled | None:
        """A filter, unless it looks at what changes without a new row."""
        compiled = compile_filter(
            filter, self._store.checker, namespace=self._namespace, now_us=now_us, may_expire=False
        )
        if compiled.needs_counters or (compiled.where is not None and compiled.where.uses_clock):
            return None
        if self._dropped:
            raise ClosedError("the namespace was dropped")
        return compiled

    def _rids(self, compiled: Compiled, rows: Rows = ALL) -> NDArray[np.int64]:
        return self._query(
            compiled, "SELECT rid", "", lambda c: np.asarray(c.fetchnumpy()["rid"], dtype=np.int64), rows
        )

    def list_page(
        self, filter: Filter, limit: int, before: tuple[int, int] | None = None, *, now_us: int
    ) -> list[tuple[int, int]]:
        """Up to ``limit`` pairs (rid, created_at in microseconds), newest first.

        ``before``: (created_at in microseconds, rid) of the last pair of the page before; rows of the
        same moment are ordered by rid, newest first, so that pages neither repeat nor skip.

        Raises:
            InvalidFilterError, OperationTimeoutError, LimitExceededError, ClosedError.
        """
        compiled = self._compile(filter, now_us)
        if before is not None:
            moment = f"make_timestamptz(CAST({compiled.bind(before[0])} AS BIGINT))"
            compiled.conditions.append(
                f"created_at <= {moment} AND (created_at < {moment} OR rid < {compiled.bind(before[1])})"
            )
        order = f" ORDER BY created_at DESC, rid DESC LIMIT {int(limit)}"
        rows = self._query(compiled, "SELECT rid, epoch_us(created_at)", order, lambda c: c.fetchall())
        return [(int(rid), int(us)) for rid, us in rows]

    def count(self, filter: Filter, *, now_us: int) -> int:
        """How many memories match and have not expired.

        Raises:
            InvalidFilterError, OperationTimeoutError, LimitExceededError, ClosedError.
        """
        compiled = self._compile(filter, now_us)
        return int(self._query(compiled, "SELECT count(*)", "", lambda c: c.fetchone()[0]))

    def drop(self) -> None:
        """Forget all rows; the table answers no more. May be called twice."""
        self._ending = True
        with suppress(InternalError):
            self._restoring.wait()
        with self._flush_lock:
            if not self._dropped:
                self._dropped = True
                self._buffer.clear()
                self._facets = Facets()
                self._kept.clear()
                self._store._drop(self._ns, created=self._created)

    def freeze(self) -> FrozenColumns:
        """The rows as they are now, to be written out while the table goes on.

        Raises:
            InternalError, ClosedError.
        """
        self._restoring.wait()
        with self._flush_lock:
            self._flush_locked(counters=True)
            return FrozenColumns(self._store.own_cursor, self._name)

    def restore(
        self, source: BlockReader, rows: int, expires_us_min: int | None, again: Again | None = None
    ) -> None:
        """Fill an empty table with what ``FrozenColumns.dump`` wrote, of a namespace of ``rows`` rows.

        With ``again`` it is passed over now, so that it is known to be whole, and read in the background.

        Raises:
            IntegrityError: it is of another form. LimitExceededError, InternalError, ClosedError.
        """
        self._buffer.continue_after(rows - 1, expires_us_min)
        if again is not None:
            position = source.position
            self._weight.restore(rows, passed_over(source))
            reading = again(position)
            self._restoring.start(lambda: self._insert_again(reading), patience_s=_PATIENCE_S)
            return
        parts = list(restored_columns(source))
        self._weight.restore(rows, sum(part.nbytes for part in parts))
        self._restoring.start(lambda: self._insert(iter(parts)))

    def _insert_again(self, reading: AbstractContextManager[ByteSource]) -> None:
        with reading as source:
            self._insert(restored_columns(BlockReader(source)))
        give_back()

    def _insert(self, parts: Iterator[Any]) -> None:
        """Put restored rows into the table; runs beside searches, which need it only for filters."""
        self._create()
        with self._store.own_cursor() as cursor:
            for part in parts:
                if self._ending:
                    return
                rows = with_keys(part)
                with_arrow(cursor, rows, f"INSERT INTO {self._name} SELECT * FROM arriving")  # noqa: S608
                self._facets.append_arrow(rows)
        self._weight.is_whole = True

    @property
    def facets(self) -> Facets:
        """The everyday filters, as of the last change.

        Raises:
            ClosedError: the table was dropped: what it has now says nothing of the memories that there are.
        """
        self._restoring.wait()
        facets = self._facets
        if self._dropped:  # looked at last: ``drop`` says so before it puts an empty one there
            raise ClosedError("the namespace was dropped")
        return facets

    @property
    def is_dropped(self) -> bool:
        """Whether ``drop`` was called: an error of a statement that reads the table means nothing then."""
        return self._dropped

    def importance(self, rids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The importance of rows that are there, shape (len(rids),)."""
        return self.facets.importance(rids)

    def memory_bytes(self) -> int:
        """About the memory that the rows take."""
        least = TABLE_BYTES if self._created and self._weight.told else 0
        waiting = WAITING_BYTES * self._buffer.rows
        return max(self._weight.memory_bytes(), least) + self._facets.memory_bytes() + waiting

    def dump_bytes(self) -> int:
        """About the bytes that a snapshot of the rows takes."""
        return self._weight.told

    def check_usable(self) -> None:
        """Raises: InternalError: it could not be restored."""
        if self._restoring.failed:
            self._restoring.wait()

    @property
    def qualified(self) -> str:
        """Its name in the engine, for the views of the SQL front end."""
        self._restoring.wait()
        with self._flush_lock:
            if not self._dropped:
                self._create()
        return f"memory.{self._name}"

    @property
    def namespace(self) -> str:
        """What callers call the namespace."""
        return self._namespace

    def may_expire(self, now_us: int) -> bool:
        """Whether some row may have expired by then (microseconds UTC)."""
        first = self._buffer.expires_us_min
        return first is not None and first <= now_us

    def flush(self) -> None:
        """Apply all that waits. Queries do this themselves as far as they need it."""
        self._flush(counters=True)

    # -- inside -------------------------------------------------------------------------------
    def _create(self) -> None:
        """Have the table in the engine, before its first use: many a namespace is asked without it."""
        if not self._created:
            self._store._create(self._ns)
            self._created = self._weight.in_engine = True

    def _compile(self, filter: Filter, now_us: int) -> Compiled:
        first = self._buffer.expires_us_min
        may_expire = first is not None and first <= now_us
        return compile_filter(
            filter, self._store.checker, namespace=self._namespace, now_us=now_us, may_expire=may_expire
        )

    def _query(
        self, compiled: Compiled, head: str, tail: str, fetch: Callable[[Any], _T], rows: Rows = ALL
    ) -> _T:
        few = self._few(counters=compiled.needs_counters)
        conditions = " AND ".join(compiled.conditions)
        where = f" WHERE {conditions}" if conditions else ""
        name = self._name if few is None else BARE
        source = name if rows == ALL else behind_barrier(name, rows)
        statement = f"{head} FROM {source}{where}{tail}"
        try:
            with self._store.cursor(watched=True) as cursor:
                if few is not None:
                    return answer_in_passing(cursor, few, statement, compiled.parameters, fetch)
                return fetch(cursor.execute(statement, compiled.parameters))
        except BadInputError:
            if self._dropped:
                raise ClosedError("the namespace was dropped") from None
            if compiled.where is None:
                raise InternalError("the columnar engine refused a filter of its own") from None
            raise InvalidFilterError(
                "where: an operation failed on a value, for example a CAST",
                hint="use TRY_CAST, or json_extract_string(...) = '...' for values of mixed types",
            ) from None

    def _few(self, *, counters: bool) -> list[Row] | None:
        """All rows, when they are few and have no table in the engine; else None, and they are in it."""
        self._restoring.wait()
        with self._flush_lock:
            is_often = self._created or self._dropped or self._asked >= ASKED_MAX
            few = None if is_often else self._buffer.few(SMALL_ROWS)
            if few is None:
                self._flush_locked(counters=counters)
            self._asked += 1
            return few

    def _flush(self, *, counters: bool) -> None:
        self._restoring.wait()
        with self._flush_lock:
            self._flush_locked(counters=counters)

    def _flush_locked(self, *, counters: bool) -> None:
        if self._dropped:
            raise ClosedError("the namespace was dropped")
        self._create()
        batch = self._buffer.take(counters=counters, counters_max=COUNTERS_MAX)
        if batch is None:
            return
        try:
            with self._store.own_cursor() as cursor:
                apply_batch(cursor, self._name, batch)
        except BaseException:
            self._buffer.put_back(batch)
            raise
