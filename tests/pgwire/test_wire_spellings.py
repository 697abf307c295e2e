"""What PostgreSQL writes in its own way gives on the wire what it gives on a real PostgreSQL 15."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from tests.pgwire.dialect.servers import postgres
from tests.pgwire.wired import Wired

from strongroom.servers.pgwire._rewrite import Constants, rewrite
from strongroom.servers.pgwire._scan import split

SAME: Sequence[tuple[str, Sequence[Any]]] = [
    ("""SELECT '{"a": {"b": [10, 20]}}'::json #>> '{a,b,1}'""", ()),
    ("""SELECT '{"a": {"b": [10, 20]}}'::json #> '{a, b}'""", ()),
    ("""SELECT '{"a": {"b": [10, 20]}}'::json #>> %s""", ("{a,b,0}",)),
    ("""SELECT '[10,20]'::json #>> %s""", ("{}",)),
    ("""SELECT '[10,20]'::json #>> '{}'""", ()),
    ("""SELECT ('{"n": 7}'::json #>> array['n']::text[])::bigint""", ()),
    ("""SELECT '{"a": {"b": [10, 20]}}'::json #>> %s::text[]""", (["a", "b", "1"],)),
    ("""SELECT '{"a": {"b": [10, 20]}}'::json #>> ARRAY['a', 'b', '0']""", ()),
    ("""SELECT '{"a/b": {"c~d": "x y"}}'::json #>> '{a/b,c~d}'""", ()),
    ("""SELECT '{"a/b": {"c~d": "x y"}}'::json #>> %s""", ("{a/b,c~d}",)),
    ("""SELECT '{"a b": 1}'::jsonb #>> '{"a b"}', '{"a": 1}'::jsonb #>> '{b}'""", ()),
    ("SELECT 12 # 10, (1 + 2) # 5, abs(-6) # 3", ()),
    ("SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE t.n # 1 > 1 ORDER BY n", ()),
    ("SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n # %s::int > 1 AND n < 3 ORDER BY n", (3,)),
    (r"SELECT '\x6869'::bytea, CAST('\x00ff' AS bytea), '\x'::bytea", ()),
    ("""SELECT '{a,b,NULL,"x, y","NULL"}'::text[], '{}'::int[], CAST('{1,2}' AS integer[])""", ()),
    ("""SELECT '{{1,2},{3,4}}'::int[], CAST('{ "it''s" , b c }' AS character varying[])""", ()),
    ("SELECT make_interval(secs => 86404.5), make_interval(0, 0, 1, 2), make_interval(days => 1 + 2)", ()),
    ("SELECT CAST('1 day 00:00:05' AS interval(6)), '2 days'::interval(0)", ()),
    ("SELECT regexp_replace('memory', %s::varchar, %s::varchar)", ("m", "M")),
    ("SELECT date_bin('15 minutes', '2026-02-11 15:44:17+00'::timestamptz, '2001-01-01')", ()),
    ("SELECT date_bin('5 minutes', '2026-02-11 15:44:17+00'::timestamptz, 'epoch')", ()),
    ("SELECT 'a''b' || '#>>', '# no operator', 'FOR UPDATE'", ()),
]


@pytest.fixture(scope="module")
def real() -> Iterator[psycopg.Connection[Any]]:
    with (
        postgres() as server,
        psycopg.connect(f"{server} dbname=postgres", autocommit=True) as connection,
    ):
        yield connection


@pytest.fixture(scope="module")
def here(wire: Wired) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(wire.dsn(), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(("statement", "values"), SAME)
def test_a_spelling_of_postgresql_gives_the_same_as_there(
    real: psycopg.Connection[Any], here: psycopg.Connection[Any], statement: str, values: Sequence[Any]
) -> None:
    """Operators, literals and casts in PostgreSQL's own form have PostgreSQL's values."""
    wanted = real.execute(statement, values or None).fetchall()
    assert here.execute(statement, values or None).fetchall() == wanted


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("SELECT kind FROM memories FOR UPDATE", "25006"),
        ("SELECT kind FROM memories FOR NO KEY UPDATE", "25006"),
        ("SELECT kind FROM memories FOR SHARE", "25006"),
        ("SELECT kind FROM memories ORDER BY kind FETCH FIRST 1 ROWS WITH TIES", "0A000"),
        ("SELECT 1 + 2 # 3", "42601"),  # PostgreSQL's precedence is not ours to guess at
        ("SELECT metadata #>> kind FROM memories", "0A000"),
        ("SELECT make_interval(moons => 1)", "42883"),
        (f"SELECT '{'x' * 70_000}'", "54000"),
    ],
)
def test_a_spelling_without_an_equal_is_refused_by_name(
    here: psycopg.Connection[Any], statement: str, sqlstate: str
) -> None:
    """What has no equal here is refused with its code, and the connection goes on."""
    for prepare in (False, True):
        with pytest.raises(psycopg.Error) as refused:
            here.execute(statement, prepare=prepare)
        assert refused.value.sqlstate == sqlstate
    assert here.execute("SELECT 1").fetchone() == (1,)


def test_a_query_of_many_statements_is_bounded_before_it_is_looked_at(here: psycopg.Connection[Any]) -> None:
    """Text beyond sixteen statements of the greatest length is refused as one."""
    with pytest.raises(psycopg.Error) as refused:
        here.execute("SELECT 1;" * 130_000)
    assert refused.value.sqlstate == "54000"


@pytest.mark.parametrize(
    "part",
    [
        "SELECT " + "(" * 6000 + "a" + ") # b" * 6000,
        "SELECT a" + "::int" * 12_000 + " # 3",
        "SELECT a" + "::regclass" * 200,
        "SELECT " + "cast(" * 12_000,
        "SELECT " + "operator(" * 7000,
        "SELECT make_interval(" + "1," * 30_000 + "1)",
        "SELECT '{" + "a," * 30_000 + "a}'::text[]",
        "SELECT '{" + "{" * 60_000,
        "SELECT " + "a #>> ARRAY[" * 5000 + "1" + "]" * 5000,
    ],
)
def test_a_long_statement_costs_no_more_than_its_length(part: str) -> None:
    """Rewriting a text of 64 KiB takes at most 20 times the processor time of splitting it."""
    statement = split(part)[0]
    began = time.process_time()
    try:
        rewrite(statement, Constants(lambda _: "v", lambda _: None))
    except Exception as e:
        assert getattr(e, "sqlstate", "") in ("0A000", "42704", "54000")
    took = time.process_time() - began
    began = time.process_time()
    split(part)
    assert took < 20 * (time.process_time() - began) + 0.5
