"""Running a plan: cursors that see the caller's namespaces only, limits, and the scores of meaning.

A cursor is a connection of its own to the locked-down engine. Its temporary views hold the namespaces of
one group of callers with the same rights, and nothing else is offered to a statement under a name that it
could know: the schemas of namespaces carry a random part. Before a plan runs for a group for the first
time, the engine itself says which tables it would read; they must be those of the group.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strongroom.config import LimitsConfig
from strongroom.errors import (
    ClosedError,
    InternalError,
    LimitExceededError,
    OperationTimeoutError,
    SqlSyntaxError,
)
from strongroom.model import SqlColumn
from strongroom.recall._held import reading
from strongroom.recall._watchdog import Watchdog
from strongroom.recall.columnar import ColumnarStore
from strongroom.recall.sql import binding
from strongroom.recall.sql.binding import narrowed, number_of, rows_condition
from strongroom.recall.sql.bounded import require_short
from strongroom.recall.sql.describe import sample
from strongroom.recall.sql.direct_run import PlanMasks, Pool, answer_directly
from strongroom.recall.sql.faults import batches, translate
from strongroom.recall.sql.front import Front
from strongroom.recall.sql.grammar import Grammar
from strongroom.recall.sql.plan import Learned, Variant, handles, narrowings
from strongroom.recall.sql.request import Answer, Member, Request
from strongroom.recall.sql.scope import Score
from strongroom.recall.sql.scoring import Scorer
from strongroom.recall.sql.views import check_barriers, view_statements

_Nearest = list[tuple[int, int]]  # (number of the member, rid)

__all__ = ["Answer", "Member", "Request", "SqlEngine", "stream"]

GROUPS_MAX: Final = 64  # groups of callers whose cursors are kept
IDLE_MAX: Final = 4  # cursors kept for each
BATCH_ROWS: Final = 10_000
DEPTH_MIN: Final = 10  # as far as a search looks at least: what the index has learnt is about the first ten


class _Group:
    """Idle cursors with the views of one set of namespaces."""

    def __init__(self, key: tuple[object, ...]) -> None:
        self.key = key
        self.idle: deque[Any] = deque()
        self.retired = False


class SqlEngine:
    """The SQL front end of one columnar store. Thread-safe."""

    def __init__(self, store: ColumnarStore, limits: LimitsConfig, *, match_min: float) -> None:
        self._store = store
        self._limits = limits
        self._watchdog = Watchdog(limits.sql_timeout_ms)
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[object, ...], _Group] = OrderedDict()
        self._scorers: dict[int, Sequence[Scorer]] = {}
        self._masks = PlanMasks()
        self._grammar = Grammar(self._watchdog)
        self.front = Front(self._grammar.parse, self._grammar.write, limits, match_min=match_min)
        store.offer_function(self.front.names.score, self._score, ["BIGINT", "INTEGER", "BIGINT"], "DOUBLE")

    # -- scores -------------------------------------------------------------------------------------
    def _score(self, rids: Any, places: Any, given: Any) -> Any:
        """The function that the engine calls for a batch of rows."""
        if not len(rids):
            return pa.array([], pa.float64())
        rows = np.asarray(rids.to_numpy(zero_copy_only=False), dtype=np.int64)
        place = np.asarray(places.to_numpy(zero_copy_only=False), dtype=np.int64)
        scorers = self._scorers[int(given[0].as_py())]
        if place[0] == place[-1] and (len(scorers) == 1 or bool(np.all(place == place[0]))):
            out = scorers[int(place[0])](rows)
        else:
            out = np.full(len(rows), np.nan)
            for number in np.unique(place).tolist():
                mine = place == number
                out[mine] = scorers[number](rows[mine])
        return pa.array(out, pa.float64(), from_pandas=True)  # NaN becomes NULL

    # -- running ------------------------------------------------------------------------------------
    def run(self, request: Request) -> Answer:
        """Run a plan once.

        Raises:
            SqlError, LimitExceededError, OperationTimeoutError, ClosedError.
        """
        plan = request.plan
        if plan.direct is not None and plan.learned is not None:
            search = partial(self._search, request)
            direct = answer_directly(request, self._limits.results_max, search, self._masks)
            if direct is not None and direct.fits(self._limits.sql_result_bytes_max):
                return direct
        answer = self._run(request)
        if plan.direct is not None and not plan.explain:
            plan.learned = Learned(answer.columns, answer.table.schema)
        return answer

    def _run(self, request: Request) -> Answer:
        for member in request.members:  # before the clock of the statement runs: after a load it is long
            member.index.prepare()
            member.table.flush()
        with ExitStack() as stack:
            cursor = stack.enter_context(self._cursor(request))
            scorers, nearest = stack.enter_context(self._moment(cursor, request))
            parameters = stack.enter_context(self._bound(request, scorers))
            for key, hidden in request.plan.walk.used.items():
                cursor.register(hidden, request.tables[key])
                stack.callback(_forget, cursor, hidden)
            return self._answer(cursor, request, parameters, nearest)

    @contextmanager
    def _moment(
        self, cursor: Any, request: Request
    ) -> Iterator[tuple[dict[Score, Sequence[Scorer]], _Nearest | None]]:
        """Rows and scores of one moment: what is written while the statement runs does not touch it."""
        indexes = [m.index for m in request.members]
        scores = set(request.plan.scores.values())
        if not scores or request.scorer is None:
            for member in request.members:
                member.index.prepare()
                member.table.flush()
            yield {}, None
            return
        nearest: _Nearest | None = None
        with reading(indexes):
            for member in request.members:
                member.table.flush()
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            cursor.execute(f'SELECT 1 FROM "{self.front.names.everything}" LIMIT 0')  # noqa: S608 - fixes the state
            scorers = {score: request.scorer(score) for score in scores}
            if request.vectors is not None and "where_clause" not in request.plan.node:
                nearest = self._search(request, [m.pool() for m in request.members])
        try:
            yield scorers, nearest
        finally:
            with suppress(duckdb.Error):  # an error inside has rolled it back already
                cursor.execute("ROLLBACK")

    def _answer(
        self, cursor: Any, request: Request, parameters: dict[str, Any], nearest: _Nearest | None
    ) -> Answer:
        plan = request.plan
        expiring = any(m.table.may_expire(request.now_us) for m in request.members)
        if plan.top is not None and request.vectors is not None:
            chosen = self._chosen(cursor, request, parameters, nearest, expiring=expiring)
            if chosen is not None:
                variant = self.front.variant(plan, "chosen", expiring=expiring)
                self._check_tables(cursor, request, variant, parameters)
                mark = f"('{self.front.names.chosen}' = '{self.front.names.chosen}')"
                if variant.text.count(mark) != 1:
                    raise InternalError("a statement was not rewritten as it should have been")
                text = variant.text.replace(mark, chosen)
                return self._rows(cursor, request, Variant(text, variant.parameters), parameters, "index")
        variant = self.front.variant(plan, "whole", expiring=expiring)
        self._check_tables(cursor, request, variant, parameters)
        return self._rows(cursor, request, variant, parameters, "exact")

    def _check_tables(
        self, cursor: Any, request: Request, variant: Variant, parameters: Mapping[str, Any]
    ) -> None:
        """Let the engine say what the statement reads; anything but the caller's own stops it."""
        key = (_key(request.members), variant.text)
        if key in request.plan.tables_seen:
            return
        values = {name: parameters[name] for name in variant.parameters}
        shown = cursor.execute("EXPLAIN (FORMAT json) " + variant.text, values).fetchall()
        allowed = frozenset(m.table.qualified for m in request.members)
        restricted = frozenset(m.table.qualified for m in request.members if not m.reach.is_whole)
        for _, plan in shown:
            tree = json.loads(plan)
            binding.check_scans(tree, allowed)
            check_barriers(tree, restricted)
        if len(request.plan.tables_seen) < GROUPS_MAX:
            request.plan.tables_seen.add(key)

    def _rows(
        self, cursor: Any, request: Request, variant: Variant, parameters: dict[str, Any], how: str
    ) -> Answer:
        values = {name: parameters[name] for name in variant.parameters}
        parts = []
        rows = size = 0
        if request.plan.explain:
            return _explained(cursor.sql(variant.text, params=values), how)
        columns, opened = stream(cursor, variant.text, values)
        with opened as reader:  # closed, or the cursor stays busy
            schema = reader.schema
            for batch in batches(reader):
                rows += batch.num_rows
                size += batch.nbytes
                if rows > request.rows_max:
                    raise LimitExceededError(
                        f"the answer has more than {request.rows_max} rows",
                        hint="add a LIMIT, or ask for more",
                    )
                if size > self._limits.sql_result_bytes_max:
                    raise LimitExceededError(
                        "the answer is too large", hint=f"at most {self._limits.sql_result_bytes_max} bytes"
                    )
                parts.append(batch)
        return Answer(columns, pa.Table.from_batches(parts, schema=schema), how)

    def describe(self, request: Request, types: Sequence[str]) -> tuple[SqlColumn, ...]:
        """The columns of a plan, without running it; ``types`` of its parameters as ``sample`` knows them."""
        plan = request.plan
        if plan.explain:
            return (SqlColumn("plan", "VARCHAR"),)
        with ExitStack() as stack:
            cursor = stack.enter_context(self._cursor(request))
            for key, hidden in plan.walk.used.items():
                cursor.register(hidden, request.tables[key])
                stack.callback(_forget, cursor, hidden)
            variant = self.front.variant(plan, "whole", expiring=False)
            values: dict[str, Any] = dict.fromkeys(variant.parameters, 0)
            for number, type_ in enumerate(types, start=1):
                if f"p{number}" in values:
                    values[f"p{number}"] = sample(type_)
            self._check_tables(cursor, request, variant, values)
            return _columns(cursor.sql(variant.text, params=values))

    # -- the index ------------------------------------------------------------------------------------
    def _chosen(
        self,
        cursor: Any,
        request: Request,
        parameters: dict[str, Any],
        nearest: _Nearest | None,
        *,
        expiring: bool,
    ) -> str | None:
        """A condition that only the best rows fulfil; None: the index cannot tell, look at every row."""
        if expiring or nearest is None:
            pools = self._pools(cursor, request, parameters, expiring=expiring)
            nearest = None if pools is None else self._search(request, pools)
        if nearest is None:
            return None
        rows: dict[int, list[int]] = {}
        for number, rid in nearest:
            rows.setdefault(number, []).append(rid)
        names = self.front.names
        return rows_condition(names.rid, names.place, rows, single=len(request.members) == 1)

    def _pools(
        self, cursor: Any, request: Request, parameters: dict[str, Any], *, expiring: bool
    ) -> list[NDArray[np.int64] | None] | None:
        """The rows of each member that pass the conditions."""
        try:
            variant = self.front.variant(request.plan, "filter", expiring=expiring)
            self._check_tables(cursor, request, variant, parameters)
            found = cursor.execute(variant.text, {n: parameters[n] for n in variant.parameters}).fetchnumpy()
        except duckdb.BinderException:
            return None  # the condition names an alias of the select list
        rids = np.asarray(found[self.front.names.rid], dtype=np.int64)
        if len(request.members) == 1:
            return [request.members[0].opened_of(np.sort(rids))]
        places = np.asarray(found[self.front.names.place], dtype=np.int64)
        return [m.opened_of(np.sort(rids[places == n])) for n, m in enumerate(request.members)]

    def _search(self, request: Request, pools: Sequence[Pool | None]) -> _Nearest | None:
        """(member, rid) of the nearest rows, all that share the last one's score; None: not enough."""
        top = request.plan.top
        assert top is not None and request.vectors is not None
        wanted = number_of(top.limit, request.parameters) + number_of(top.offset, request.parameters)
        if not 0 < wanted <= self._limits.results_max:
            return None
        best: list[tuple[float, int, int]] = []
        for number, member in enumerate(request.members):
            lane, pool = member.index.vectors, pools[number]
            if lane is not None and (pool is None or len(pool)):
                hits, cosines = lane.search(request.vectors[number], max(wanted, DEPTH_MIN), pool)
                best += [(-c, number, r) for r, c in zip(hits.tolist(), cosines.tolist(), strict=True)]
        if len(best) < wanted:
            return None
        best.sort()
        return [(number, rid) for score, number, rid in best if score <= best[wanted - 1][0]]

    # -- parameters -----------------------------------------------------------------------------------
    @contextmanager
    def _bound(self, request: Request, scorers: Mapping[Score, Sequence[Scorer]]) -> Iterator[dict[str, Any]]:
        """Every parameter that a variant may take, the caller's and ours."""
        plan = request.plan
        needed = sorted(map(int, plan.walk.parameters))
        if needed and (needed[-1] > len(request.parameters)):
            raise SqlSyntaxError(
                "the number of parameters is not that of the statement",
                hint=f"it takes {needed[-1]}",
                sqlstate="08P01",
            )
        bound: dict[str, Any] = {"now": request.now_us}
        for number in needed:
            value = bound[f"p{number}"] = request.parameters[number - 1]
            if f"p{number}" in plan.walk.patterns:
                require_short(value)
        for number, (column, text) in enumerate(narrowings(plan)):
            bound |= narrowed(number, column, text, request.parameters, [m.index for m in request.members])
        mine: list[int] = []
        try:
            for name, score in handles(plan).items():
                handle = secrets.randbits(62)
                if score in scorers:
                    self._scorers[handle] = scorers[score]
                    mine.append(handle)
                bound[name] = handle
            yield bound
        finally:
            for handle in mine:
                del self._scorers[handle]

    # -- cursors ----------------------------------------------------------------------------------------
    @contextmanager
    def _cursor(self, request: Request) -> Iterator[Any]:
        """A cursor with the views of the request's members, watched and open to ``cancel``.

        Raises:
            ClosedError: the table of a member was dropped. What ``translate`` makes of the engine's errors.
        """
        group = self._group(request.members)
        try:
            with self._lent(group, request) as cursor:
                yield cursor
        except duckdb.Error as e:
            if any(m.table.is_dropped for m in request.members):
                raise ClosedError("the namespace was dropped") from None
            raise translate(e, request.statement, closed=self._store.closed) from None

    @contextmanager
    def _lent(self, group: _Group, request: Request) -> Iterator[Any]:
        try:
            cursor = group.idle.pop()
        except IndexError:
            cursor = self._new_cursor(request.members)
        cancel = request.cancel
        try:
            if cancel is not None:
                cancel.watch(cursor.interrupt)
                if cancel.cancelled:
                    raise OperationTimeoutError("the statement was cancelled")
            with self._watchdog.watch(cursor, cancel):
                yield cursor
        finally:
            if cancel is not None:
                cancel.watch(None)
            if group.retired or len(group.idle) >= IDLE_MAX:
                cursor.close()
            else:
                group.idle.append(cursor)

    def _group(self, members: Sequence[Member]) -> _Group:
        key = _key(members)
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(key)
                while len(self._groups) > GROUPS_MAX:
                    _, old = self._groups.popitem(last=False)
                    old.retired = True
                    _close_all(old.idle)
            self._groups.move_to_end(key)
        return group

    def _new_cursor(self, members: Sequence[Member]) -> Any:
        cursor = self._store.sql_cursor()
        try:
            for statement in view_statements(self.front.names, members):
                cursor.execute(statement)
        except BaseException:
            cursor.close()
            raise
        return cursor

    def close(self) -> None:
        """Stop what runs and close the cursors."""
        self._watchdog.stop()
        with self._lock:
            for group in self._groups.values():
                group.retired = True
                _close_all(group.idle)
        self._grammar.close()


