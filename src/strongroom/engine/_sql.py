"""sql: authorize, check the statement, embed its texts, run it over the caller's namespaces.

The audit entry holds no text of the statement, which may hold content: a keyed digest, by which equal
statements can be recognized, and the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from strongroom import audit
from strongroom.engine._call import Call
from strongroom.engine._counts import counts, queue_pages
from strongroom.engine._decide import decide
from strongroom.engine._read import Wanted, chosen_namespaces, note_unreadable, open_answer
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._sealed import refuse_statement
from strongroom.engine._validate import check_count, check_id, check_text, check_values
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import InvalidInputError, InvalidVectorError, LimitExceededError
from strongroom.model import (
    Action,
    AuditEntry,
    Authentication,
    Memory,
    SqlCancel,
    SqlDescription,
    SqlResult,
)
from strongroom.model.rows import WHOLE
from strongroom.model.sql_values import to_rows
from strongroom.recall import sql
from strongroom.recall.columnar import ColumnarTable

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_PAGE = 1000  # audit entries that are read at once
_TIME = pa.timestamp("us", "UTC")
_UUID = pa.uuid()
_TYPES: Mapping[str, Any] = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMPTZ": _TIME,
    "VARCHAR[]": pa.list_(pa.string()),
    "UUID": _UUID,
}


@dataclass(frozen=True, slots=True, eq=False)
class SqlExtension:
    """What a surface offers beside the relations of every surface, for example a catalogue.

    ``offer``: names and columns. ``tables``: what makes the rows of a relation, by (schema, name), given
    the namespaces of the caller; called only for relations that a statement names.
    """

    offer: sql.Offer = field(default_factory=sql.Offer)
    tables: Mapping[tuple[str, str], Callable[[Sequence[str]], Any]] = field(default_factory=dict)


NO_EXTENSION = SqlExtension()


@dataclass(frozen=True, slots=True)
class SqlRequest:
    """The arguments of a statement, unchecked."""

    statement: str
    parameters: Sequence[object]
    namespaces: Sequence[str] | None
    rows_max: int | None
    cancel: SqlCancel | None
    extension: SqlExtension
    statement_id: object = None


def cancel_sql(call: Call, statement_id: object) -> bool:
    found = call.engine.statements.cancel(call.caller, UUID(bytes=check_id(statement_id, "statement_id")))
    call.count = int(found)
    return found


def run_sql(call: Call, request: SqlRequest) -> SqlResult:
    engine = call.engine
    limits = engine.config.limits
    rows_max = limits.sql_rows_max
    if request.rows_max is not None:
        rows_max = min(rows_max, check_count(request.rows_max, "rows_max", 1, 2**31))
    if isinstance(request.parameters, str | bytes) or not isinstance(request.parameters, Sequence):
        raise InvalidInputError("parameters are a list of values")
    if len(request.parameters) > limits.sql_parameters_max:
        raise LimitExceededError("too many parameters", hint=f"at most {limits.sql_parameters_max}")
    check_values(request.parameters, limits.sql_nesting_max, limits.sql_value_parts_max)
    entries = _authorized(call, request.statement, request.namespaces)
    started = perf_counter()
    plan = engine.indexes.sql.front.plan(request.statement, request.extension.offer, call.caller)
    engine.metrics.step("sql_front", perf_counter() - started)
    if plan.walk.bases:
        _require_few(call, entries)
        refuse_statement(entries, plan)
    texts = _Texts(call, request.parameters)
    cancel = request.cancel or SqlCancel()
    if plan.scores:
        entries = [engine.models.current(entry) for entry in entries]
        texts.embed(plan, entries)
    members = _members(call, entries) if plan.walk.bases else []
    call.notices.clear()
    made = sql.Request(
        plan=plan,
        statement=request.statement,
        members=members,
        parameters=request.parameters,
        now_us=engine.now_us(),
        rows_max=rows_max,
        tables=_tables(call, plan, entries, request.extension, cancel),
        scorer=partial(texts.scorers, members, entries) if plan.scores else None,
        vectors=texts.of_top(plan, entries),
        cancel=cancel,
        open=partial(_opened, call, entries, members) if members and not call.reaches else None,
    )
    started = perf_counter()
    name = request.statement_id
    statement_id = None if name is None else UUID(bytes=check_id(name, "statement_id"))
    with engine.statements.running(call.caller, statement_id, cancel):
        answer = engine.indexes.sql.run(made)
    engine.metrics.step("sql_run", perf_counter() - started)
    call.count = answer.table.num_rows
    types = tuple(column.type for column in answer.columns)
    if members:
        note_unreadable(call, {m.index: e for m, e in zip(members, entries, strict=True)})
    return SqlResult(answer.columns, answer.table, partial(_rows, types), answer.plan, tuple(call.notices))


def describe_sql(
    call: Call, statement: str, parameter_types: Sequence[str], extension: SqlExtension
) -> SqlDescription:
    engine = call.engine
    entries = _authorized(call, statement, None)
    plan = engine.indexes.sql.front.plan(statement, extension.offer, call.caller)
    if plan.walk.bases:
        _require_few(call, entries)
        refuse_statement(entries, plan)
    types = sql.parameter_types(plan, tuple(str(t) for t in parameter_types))
    empty = {key: _empty(key, extension) for key in plan.walk.used}
    request = sql.Request(
        plan, statement, _members(call, entries) if plan.walk.bases else [], [], 0, 1, empty
    )
    return SqlDescription(types, engine.indexes.sql.describe(request, types))


def _rows(types: tuple[str, ...], table: Any, start: int, count: int) -> list[tuple[Any, ...]]:
    if isinstance(table, sql.FewRows):
        return table.rows[start : start + max(0, count)]
    return to_rows(table, start, count, types)


def _authorized(call: Call, statement: str, patterns: Sequence[str] | None) -> list[NamespaceEntry]:
    """The namespaces that the statement sees; grants are looked at anew for every execution."""
    digest = call.engine.vault.purpose_key(SYSTEM_NS, "sql-digest").mac(
        str(statement).encode("utf-8", "replace")
    )
    call.reason = f"statement {digest[:12].hex()}"
    return chosen_namespaces(call, Action.SQL, ("*",) if patterns is None else patterns)


def _require_few(call: Call, entries: Sequence[NamespaceEntry]) -> None:
    """Raises: LimitExceededError: memories of so many namespaces make no table that could be asked."""
    most = call.engine.config.limits.sql_namespaces_max
    if len(entries) > most:
        raise LimitExceededError(
            f"the statement reaches {len(entries)} namespaces",
            hint=f"at most {most}: name those that it is about, or ask with a key for fewer",
        )


def _members(call: Call, entries: Sequence[NamespaceEntry]) -> list[sql.Member]:
    made = []
    for entry in entries:
        index = call.engine.indexes.ready(entry)
        reach = call.reaches.get(entry.ns, WHOLE)
        made.append(sql.Member(cast(ColumnarTable, index.table), index, reach))
    return made


def _opened(
    call: Call,
    entries: Sequence[NamespaceEntry],
    members: Sequence[sql.Member],
    places: Sequence[sql.Place],
) -> list[Memory] | None:
    """The memories at these places, without their counters; None: one has changed since the index was asked.

    Raises:
        TamperedError: a row is gone or older than what this process has already seen of it.
    """
    wanted = []
    for place in places:
        entry, index = entries[place.member], members[place.member].index
        embedded = index.has_vector(place.memory_id)
        wanted.append(Wanted(entry, index, place.memory_id, place.seq, embedded=embedded))
    return open_answer(call, wanted)


# -- texts ------------------------------------------------------------------------------------------------
class _Texts:
    """The texts of a statement's functions of meaning, each embedded once per model."""

    def __init__(self, call: Call, parameters: Sequence[object]) -> None:
        self._call = call
        self._parameters = parameters
        self._vectors: dict[tuple[int, str], NDArray[np.float32]] = {}

    def text(self, text: sql.Text) -> str:
        value: object = text.literal
        if text.parameter is not None:
            number = int(text.parameter) - 1
            value = self._parameters[number] if number < len(self._parameters) else None
        return check_text(
            value, "the text of a function of meaning", self._call.engine.config.limits.query_bytes_max
        )

    def embed(self, plan: sql.Plan, entries: Sequence[NamespaceEntry]) -> None:
        """Raises: EmbeddingError; InvalidVectorError: a namespace has no model."""
        engine = self._call.engine
        started = perf_counter()
        for score in set(plan.scores.values()):
            text = self.text(score.text)
            for entry in entries if score.kind != "keyword" else ():
                if not engine.models.embeds(entry):
                    raise InvalidVectorError(
                        "a namespace has no embedding model", hint="keyword_rank needs none"
                    )
                key = (entry.model_no, text)
                if key not in self._vectors:
                    self._vectors[key] = engine.models.embed_query(entry, text)
        engine.metrics.step("embed_query", perf_counter() - started)

    def _of(self, score: sql.Score, entries: Sequence[NamespaceEntry]) -> list[NDArray[np.float32]]:
        text = self.text(score.text)
        return [self._vectors[entry.model_no, text] for entry in entries]

    def scorers(
        self, members: Sequence[sql.Member], entries: Sequence[NamespaceEntry], score: sql.Score
    ) -> Sequence[sql.Scorer]:
        indexes, reach = [m.index for m in members], [m.reach for m in members]
        if score.kind == "keyword":
            return sql.keyword_scorers(indexes, self.text(score.text), reach)
        if score.kind == "hybrid":
            return sql.hybrid_scorers(indexes, self._of(score, entries), self.text(score.text), reach)
        return sql.semantic_scorers(indexes, self._of(score, entries), reach)

    def of_top(self, plan: sql.Plan, entries: Sequence[NamespaceEntry]) -> list[NDArray[np.float32]] | None:
        return None if plan.top is None or not entries else self._of(plan.top.score, entries)


