"""The everyday forms that need no columnar engine: the same answers as the general way, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from random import Random
from time import sleep
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pytest
from tests.sql.conftest import OWN, OpenRoom, drafts

from strongroom.engine import Room
from strongroom.engine.session import Session
from strongroom.errors import SqlDataError, SqlSyntaxError, StrongroomError, TamperedError
from strongroom.model import SqlResult
from strongroom.model.sql_values import to_rows
from strongroom.recall.sql import FewRows, SqlEngine, direct_run

COLUMNS = (
    "memory_id", "namespace", "kind", "content", "metadata", "tags", "subject", "agent_id", "session_id",
    "sensitivity", "importance", "source", "derived_from", "created_at", "updated_at", "expires_at",
    "has_embedding", "version", "m.content", "content AS text", "memory_id AS Id",
)  # fmt: skip
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEXTS = {
    "kind": ("observation", "fact", "preference", "nothing"),
    "agent_id": ("agent-1", "agent-2", "agent-3", "it's"),
    "subject": ("user:1", "user:2", "?"),
    "session_id": ("s1", "s2", ""),
    "sensitivity": ("internal", "secret"),
}


class Counting:
    """How often the columnar engine was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        general = SqlEngine._run

        def run(engine: SqlEngine, request: Any) -> Any:
            self.runs += 1
            return general(engine, request)

        monkeypatch.setattr(SqlEngine, "_run", run)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def plan_of(session: Session, statement: str) -> Any:
    return session._engine.indexes.sql.front.plan(statement, session.sql_extension.offer, session._caller)


def both(
    session: Session, statement: str, parameters: Sequence[Any], counting: Counting
) -> tuple[SqlResult, SqlResult]:
    """The answer of the columnar engine and the direct one."""
    plan_of(session, statement).learned = None
    general = session.sql(statement, parameters)
    before = counting.runs
    direct = session.sql(statement, parameters)
    assert counting.runs == before, ("not answered directly", statement, parameters)
    return general, direct


def inner_rows(result: SqlResult) -> object:
    """The rows in order; where they are ordered by score, all scores, and the rows that no tie can move."""
    rows = list(result.rows())
    if result.columns[-1].name != "score" or not rows:
        return rows
    scores = [row[-1] for row in rows]
    return scores, sorted(repr(row) for row in rows if scores[0] > row[-1] > scores[-1])


class Statements:
    """Random statements of the direct forms; what can be is a literal or a parameter."""

    def __init__(self, seed: int, ids: Sequence[UUID]) -> None:
        self.random = Random(seed)
        self.ids = ids
        self.parameters: list[Any] = []

    def value(self, value: Any, literal: str | None = None) -> str:
        if literal is not None and self.random.random() < 0.5:
            return literal
        self.parameters.append(value)
        return f"${len(self.parameters)}"

    def text(self, value: str) -> str:
        return self.value(value, "'" + value.replace("'", "''") + "'")

    def condition(self) -> str:
        r = self.random
        column = r.choice([*TEXTS, *TEXTS, "importance", "importance", "created_at"])
        name = r.choice((column, f"m.{column}", column.upper()))
        if column in TEXTS:
            if r.random() < 0.3:
                chosen = [self.text(r.choice(TEXTS[column])) for _ in range(r.randrange(1, 4))]
                return f"{name} IN ({', '.join(chosen)})"
            return f"{name} = {self.text(r.choice(TEXTS[column]))}"
        if column == "importance":
            number = r.choice((0, 1, 0.5, round(r.random(), 2), r.random()))
            short = repr(number) if len(repr(number)) < 8 else None
            operand = lambda: self.value(number, short)  # noqa: E731
        else:
            moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=r.randrange(5000))
            operand = lambda: self.value(moment)  # noqa: E731
        if r.random() < 0.2:
            return f"{name} BETWEEN {operand()} AND {operand()}"
        operator = r.choice(("=", "<", "<=", ">", ">="))
        return f"{operand()} {operator} {name}" if r.random() < 0.3 else f"{name} {operator} {operand()}"

    def statement(self) -> tuple[str, list[Any]]:
        r = self.random
        self.parameters = []
        conditions = [self.condition() for _ in range(r.randrange(4))]
        columns = ", ".join(r.choice(COLUMNS) for _ in range(r.randrange(1, 6)))
        form = r.choice(("id", "count", "newest", "top"))
        if form == "id":
            wanted = r.choice([*self.ids, uuid4()])
            asked = r.choice((wanted, str(wanted), str(wanted).upper()))
            condition = "memory_id = " + self.value(asked, repr(str(wanted))) + r.choice(("", "::uuid"))
            conditions.insert(r.randrange(len(conditions) + 1), condition)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        cut = f" LIMIT {self.value(limit := r.randrange(1, 30), str(limit))}"
        if r.random() < 0.3:
            cut += f" OFFSET {self.value(offset := r.randrange(5), str(offset))}"
        if form == "id":
            return f"SELECT {columns} FROM memories m{where}{r.choice(('', ' LIMIT 3'))}", self.parameters
        if form == "count":
            return f"SELECT count(*) FROM memories m{where}", self.parameters
        if form == "newest":
            return (
                f"SELECT {columns} FROM memories AS m{where} ORDER BY created_at DESC{cut}",
                self.parameters,
            )
        rank = f"semantic_rank(content, {self.text(r.choice(('billing refund', 'train to rome')))})"
        return (
            f"SELECT {columns}, {rank} AS score FROM public.memories m{where} ORDER BY score DESC{cut}",
            self.parameters,
        )


