# ruff: noqa: E501 - statements are read best as they are
"""Limits, cancellation, writers beside a statement, values."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest
from tests.sql.conftest import OpenRoom, drafts

from strongroom.config import LimitsConfig
from strongroom.engine.session import Session
from strongroom.errors import (
    LimitExceededError,
    OperationTimeoutError,
    SqlDataError,
    SqlError,
    SqlSyntaxError,
    StrongroomError,
)
from strongroom.model import SqlCancel
from strongroom.recall.sql import batches, bounded, front, stream

SLOW = "SELECT count(*) FROM range(100000000) a(i), range(100000) b(j) WHERE (a.i * b.j) % 7 = 3"


@pytest.mark.parametrize(
    ("limits", "statement"),
    [
        ({"sql_bytes_max": 40}, "SELECT 1 AS a_rather_long_name, 2 AS another_one"),
        ({"sql_nesting_max": 4}, "SELECT (SELECT (SELECT (SELECT (SELECT 1))))"),
        ({"sql_parts_max": 20}, "SELECT " + "+".join(["1"] * 40)),
        ({}, " UNION ALL ".join(["SELECT * FROM memories"] * 101)),
        ({}, "SELECT 1 FROM memories m0 " + " ".join(f"NATURAL JOIN memories m{i}" for i in range(1, 45))),
        ({}, "WITH " + ", ".join(
            ["c0 AS (SELECT 1 AS a)"]
            + [f"c{i} AS NOT MATERIALIZED (SELECT x.a FROM c{i - 1} x, c{i - 1} y)" for i in range(1, 40)]
        ) + " SELECT count(*) FROM c39"),
        ({"sql_rows_max": 9}, "SELECT * FROM range(10)"),
        ({"sql_result_bytes_max": 10_000}, "SELECT * FROM range(5000)"),
        ({}, "SELECT " + "(" * 300 + "1" + ")" * 300),
        ({}, "SELECT " + "-" .join([" "] * 40) + "1"),
        ({}, "SELECT " + "NOT " * 300 + "true"),
    ],
)  # fmt: skip
def test_a_statement_over_a_limit_is_refused_whole(
    open_room: OpenRoom, limits: dict[str, int], statement: str
) -> None:
    room = open_room(LimitsConfig(**limits))
    with pytest.raises((LimitExceededError, SqlSyntaxError)):
        room.sql(statement)


def test_an_error_far_down_a_large_answer_is_the_one_that_it_would_be_in_its_first_row(room: Any) -> None:
    """Behind the first ten thousand rows Arrow has one class for all errors of the engine: it was `internal`."""
    late = "SELECT CASE WHEN i = {} THEN CAST('a' || i AS INTEGER) ELSE i END FROM range(60000) AS t(i)"
    for row in (5, 50_000):
        with pytest.raises(SqlDataError) as refused:
            room.sql(late.format(row))
        assert refused.value.sqlstate == "22P02"


def test_a_large_answer_that_is_interrupted_half_way_fails_as_an_interrupted_one() -> None:
    """What cancels or times out while rows stream is a timeout, and nothing unknown."""
    with duckdb.connect(":memory:") as db:
        _, opened = stream(db, "SELECT i FROM range(3000000) AS t(i)", {})
        with opened as reader, pytest.raises(duckdb.InterruptException):
            for _ in batches(reader):
                db.interrupt()


def test_long_chains_of_common_table_expressions_and_many_branches_are_within_the_limits(room: Any) -> None:
    chain = ", ".join(
        ["c0 AS (SELECT kind FROM memories)"] + [f"c{i} AS (FROM c{i - 1})" for i in range(1, 40)]
    )
    assert room.sql(f"WITH {chain} SELECT count(*) FROM c39").fetch() == [(151,)]
    branches = " UNION ALL ".join(["SELECT count(*) FROM memories"] * 60)
    assert len(room.sql(branches)) == 60
    joined = " ".join(f"JOIN memories m{i} USING (memory_id)" for i in range(1, 12))
    assert room.sql(f"SELECT count(*) FROM memories m0 {joined}").fetch() == [(151,)]


def test_rows_max_of_the_call_refuses_and_never_cuts(room: Any) -> None:
    assert room.sql("SELECT * FROM range(5)", rows_max=5).row_count == 5
    with pytest.raises(LimitExceededError):
        room.sql("SELECT * FROM range(6)", rows_max=5)


def test_a_statement_that_takes_too_long_is_stopped(open_room: OpenRoom) -> None:
    room = open_room(LimitsConfig(sql_timeout_ms=200))
    with pytest.raises(OperationTimeoutError):
        room.sql(SLOW)
    assert room.sql("SELECT 1").fetch() == [(1,)]


def test_an_endless_recursion_is_stopped(open_room: OpenRoom) -> None:
    room = open_room(LimitsConfig(sql_timeout_ms=300))
    with pytest.raises((OperationTimeoutError, LimitExceededError)):
        room.sql("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t")


def test_a_statement_is_cancelled_from_another_thread(room: Any) -> None:
    cancel = SqlCancel()
    failed: list[str] = []

    def work() -> None:
        try:
            room.sql(SLOW, cancel=cancel)
        except StrongroomError as e:
            failed.append(e.code)

    thread = threading.Thread(target=work)
    thread.start()
    while not failed and thread.is_alive():
        cancel.cancel()
        time.sleep(0.01)
    thread.join(30)
    assert failed == ["timeout"]
    early = SqlCancel()
    early.cancel()
    with pytest.raises(OperationTimeoutError):
        room.sql("SELECT 1", cancel=early)
    assert room.sql("SELECT 1").fetch() == [(1,)]


def test_statements_beside_writers_see_whole_states_and_every_write_before_them(open_room: OpenRoom) -> None:
    """Each memory is stored with its pair in one batch: a statement never sees one without the other."""
    room = open_room()
    room.store("first", namespace="a/b")
    room.flush()
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            room.store(f"pair {number}", namespace="a/b", agent_id=f"{number}")
            number += 1

    def read() -> None:
        try:
            least = 0
            while not stop.is_set():
                count, ranked, ids = room.sql(
                    "SELECT count(*), count(*) FILTER (WHERE has_embedding AND semantic_rank(content, 'pair') IS NULL),"
                    " count(DISTINCT memory_id) FROM memories"
                ).fetch()[0]
                assert count == ids and count >= least and ranked == 0
                least = count
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=write), threading.Thread(target=read), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failed, failed
    stored = room.store("last", namespace="a/b")
    assert room.sql("SELECT content FROM memories WHERE memory_id = ?", [stored.memory_id]).fetch() == [
        ("last",)
    ]
    room.delete(stored.memory_id, namespace="a/b")
    assert room.sql("SELECT content FROM memories WHERE memory_id = ?", [stored.memory_id]).fetch() == []


def test_an_expired_memory_is_not_there(open_room: OpenRoom) -> None:
    now = [int(datetime(2030, 1, 1, tzinfo=UTC).timestamp() * 1e6)]
    room = open_room(clock_us=lambda: now[0])
    room.store("short", namespace="a/b", expires_at=datetime(2030, 1, 2, tzinfo=UTC))
    room.store("long", namespace="a/b")
    room.flush()
    statements = ("SELECT count(*) FROM memories", "SELECT count(*) FROM access_stats",
                  "SELECT count(*) FROM (SELECT content FROM memories ORDER BY semantic_rank(content, 'x') DESC LIMIT 5)")  # fmt: skip
    assert [room.sql(s).fetch()[0][0] for s in statements] == [2, 2, 2]
    now[0] += 2 * 86_400_000_000
    assert [room.sql(s).fetch()[0][0] for s in statements] == [1, 1, 1]
    assert room.sql(
        "SELECT content FROM memories ORDER BY semantic_rank(content, 'x') DESC LIMIT 1"
    ).fetch() == [("long",)]


def test_values_come_as_python_has_them(room: Any) -> None:
    row = room.sql(
        "SELECT UUID '00000000-0000-4000-8000-000000000001', 12345678901234567890::HUGEINT, 1.50::DECIMAL(5,2), DATE '2026-01-02',"
        " TIMESTAMPTZ '2026-01-02 03:04:05+00', INTERVAL 90 SECOND, [1, NULL], {'a': 1}, MAP {'k': 2}, 'x'::BLOB, '101'::BIT, NULL, true, sum(1)"
    ).fetch()[0]
    assert row == (
        UUID(int=0x00000000000040008000000000000001), 12345678901234567890, Decimal("1.50"), date(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), timedelta(seconds=90), [1, None], {"a": 1}, {"k": 2}, b"x", "101", None, True, 1,
    )  # fmt: skip
    with pytest.raises(SqlDataError):
        room.sql("SELECT DATE 'infinity'").fetch()


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("INSERT INTO memories VALUES (1)", "25006"), ("SELEC", "42601"), ("SELECT * FROM nowhere", "42P01"), ("SELECT nothing FROM memories", "42703"),
        ("SELECT nothing(1)", "42883"), ("SELECT CAST('x' AS INT)", "22P02"), ("SELECT kind, count(*) FROM memories", "42803"),
        ("SELECT CAST(1 AS nothing)", "42704"), ("SELECT memory_id FROM memories a, memories b", "42702"), ("SELECT $2::INT", "08P01"),
        ("SELECT 9223372036854775807::BIGINT + 1::BIGINT", "22003"), ("SELECT (SELECT i FROM range(2) t(i))", "21000"),
    ],
)  # fmt: skip
def test_an_error_carries_its_sqlstate(caller: Session, statement: str, state: str) -> None:
    with pytest.raises(SqlError) as e:
        caller.sql(statement)
    assert e.value.sqlstate == state


def test_describe_tells_parameters_and_columns_without_running(caller: Session) -> None:
    told = caller.sql_describe(
        "SELECT content, count(*) AS n FROM memories WHERE agent_id = $1 AND importance > $2 AND created_at < $3"
        " AND kind IN ($4) AND semantic_match(content, $5, $6) AND memory_id <> $7::UUID GROUP BY content LIMIT $8"
    )
    assert told.parameter_types == (
        "VARCHAR",
        "DOUBLE",
        "TIMESTAMP WITH TIME ZONE",
        "VARCHAR",
        "VARCHAR",
        "DOUBLE",
        "UUID",
        "BIGINT",
    )
    assert [(c.name, c.type) for c in told.columns] == [("content", "VARCHAR"), ("n", "BIGINT")]
    assert caller.sql_describe("SELECT ? AS x", ["INTEGER"]).parameter_types == ("INTEGER",)
    assert len(drafts(2)) == 2


def test_parameters_without_end_or_too_deep_are_refused_before_the_engine_sees_them(room: Any) -> None:
    """A list that holds itself, one of 2,000 levels, one of a million and one parts: it would end the
    process, or keep it busy where nothing can stop it."""
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = "x"
    for _ in range(2_000):
        deep = [deep]
    for value in (endless, {"a": endless}, deep, ({"k": deep},), [[0] * 1_000] * 1_001):
        with pytest.raises(LimitExceededError):
            room.sql("SELECT count(*) FROM memories WHERE kind = $1", [value])
    assert room.sql("SELECT len($1)", [[1, 2, 3]]).fetch() == [(3,)]


_PATTERNS = ("", "%", "_", "a%", "%b_", "%é_", "a\\_%", "A%", "a*", "[ab]?", "%" * 20 + "c", "a" * 300)
_TEXTS = ("", "a", "ab", "abc", "a_b", "éb", "bé!", "a" * 300, "c" * 50)


@pytest.mark.parametrize(
    "form",
    ["{} LIKE {}", "{} NOT LIKE {}", "{} ILIKE {}", "{} NOT ILIKE {}", "{} GLOB {}", "{} LIKE {} ESCAPE '\\'",
     "{} NOT ILIKE {} ESCAPE '\\'"],
)  # fmt: skip
def test_a_pattern_that_is_computed_matches_as_a_constant_one(room: Any, form: str) -> None:
    """The bounded form of LIKE and its kin says what the engine's own says, NULL included."""
    for pattern in (*_PATTERNS, None):
        constant = "NULL" if pattern is None else f"'{pattern}'"
        both = ", ".join(
            f"{form.format(text, constant)}, {form.format(text, f'(CASE WHEN true THEN {constant} END)')}"
            for text in (*(f"'{t}'" for t in _TEXTS), "NULL")
        )
        (found,) = room.sql(f"SELECT {both}").rows()
        assert found[::2] == found[1::2], pattern