def stream(cursor: Any, text: str, values: dict[str, Any] | list[Any]) -> tuple[tuple[SqlColumn, ...], Any]:
    """Columns and a reader of one statement.

    ``sql`` binds a statement twice, once for the names and once to run it, which is a third of the time of a
    small one. The library's own relations run theirs by ``_submit``; where that is gone, ``sql`` will do.
    """
    submit = getattr(cursor, "_submit", None)
    if submit is not None:
        result = submit(text, values or None, "stream", BATCH_ROWS)
        columns = tuple(SqlColumn(d[0], str(d[1]).strip('"')) for d in result.description)
        return columns, result.arrow_reader()
    relation = cursor.sql(text, params=values)
    if relation is None:
        raise InternalError("a statement gave no relation")
    return _columns(relation), relation.to_arrow_reader(BATCH_ROWS)


def _columns(relation: Any) -> tuple[SqlColumn, ...]:
    return tuple(
        SqlColumn(name, str(type_).strip('"'))
        for name, type_ in zip(relation.columns, relation.types, strict=True)
    )


def _key(members: Sequence[Member]) -> tuple[object, ...]:
    return tuple((m.table.qualified, m.table.namespace, m.reach.seen, m.reach.opened) for m in members)


def _close_all(cursors: deque[Any]) -> None:
    with suppress(IndexError):
        while True:
            cursors.pop().close()


def _forget(cursor: Any, name: str) -> None:
    with suppress(duckdb.Error):
        cursor.unregister(name)


def _explained(relation: Any, how: str) -> Answer:
    """EXPLAIN: how the rows would be found; nothing of the engine's own plan, which has foreign names."""
    text = {
        "index": "vector index: the filter is pushed in, the best rows are looked up",
        "exact": "exact: every row that passes the conditions is looked at",
    }[how]
    width = len(relation.columns)
    lines = [text, f"columns: {width}"]
    return Answer((SqlColumn("plan", "VARCHAR"),), pa.table({"plan": pa.array(lines, pa.string())}), how)