def test_250_random_statements_answer_directly_as_the_columnar_engine_does(
    room: Room, caller: Session, counting: Counting
) -> None:
    statements = Statements(3, [row[0] for row in caller.sql("SELECT memory_id FROM memories")])
    compared = 0
    for _ in range(250):
        statement, parameters = statements.statement()
        plan_of(caller, statement).learned = None
        general = caller.sql(statement, parameters)
        before = counting.runs
        direct = caller.sql(statement, parameters)
        assert direct.columns == general.columns, statement
        assert direct.arrow().schema == general.arrow().schema, statement
        assert inner_rows(direct) == inner_rows(general), (statement, parameters)
        assert direct.plan == general.plan, statement
        compared += counting.runs == before
    assert compared > 200  # the rest are searches by meaning that have fewer rows than LIMIT asks for


OTHERS = [
    (
        "SELECT content FROM memories WHERE kind = 'fact' OR kind = 'goal' ORDER BY created_at DESC LIMIT 3",
        [],
    ),
    ("SELECT count(DISTINCT kind) FROM memories", []),
    ("SELECT count(*) FROM memories WHERE kind = $1", [None]),
    ("SELECT count(*) FROM memories WHERE kind = $1", [3]),
    ("SELECT count(*) FROM memories WHERE importance > $1", ["0.5"]),
    ("SELECT count(*) FROM memories WHERE importance > $1", [float("nan")]),
    ("SELECT count(*) FROM memories WHERE importance > 0.12345678901234567", []),
    ("SELECT count(*) FROM memories WHERE kind = 'fact' LIMIT 0", []),
    ("SELECT count(*) FROM memories GROUP BY importance", []),
    ("SELECT updated_at AS created_at FROM memories ORDER BY created_at DESC LIMIT 3", []),
    ("SELECT content FROM memories ORDER BY created_at LIMIT 3", []),
    ("SELECT DISTINCT kind FROM memories ORDER BY created_at DESC LIMIT 3", []),
    ("SELECT access_count FROM memories ORDER BY created_at DESC LIMIT 3", []),
    ("SELECT * FROM memories ORDER BY created_at DESC LIMIT 3", []),
    (
        "SELECT a.kind FROM memories a, memories b WHERE a.kind = 'fact' ORDER BY a.created_at DESC LIMIT 3",
        [],
    ),
    ("SELECT kind FROM memories AS x(kind, namespace) ORDER BY created_at DESC LIMIT 3", []),
    ("WITH memories AS (SELECT 1 AS kind) SELECT count(*) FROM memories WHERE kind = '1'", []),
    ("SELECT count(*) FROM memories WHERE kind COLLATE NOCASE = 'FACT'", []),
    ("SELECT content FROM memories ORDER BY created_at DESC LIMIT 50%", []),
    ("SELECT content FROM memories WHERE memory_id = 'not an id'", []),
    ("SELECT content FROM memories WHERE memory_id = $1", ["{00000000-0000-0000-0000-000000000000}"]),
    ("SELECT content FROM memories WHERE memory_id <> $1 ORDER BY created_at DESC LIMIT 1", [uuid4()]),
    ("SELECT row_number() OVER () FROM memories ORDER BY created_at DESC LIMIT 3", []),
    ("SELECT content FROM memories ORDER BY created_at DESC, content LIMIT 3", []),
    ("SELECT kind FROM memories USING SAMPLE 3 ORDER BY created_at DESC LIMIT 3", []),
    ("SELECT count(*) FROM memories WHERE created_at > $1", [datetime(2026, 2, 1)]),
]