@pytest.mark.parametrize(
    "condition",
    [
        "content LIKE '%' || content || 'b%'",
        "content NOT LIKE content || ''",
        "content ILIKE concat('%', content)",
        "content GLOB (SELECT max(content) FROM memories)",
        "content LIKE (CASE WHEN random() < 0.5 THEN content ELSE content || 'x' END)",
        f"content LIKE '%{'a' * 2000}'",
        "like_escape(content, '%' || content, '!')",
        "jaro_similarity(content, content) > 0",
        "jaro_winkler_similarity(content, content || '', 0.5) > 0",
        "len(list_filter([content], lambda v: v LIKE content)) > 0",
        "row_number() OVER (PARTITION BY content LIKE content) > 0",
        "json_merge_patch(metadata, {'a': content}) IS NOT NULL",
        "json_merge_patch(metadata, NULL, {'a': content}, {'b': content}) IS NULL",
    ],
)
@pytest.mark.parametrize("most", [100, 1 << 20], ids=["long", "short"])
def test_what_takes_time_by_the_product_of_two_lengths_is_bounded_by_it(
    room: Any, monkeypatch: pytest.MonkeyPatch, condition: str, most: int
) -> None:
    """Nothing stops the engine inside one value: two long ones are not compared in a way that takes hours."""
    monkeypatch.setattr(bounded, "_PATTERN_PRODUCT_MAX", most)
    monkeypatch.setattr(bounded, "_SIMILAR_PRODUCT_MAX", most)
    monkeypatch.setattr(bounded, "_MERGED_MAX", most // 2)
    room.store("a" * 60, namespace="bounds/long")
    statement = f"SELECT content, ({condition}) AS found FROM memories"
    if most > 100:
        assert room.sql(statement, namespaces=["bounds/long"]).row_count == 1
        return
    with pytest.raises(LimitExceededError, match="too long"):
        room.sql(statement, namespaces=["bounds/long"])


def test_a_parameter_that_is_a_pattern_is_short(room: Any) -> None:
    """A prepared LIKE is not made slow by what is bound to it."""
    room.store("a" * 60, namespace="bounds/long")
    statement = "SELECT count(*) FROM memories WHERE content LIKE CAST(? AS VARCHAR)"
    assert list(room.sql(statement, ["a%"], namespaces=["bounds/long"]).rows()) == [(1,)]
    for value in ("%a" * 600, ["a"] * 1000):
        with pytest.raises(LimitExceededError, match="pattern"):
            room.sql(statement, [value], namespaces=["bounds/long"])


def test_the_statements_that_are_kept_are_bounded_by_their_size(
    room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller's long statements do not fill the memory of the process; the newest are known."""
    kept = room.engine.indexes.sql.front
    monkeypatch.setattr(front, "WEIGHT_MAX", 1_000)
    for n in [*range(20), 19]:
        room.sql("SELECT " + "1, " * 200 + str(n))
        assert kept._weight == sum(front._weight(*item) for item in kept._known.items()) <= 1_000
    assert 2 <= len(kept._known) <= 5
    assert next(reversed(kept._known))[2].endswith(" 19")


def test_a_statement_reaches_only_so_many_namespaces(open_room: OpenRoom) -> None:
    """Over the limit none is loaded; the small tables are answered, and named namespaces too."""
    room = open_room(LimitsConfig(sql_namespaces_max=2))
    for n in range(3):
        room.store("x", namespace=f"many/n{n}")
    loaded = room.engine.indexes.loaded()
    for ask in (room.sql, room.sql_describe):
        with pytest.raises(LimitExceededError, match="namespaces"):
            ask("SELECT count(*) FROM memories")
    assert room.engine.indexes.loaded() == loaded
    assert list(room.sql("SELECT count(*) >= 3 FROM namespaces").rows()) == [(True,)]
    few = ["many/n0", "many/n1"]
    assert list(room.sql("SELECT count(*) FROM memories", namespaces=few).rows()) == [(2,)]
