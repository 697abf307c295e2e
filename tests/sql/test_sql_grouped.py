"""Groupings that need no columnar engine: the same groups as the general way gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from time import sleep
from typing import Any

import pytest
from tests.sql.conftest import OWN, OpenRoom, drafts
from tests.sql.test_sql_direct import Counting, Statements, both, plan_of

from strongroom.engine import Room
from strongroom.engine.session import Session
from strongroom.errors import StrongroomError
from strongroom.model import SqlResult

COLUMNS = ("kind", "agent_id", "subject", "session_id", "sensitivity", "namespace")
AGGREGATES = ("count(*)", "count()", "sum(importance)", "avg(m.importance)", "AVG(importance)")


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def rows_of(result: SqlResult) -> list[tuple[Any, ...]]:
    """The rows in order, sums without their last digits."""
    return [tuple(round(v, 9) if isinstance(v, float) else v for v in row) for row in result.rows()]


class Groupings(Statements):
    """Random statements of the form: (statement, parameters, whether every row has its place)."""

    def grouping(self) -> tuple[str, list[Any], bool]:
        r = self.random
        self.parameters = []
        columns = r.sample(COLUMNS, r.randrange(1, 4))
        written = [r.choice((c, f"m.{c}", c.upper(), f'"{c}"')) for c in columns]
        items = [f"{name}{r.choice(('', f' AS c{n}'))}" for n, name in enumerate(written)]
        items += [f"{r.choice(AGGREGATES)}{r.choice(('', f' AS a{n}'))}" for n in range(r.randrange(3))]
        order = list(range(len(items)))
        r.shuffle(order)
        selected = [items[n] for n in order]
        by = [
            str(order.index(n) + 1) if r.random() < 0.3 else r.choice((columns[n], written[n]))
            for n in range(len(columns))
        ]
        conditions = [self.condition() for _ in range(r.randrange(3))]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        text = f"SELECT {', '.join(selected)} FROM memories m{where} GROUP BY {', '.join(by)}"
        if r.random() < 0.5:
            return text, self.parameters, False
        keys = []
        for n in range(len(columns)):
            name = f"c{n}" if items[n].endswith(f" AS c{n}") else written[n]
            key = r.choice((name, written[n], str(order.index(n) + 1)))
            keys.append(f"{key} {r.choice(('', 'ASC', 'DESC', 'DESC NULLS LAST'))}")
        if "count(*)" in items:
            keys.insert(0, r.choice(("count(*) DESC", f"{selected.index('count(*)') + 1}")))
        text += f" ORDER BY {', '.join(keys)}"
        if r.random() < 0.5:
            text += f" LIMIT {self.value(limit := r.randrange(5), str(limit))}"
            text += f" OFFSET {self.value(offset := r.randrange(3), str(offset))}"
        return text, self.parameters, True


def test_200_random_groupings_are_answered_as_the_columnar_engine_does(
    room: Room, caller: Session, counting: Counting
) -> None:
    """Groups, counts, sums, orders and limits, over two namespaces, with and without conditions."""
    groupings = Groupings(13, [])
    for _ in range(200):
        statement, parameters, is_ordered = groupings.grouping()
        general, direct = both(caller, statement, parameters, counting)
        assert direct.columns == general.columns and direct.plan == general.plan, statement
        assert direct.arrow().schema == general.arrow().schema, statement
        found = [rows_of(general), rows_of(direct)]
        if not is_ordered:
            found = [sorted(rows, key=repr) for rows in found]
        assert found[0] == found[1], (statement, parameters)
        assert direct.arrow().to_pylist() == [
            dict(zip(direct.arrow().column_names, row, strict=True)) for row in direct.rows()
        ] or len(set(direct.arrow().column_names)) < len(direct.columns), statement


OTHERS = [
    "SELECT kind, count(*) FROM memories GROUP BY kind HAVING count(*) > 3",
    "SELECT kind, count(*) FILTER (WHERE importance > 0.5) FROM memories GROUP BY kind",
    "SELECT kind, count(DISTINCT agent_id) FROM memories GROUP BY kind",
    "SELECT kind, avg(DISTINCT importance) FROM memories GROUP BY kind",
    "SELECT kind, sum(importance ORDER BY created_at) FROM memories GROUP BY kind",
    "SELECT kind, max(importance) FROM memories GROUP BY kind",
    "SELECT kind, avg(importance + 1) FROM memories GROUP BY kind",
    "SELECT kind, avg(version) FROM memories GROUP BY kind",
    "SELECT kind, count(agent_id) FROM memories GROUP BY kind",
    "SELECT kind, count(*) FROM memories GROUP BY ROLLUP (kind)",
    "SELECT kind, agent_id, count(*) FROM memories GROUP BY CUBE (kind, agent_id)",
    "SELECT kind, agent_id, count(*) FROM memories GROUP BY GROUPING SETS ((kind, agent_id), (kind))",
    "SELECT count(*) FROM memories GROUP BY ()",
    "SELECT upper(kind), count(*) FROM memories GROUP BY 1",
    "SELECT kind AS k, count(*) FROM memories GROUP BY k",
    "SELECT source, count(*) FROM memories GROUP BY source",
    "SELECT kind, count(*) FROM memories GROUP BY kind, importance",
    "SELECT DISTINCT count(*) FROM memories GROUP BY kind",
    "SELECT kind, count(*) FROM memories GROUP BY kind ORDER BY agent_id IS NULL, kind",
    "SELECT kind, count(*) AS n FROM memories GROUP BY kind ORDER BY n + 1",
    "SELECT agent_id, count(*) FROM memories GROUP BY agent_id ORDER BY agent_id NULLS FIRST",
    "SELECT agent_id, count(*) FROM memories GROUP BY agent_id ORDER BY count(*), agent_id LIMIT 50%",
    "SELECT agent_id COLLATE NOCASE, count(*) FROM memories GROUP BY 1",
    "SELECT agent_id, count(*) FROM memories WHERE kind = 'fact' OR kind = 'goal' GROUP BY agent_id",
    "SELECT agent_id, row_number() OVER (ORDER BY agent_id) FROM memories GROUP BY agent_id",
    "SELECT a.kind, count(*) FROM memories a, memories b GROUP BY a.kind",
    "SELECT kind, count(*) FROM memories WHERE memory_id IS NOT NULL GROUP BY kind",
    "WITH memories AS (SELECT 1 AS kind) SELECT kind, count(*) FROM memories GROUP BY kind",
    "SELECT kind AS agent_id, count(*) FROM memories GROUP BY kind ORDER BY agent_id",
    "SELECT agent_id FROM memories GROUP BY kind",
    "SELECT count(*) AS kind, kind FROM memories GROUP BY 2 ORDER BY kind",
]


def test_groupings_that_are_only_nearly_of_the_form_go_the_general_way_every_time(
    caller: Session, counting: Counting
) -> None:
    def answer(statement: str) -> object:
        try:
            return sorted(map(repr, rows_of(caller.sql(statement))))
        except StrongroomError as e:
            return e.code

    for statement in OTHERS:
        first, before = answer(statement), counting.runs
        again = answer(statement)
        assert counting.runs > before or isinstance(again, str), statement
        assert again == first, statement


def test_what_is_written_changed_deleted_or_expired_shows_in_the_next_groups(
    room: Room, caller: Session, counting: Counting
) -> None:
    """Also an agent that nobody had before, and one whose last memory goes."""
    statement = (
        "SELECT namespace, agent_id, count(*), sum(importance) FROM memories GROUP BY 1, 2 ORDER BY 1, 2"
    )
    soon = datetime.now(UTC) + timedelta(seconds=0.1)
    made = room.store("new", namespace=OWN[0], agent_id="a new agent", importance=0.25)
    room.store("short", namespace=OWN[1], agent_id="a new agent", importance=0.75, expires_at=soon)
    random, ids = Random(5), [(r[0], r[1]) for r in caller.sql("SELECT memory_id, namespace FROM memories")]

    def mine(result: SqlResult) -> list[tuple[Any, ...]]:
        return [row for row in rows_of(result) if row[1] == "a new agent"]

    sleep(0.15)
    general, direct = both(caller, statement, [], counting)
    assert mine(general) == mine(direct) == [(OWN[0], "a new agent", 1, 0.25)]
    room.update(made.memory_id, namespace=OWN[0], importance=0.5)
    assert mine(both(caller, statement, [], counting)[1]) == [(OWN[0], "a new agent", 1, 0.5)]
    room.delete(made.memory_id, namespace=OWN[0])
    for memory_id, namespace in random.sample(ids, 20):
        if memory_id != made.memory_id:
            room.delete(memory_id, namespace=namespace)
    general, direct = both(caller, statement, [], counting)
    assert mine(direct) == [] and rows_of(direct) == rows_of(general)


def test_groups_hold_no_foreign_row(room: Room, caller: Session, counting: Counting) -> None:
    """The same statement, learnt by both: each gets the groups of its own namespaces."""
    statement = "SELECT namespace, agent_id, count(*) AS n FROM memories GROUP BY 1, 2 ORDER BY 1, 2"
    _, direct = both(caller, statement, [], counting)
    assert {row[0] for row in direct.rows()} == set(OWN) and sum(row[2] for row in direct.rows()) == 120
    _, everything = both(room, statement, [], counting)
    assert sum(row[2] for row in everything.rows()) == 151


def test_rows_max_and_missing_parameters_are_told_as_ever(caller: Session, counting: Counting) -> None:
    statement = "SELECT agent_id, count(*) FROM memories GROUP BY agent_id ORDER BY 1 LIMIT $1"
    both(caller, statement, [4], counting)
    for parameters in ([], [None], ["3"], [-1], [2**64], [True]):
        plan_of(caller, statement).learned, kept = None, plan_of(caller, statement).learned
        errors = []
        for learned in (None, kept):
            plan_of(caller, statement).learned = learned
            try:
                errors.append((rows_of(caller.sql(statement, parameters)), None))
            except StrongroomError as e:
                assert e.code != "internal_error"
                errors.append((e.code, getattr(e, "sqlstate", None)))
        plan_of(caller, statement).learned = kept
        assert errors[0] == errors[1], parameters
    with pytest.raises(StrongroomError) as refused:
        caller.sql(statement, [4], rows_max=3)
    assert refused.value.code == "limit_exceeded"


def test_more_groups_than_are_counted_here_are_left_to_the_columnar_engine(
    open_room: OpenRoom, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.recall._facets.GROUPS_MAX", 50)
    room = open_room()
    room.store_many([{**d, "session_id": f"s{i}"} for i, d in enumerate(drafts(120))])
    for column, is_direct in (("session_id", False), ("kind", True)):
        statement = f"SELECT {column}, count(*) FROM memories GROUP BY 1"
        first, before = sorted(room.sql(statement).rows()), counting.runs
        assert sorted(room.sql(statement).rows()) == first
        assert (counting.runs == before) is is_direct