def test_what_is_only_nearly_of_a_form_goes_the_general_way_every_time(
    caller: Session, counting: Counting
) -> None:
    def answer(statement: str, parameters: list[Any]) -> object:
        try:
            return sorted(map(repr, caller.sql(statement, parameters).rows()))
        except StrongroomError as e:
            return e.code

    for statement, parameters in OTHERS:
        first = answer(statement, parameters)
        before = counting.runs
        again = answer(statement, parameters)
        assert counting.runs > before or isinstance(again, str), statement
        if "SAMPLE" not in statement:
            assert again == first, statement


class Nowhere(tzinfo):
    """A time zone that does not know how far from UTC it is."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return None


_ANY = "SELECT count(*) FROM memories WHERE "
_NEWEST = "SELECT content FROM memories ORDER BY created_at DESC LIMIT $1"
_DIGITS = "9" * 5000  # more than Python makes a number of
EDGES: list[tuple[str, list[Any], list[Any]]] = [
    # a statement, parameters that teach it its columns, parameters from the edge
    (_ANY + "kind = $1", ["fact"], ["\ud800"]),
    (_ANY + "kind = $1", ["fact"], ["fact\x00"]),
    (_ANY + "kind = $1", ["fact"], ["FACT"]),
    (_ANY + "kind = $1", ["fact"], ["fact "]),
    (_ANY + "kind = $1", ["fact"], ["f\u0061\u0301ct"]),
    (_ANY + "kind = $1", ["fact"], [b"fact"]),
    (_ANY + "kind = $1", ["fact"], [True]),
    (_ANY + "kind IN ($1, $2)", ["fact", "goal"], ["fact", None]),
    (_ANY + "importance >= $1", [0.5], [float("inf")]),
    (_ANY + "importance >= $1", [0.5], [float("-inf")]),
    (_ANY + "importance >= $1", [0.5], [-0.0]),
    (_ANY + "importance >= $1", [0.5], [5e-324]),
    (_ANY + "importance >= $1", [0.5], [2**53 + 1]),
    (_ANY + "importance >= $1", [0.5], [10**40]),
    (_ANY + "importance <= $1", [0.5], [True]),
    (_ANY + "importance <= $1", [0.5], [Decimal("0.5")]),
    (_ANY + "importance <= $1", [0.5], [None]),
    (_ANY + "created_at > $1", [NOW], [datetime.max.replace(tzinfo=UTC)]),
    (_ANY + "created_at > $1", [NOW], [datetime.min.replace(tzinfo=UTC)]),
    (_ANY + "created_at > $1", [NOW], [datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))]),
    (_ANY + "created_at > $1", [NOW], [datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))]),
    (_ANY + "created_at > $1", [NOW], [NOW.replace(tzinfo=Nowhere())]),
    (_ANY + "created_at > $1", [NOW], [NOW.date()]),
    (_NEWEST, [3], [0]),
    (_NEWEST, [3], [-1]),
    (_NEWEST, [3], [2**31]),
    (_NEWEST, [3], [2**63 - 1]),
    (_NEWEST, [3], [2**64]),
    (_NEWEST, [3], [10**30]),
    (_NEWEST, [3], [True]),
    (_NEWEST, [3], [None]),
    (_NEWEST, [3], ["3"]),
    (_NEWEST, [3], [2.5]),
    (_NEWEST, [3], []),
    (_NEWEST + " OFFSET $2", [3, 1], [3]),
    (_NEWEST + " OFFSET $2", [3, 1], [3, -1]),
    (_NEWEST + " OFFSET $2", [3, 1], [3, 2**63 - 1]),
    (_NEWEST + " OFFSET $2", [3, 1], [2**62, 2**62]),
    ("SELECT content FROM memories WHERE memory_id = $1 LIMIT $2", [uuid4(), 1], [uuid4(), 10**30]),
    ("SELECT content FROM memories WHERE memory_id = $1 LIMIT $2", [uuid4(), 1], [uuid4(), -1]),
    ("SELECT content FROM memories WHERE memory_id = $1", [uuid4()], [uuid4().bytes]),
    ("SELECT content FROM memories WHERE memory_id = $1", [uuid4()], [uuid4().int]),
    ("SELECT content FROM memories WHERE memory_id = $1", [uuid4()], [" " + str(uuid4())]),
    ("SELECT content FROM memories WHERE memory_id = $1", [uuid4()], [None]),
]


@pytest.mark.parametrize(("statement", "plain", "edge"), EDGES)
def test_parameters_from_the_edges_of_their_types_are_answered_as_the_general_way_does(
    caller: Session, statement: str, plain: list[Any], edge: list[Any]
) -> None:
    """The same rows or the same typed error, with the engine and without it; never an internal one."""

    def answer() -> object:
        try:
            return list(caller.sql(statement, edge).rows())
        except StrongroomError as e:
            return e.code, getattr(e, "sqlstate", None)

    plan_of(caller, statement).direct = None
    general = answer()
    assert not (isinstance(general, tuple) and general[0] == "internal_error")
    caller._engine.indexes.sql.front._known.clear()
    caller.sql(statement, plain)
    assert plan_of(caller, statement).learned is not None
    assert answer() == general


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT content FROM memories ORDER BY created_at DESC LIMIT {_DIGITS}",
        f"SELECT content FROM memories ORDER BY created_at DESC LIMIT 1 OFFSET {_DIGITS}",
        f"SELECT semantic_rank(content, 'x') FROM memories ORDER BY {_DIGITS} DESC LIMIT 3",
        f"SELECT semantic_rank(content, 'x') AS s FROM memories ORDER BY s DESC LIMIT {_DIGITS}",
        f"SELECT kind, count(*) FROM memories GROUP BY {_DIGITS}",
        f"SELECT kind, count(*) FROM memories GROUP BY kind ORDER BY {_DIGITS} LIMIT 1",
        f"SELECT kind, count(*) FROM memories GROUP BY kind LIMIT {_DIGITS}",
    ],
)
def test_a_place_or_a_limit_of_5000_digits_is_a_typed_error(caller: Session, statement: str) -> None:
    for _ in range(2):
        with pytest.raises((SqlSyntaxError, SqlDataError)):
            caller.sql(statement)


def test_what_is_written_changed_deleted_or_expired_shows_in_the_next_direct_answer(
    room: Room, caller: Session, counting: Counting
) -> None:
    random = Random(5)
    newest = "SELECT memory_id, version FROM memories WHERE agent_id = $1 ORDER BY created_at DESC LIMIT 5"
    count = "SELECT count(*) FROM memories WHERE agent_id = $1 AND importance >= $2"
    alive = [(row[0], row[1]) for row in caller.sql("SELECT memory_id, namespace FROM memories").rows()]
    for step in range(60):
        action = random.choice(("store", "update", "delete", "expire"))
        memory_id, namespace = random.choice(alive)
        if action == "store":
            made = room.store(f"new {step}", namespace=OWN[step % 2], agent_id="agent-1", importance=0.9)
            alive.append((made.memory_id, made.namespace))
        elif action == "update":
            room.update(memory_id, namespace=namespace, agent_id="agent-1", importance=random.random())
        elif action == "delete":
            room.delete(memory_id, namespace=namespace)
            alive.remove((memory_id, namespace))
        else:
            room.update(
                memory_id, namespace=namespace, expires_at=datetime.now(UTC) + timedelta(seconds=0.02)
            )
            alive.remove((memory_id, namespace))
        for statement, parameters in ((newest, ["agent-1"]), (count, ["agent-1", 0.4])):
            general, direct = both(caller, statement, parameters, counting)
            if action != "expire":
                assert direct.arrow().equals(general.arrow()), (step, action)
        if action == "expire":  # not between the two answers of the next step
            sleep(0.05)


def test_a_caller_sees_no_foreign_row_in_a_direct_answer(
    room: Room, caller: Session, counting: Counting
) -> None:
    secret = room.sql("SELECT memory_id FROM memories WHERE namespace = 'company_b/secret'").fetch(1)[0][0]
    mine, none = both(caller, "SELECT content FROM memories WHERE memory_id = $1", [secret], counting)
    assert len(mine) == len(none) == 0
    _, direct = both(caller, "SELECT count(*) FROM memories", [], counting)
    assert direct.fetch() == [(120,)]
    assert room.sql("SELECT count(*) FROM memories").fetch() == [(151,)]  # learned from the caller's run


def test_a_row_that_was_put_back_in_the_ledger_is_noticed(
    room: Room, caller: Session, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = "SELECT content FROM memories ORDER BY created_at DESC LIMIT 3"
    both(caller, statement, [], counting)
    one = caller.sql("SELECT memory_id FROM memories LIMIT 1").fetch()[0][0]
    lookup = "SELECT content FROM memories WHERE memory_id = $1"
    both(caller, lookup, [one], counting)
    monkeypatch.setattr("strongroom.ledger._read.read_parts", lambda *_: [])
    for asked, parameters in ((statement, []), (lookup, [one])):
        with pytest.raises(TamperedError):
            caller.sql(asked, parameters)


def test_memories_of_which_only_the_id_is_asked_for_stay_sealed(
    room: Room, caller: Session, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids and scores are the general way's, in an order and in a table, and no row is read or opened."""
    statement = (
        "SELECT memory_id, semantic_rank(content, $1) AS score FROM memories WHERE importance >= 0.3"
        " ORDER BY score DESC LIMIT 20"
    )
    newest = "SELECT memory_id FROM memories ORDER BY created_at DESC LIMIT 3"
    both(caller, newest, [], counting)
    for limit in (20, 10):  # in a table, and as few rows
        asked = statement.replace("20", str(limit))
        general, _ = both(caller, asked, ["the invoice is wrong"], counting)
        with monkeypatch.context() as patched:
            patched.setattr("strongroom.ledger._read.read_parts", lambda *_: [])
            direct = caller.sql(asked, ["the invoice is wrong"])
            assert direct.row_count == limit and inner_rows(direct) == inner_rows(general)
            with pytest.raises(TamperedError):  # ids of rows that are found otherwise are looked at
                caller.sql(newest)