# -- the small relations ------------------------------------------------------------------------------------
def _tables(
    call: Call,
    plan: sql.Plan,
    entries: Sequence[NamespaceEntry],
    extension: SqlExtension,
    cancel: SqlCancel,
) -> dict[tuple[str, str], Any]:
    """Arrow tables of the relations that the statement names, with what the caller may see."""
    made: dict[tuple[str, str], Any] = {}
    for key in plan.walk.used:
        if key in extension.tables:
            made[key] = extension.tables[key]([entry.name for entry in entries])
        elif key == ("", "namespaces"):
            made[key] = _arrow(key[1], _namespace_rows(call, entries))
        elif key == ("", "embedding_queue"):
            made[key] = _arrow(key[1], _queue_rows(call, entries))
        else:
            made[key] = _arrow(key[1], _audit_rows(call, cancel))
    return made


def _empty(key: tuple[str, str], extension: SqlExtension) -> Any:
    if key in extension.tables:
        return extension.tables[key]([])
    return _arrow(key[1], [])


def _arrow(name: str, rows: Sequence[Sequence[Any]]) -> Any:
    columns = sql.RELATIONS[name]
    data = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    arrays = [_array(values, type_) for values, type_ in zip(data, columns.values(), strict=True)]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _array(values: Sequence[Any], type_: str) -> Any:
    if type_ != "UUID[]":
        return pa.array(values, _TYPES[type_])
    starts = np.cumsum([0, *(len(v) for v in values)], dtype=np.int32)
    flat = pa.array([raw for v in values for raw in v], _UUID)
    return pa.ListArray.from_arrays(pa.array(starts), flat)