def test_columns_with_very_many_texts_are_left_to_the_columnar_engine(
    open_room: OpenRoom, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.recall._facets._CODES_MAX", 50)
    room = open_room()
    room.store_many([{**d, "session_id": f"s{i}"} for i, d in enumerate(drafts(120))])
    statement = "SELECT count(*) FROM memories WHERE session_id = $1"
    assert room.sql(statement, ["s7"]).fetch() == [(1,)]
    before = counting.runs
    assert room.sql(statement, ["s8"]).fetch() == [(1,)]
    assert counting.runs == before + 1
    both(room, "SELECT count(*) FROM memories WHERE kind = 'fact'", [], counting)


def test_after_a_restart_from_a_snapshot_the_direct_answers_are_the_same(
    open_room: OpenRoom, counting: Counting
) -> None:
    room = open_room()
    room.store_many(drafts(120))
    room.flush()
    room.close()
    room = open_room()
    statements = Statements(11, [row[0] for row in room.sql("SELECT memory_id FROM memories")])
    for _ in range(60):
        statement, parameters = statements.statement()
        plan_of(room, statement).learned = None
        general, direct = room.sql(statement, parameters), room.sql(statement, parameters)
        assert inner_rows(direct) == inner_rows(general), (statement, parameters)


def test_a_looked_up_row_makes_no_table_until_it_is_asked_for(
    room: Room, caller: Session, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a look-up are values already; the table that is made for them has the same."""
    memory_id = next(iter(caller.sql("SELECT memory_id FROM memories")))[0]
    statement = (
        "SELECT memory_id, content, tags, metadata, importance, has_embedding, version, subject, derived_from"
        " FROM memories WHERE memory_id = $1"
    )
    both(caller, statement, [memory_id], counting)
    made: list[object] = []
    real = direct_run._table

    def noted(*arguments: Any) -> Any:
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(direct_run, "_table", noted)
    found = caller.sql(statement, [memory_id])
    rows = found.fetch()
    assert len(rows) == found.row_count == 1 and made == []
    assert found.fetch() == []
    table = found.arrow()
    assert table is found.arrow() and len(made) == 1
    assert to_rows(table, 0, 1, tuple(c.type for c in found.columns)) == rows == list(found.rows())
    assert [type(v) for v in rows[0]] == [UUID, str, list, str, float, bool, int, type(rows[0][7]), list]


def test_few_rows_are_measured_by_their_table_only_when_in_doubt() -> None:
    """A guess that is too high lets the table decide; one that fits needs none."""
    table = pa.table({"a": pa.array(["x" * 100])})
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return table

    few = FewRows([("x" * 100,)], make)
    assert few.fits(1000) and made == []
    assert few.fits(table.nbytes) and made == [1]
    assert not few.fits(table.nbytes - 1) and made == [1]