def _namespace_rows(call: Call, entries: Sequence[NamespaceEntry]) -> list[tuple[Any, ...]]:
    rows = []
    for entry in entries:
        known = counts(call, entry)
        rows.append(
            (
                entry.name,
                entry.created_us,
                known.memories,
                known.embedded,
                known.pending,
                entry.model,
                entry.language,
            )
        )
    return rows


def _queue_rows(call: Call, entries: Sequence[NamespaceEntry]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    limit = call.engine.config.limits.sql_rows_max
    for entry in entries:
        for page in queue_pages(call, entry):
            rows += [(entry.name, r.memory_id, r.dead, r.attempts, r.error_code) for r in page]
            if len(rows) > limit:
                raise LimitExceededError(
                    "the embedding queue is too long for SQL", hint="use: strongroom queue"
                )
    return rows


def _audit_rows(call: Call, cancel: SqlCancel) -> list[tuple[Any, ...]]:
    """The newest entries of the log for who administers the store, else the newest of the caller's own.

    Those come without their number in the log, which would count what others do.
    """
    engine = call.engine
    most = engine.config.limits.sql_audit_entries_max
    if decide(call, Action.ADMINISTER, None).decision.allowed:
        return [_audit_row(e, e.seq, e.outcome, e.reason) for e in _newest_audit(engine, most)]
    own = engine.own_entries.newest(call.caller, most, cancel)
    if call.principal.authentication is Authentication.TOKEN:  # it has the name of its key, and sees its own
        own = [e for e in own if dict(e.details).get("token", "") == call.details.get("token")]
    return [_audit_row(e, None, *_as_answered(e)) for e in own]


def _newest_audit(engine: Engine, most: int) -> Iterator[AuditEntry]:
    after = max(0, engine.ledger.audit_count() - most)
    while page := engine.ledger.audit_entries(after, _PAGE):
        for seq, sealed in page:
            yield audit.decode(engine.vault.open_audit(seq, sealed), seq)
        after = page[-1][0]


def _audit_row(e: AuditEntry, number: int | None, outcome: str, reason: str) -> tuple[Any, ...]:
    return (
        number, e.at_us, e.request_id, e.principal, e.surface, e.action, list(e.namespaces), outcome,
        reason, list(e.memory_ids), e.count,
    )  # fmt: skip


def _as_answered(entry: AuditEntry) -> tuple[str, str]:
    """Outcome and reason as their caller knows them: a denial that looked like an absence stays one."""
    answered = dict(entry.details).get("answered")
    if answered is None:
        return entry.outcome, "" if entry.outcome == "denied" else entry.reason
    return answered, ""
