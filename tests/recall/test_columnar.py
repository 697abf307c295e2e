"""The columnar projection: what a table promises to its callers, and what its engine is kept from."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    InternalError,
    InvalidFilterError,
    InvalidInputError,
    LimitExceededError,
    OperationTimeoutError,
)
from strongroom.model import Filter, Memory
from strongroom.recall import _apply_batch
from strongroom.recall._apply_batch import FLUSH_ROWS_MAX
from strongroom.recall._blocks import BlockReader, BlockWriter
from strongroom.recall._cursors import OWN
from strongroom.recall._lockdown import LOCKDOWN
from strongroom.recall.columnar import ColumnarStore, ColumnarTable

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
ALL = Filter()


def memory(n: int = 0, **fields: Any) -> Memory:
    given: dict[str, Any] = {
        "memory_id": UUID(int=n),
        "namespace": "company_a/support",
        "content": f"memory {n}",
        "created_at": NOW + timedelta(seconds=n),
        "updated_at": NOW,
    }
    return Memory(**given | fields)


@pytest.fixture
def store() -> Iterator[ColumnarStore]:
    store = ColumnarStore(memory_limit="512MB")
    yield store
    store.close()


@pytest.fixture(params=["waiting", "own"])
def table(store: ColumnarStore, request: pytest.FixtureRequest) -> ColumnarTable:
    """One whose rows wait until it pays to put them into the engine, and one that is there from the start."""
    made = store.table(1, "company_a/support")
    if request.param == "own":
        made.flush()
    return made


def rids(table: ColumnarTable, filter: Filter = ALL, now_us: int = NOW_US) -> list[int]:
    return table.select(filter, now_us=now_us).tolist()


def test_a_query_sees_what_was_written_before_it(table: ColumnarTable) -> None:
    """Rows, removals, embedding flags and access counters all show in the very next query."""
    table.append([(0, memory(0), 1), (5, memory(5), 2)])
    assert rids(table) == [0, 5]
    table.remove([0])
    table.append([(6, memory(6, kind="fact"), 3)])
    assert rids(table) == [5, 6]
    table.set_embedded([5], True)
    assert rids(table, Filter(where="has_embedding")) == [5]
    table.set_access(6, 3, NOW_US)
    assert rids(table, Filter(where="access_count = 3 AND last_accessed_at = now()")) == [6]
    table.set_embedded([5], False)
    table.remove([6])
    assert rids(table, Filter(where="has_embedding OR access_count > 0")) == []


def test_many_changes_at_once(table: ColumnarTable) -> None:
    """Batches beyond the sizes of one statement are applied whole."""
    count = FLUSH_ROWS_MAX + 10
    shared = memory(1)
    table.append([(rid, shared, rid) for rid in range(count)])
    assert table.count(ALL, now_us=NOW_US) == count
    gone = list(range(0, count, 2))
    table.remove(gone)
    table.set_embedded(range(1, count, 4), True)
    for rid in range(1, 401, 2):
        table.set_access(rid, rid, None)
    assert rids(table) == list(range(1, count, 2))
    assert rids(table, Filter(where="has_embedding")) == list(range(1, count, 4))
    assert rids(table, Filter(where="access_count > 300")) == list(range(301, 401, 2))


def test_expired_memories_never_match(table: ColumnarTable) -> None:
    """A memory is gone from the moment of its expires_at on, in every kind of query."""
    table.append(
        [(0, memory(0, expires_at=NOW), 1), (1, memory(1, expires_at=NOW + timedelta(seconds=1)), 2)]
    )
    assert rids(table, now_us=NOW_US - 1) == [0, 1]
    assert rids(table, now_us=NOW_US) == [1]
    later = NOW_US + 1_000_000
    assert rids(table, now_us=later) == []
    assert rids(table, Filter(where="true"), now_us=later) == []
    assert table.count(ALL, now_us=NOW_US) == 1
    assert table.list_page(ALL, 10, now_us=NOW_US) == [(1, NOW_US + 1_000_000)]


def test_the_clock_of_an_expression_is_the_given_one(table: ColumnarTable) -> None:
    """now(), current_timestamp, current_date and today() are the request's time, not the machine's."""
    table.append([(0, memory(0), 1)])
    for clock in ("now()", "current_timestamp", "transaction_timestamp()"):
        assert rids(table, Filter(where=f"created_at = {clock}")) == [0]
        assert rids(table, Filter(where=f"created_at = {clock}"), now_us=NOW_US + 1) == []
    for clock in ("current_date", "today()", "current_date()"):
        assert rids(table, Filter(where=f"{clock} = DATE '2026-11-20'")) == [0]
        assert rids(table, Filter(where=f"{clock} = DATE '2026-11-19'"), now_us=NOW_US - 1) == [0]


def test_pages_neither_repeat_nor_skip(table: ColumnarTable) -> None:
    """Rows of the same moment keep their order over the pages, also while new rows arrive."""
    table.append([(rid, memory(rid // 7), rid) for rid in range(40)])
    seen: list[tuple[int, int]] = []
    before = None
    while page := table.list_page(ALL, 6, before, now_us=NOW_US):
        seen += page
        before = (page[-1][1], page[-1][0])
        newest = 100 + len(seen)
        table.append([(newest, memory(newest), 1)])
    assert [rid for rid, _ in seen] == list(range(39, -1, -1))


def test_a_bad_memory_fails_alone(table: ColumnarTable) -> None:
    """What a column cannot take is refused when it is given, and never spoils what others wrote."""
    table.append([(0, memory(0), 1)])
    bad: list[dict[str, Any]] = [
        {"content": "\ud800"},
        {"subject": "\udfff"},
        {"tags": ("\ud800",)},
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": object()}},
        {"access_count": 2**63},
        {"version": 2**63},
        {"created_at": datetime(2026, 1, 1)},
    ]
    for fields in bad:
        with pytest.raises(InvalidInputError):
            table.append([(1, memory(1), 2), (2, memory(2, **fields), 3)])
    assert rids(table) == [0]
    table.append([(1, memory(1, content="zero\x00and 'quotes'"), 2)])
    assert rids(table, Filter(where="content LIKE '%''quotes''%'")) == [1]


def test_row_ids_must_grow(table: ColumnarTable) -> None:
    """A rid that was used before is refused, and changes of rids that never were do nothing."""
    table.append([(3, memory(), 1)])
    for rid in (3, 2, -1):
        with pytest.raises(InternalError):
            table.append([(rid, memory(), 2)])
    table.set_embedded([9], True)
    table.set_access(9, 5, None)
    table.remove([9])
    table.append([(9, memory(), 2)])
    assert rids(table) == [3, 9]
    assert rids(table, Filter(where="has_embedding OR access_count > 0")) == []


def test_a_failed_flush_loses_nothing(table: ColumnarTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the engine refuses a batch, all of it, and what came meanwhile, is there at the next query."""
    table.flush()
    table.append([(0, memory(0), 1)])
    assert rids(table) == [0]
    table.append([(1, memory(1), 1), (2, memory(2), 1)])
    table.remove([0])
    table.set_embedded([1], True)
    real = _apply_batch.with_arrow

    def failing(cursor: Any, arrow: Any, statement: str) -> None:
        real(cursor, arrow, statement)
        table.remove([2])
        table.set_access(1, 7, NOW_US)
        table.append([(3, memory(3), 1)])
        raise duckdb.OutOfMemoryException("made up")

    monkeypatch.setattr(_apply_batch, "with_arrow", failing)
    with pytest.raises(LimitExceededError):
        rids(table)
    monkeypatch.setattr(_apply_batch, "with_arrow", real)
    assert rids(table) == [1, 3]
    assert rids(table, Filter(where="has_embedding AND access_count = 7")) == [1]


def test_namespaces_are_apart(store: ColumnarStore) -> None:
    """A table answers from its own rows alone, and dropping it leaves the others as they are."""
    one, two = store.table(1, "company_a/one"), store.table(2, "company_a/two")
    one.append([(0, memory(0), 1)])
    two.append([(1, memory(1), 1), (2, memory(2), 2)])
    assert rids(one) == [0]
    assert rids(two, Filter(where="namespace = 'company_a/two'")) == [1, 2]
    assert rids(one, Filter(where="namespace = 'company_a/two'")) == []
    with pytest.raises(InternalError):
        store.table(1, "company_a/one")
    one.drop()
    one.drop()
    with pytest.raises(ClosedError):
        rids(one)
    assert rids(two) == [1, 2]
    assert rids(store.table(1, "company_a/one")) == []


def test_a_closed_store_says_so(store: ColumnarStore, table: ColumnarTable) -> None:
    """After close every query raises ClosedError; closing again is no error."""
    store.close()
    store.close()
    with pytest.raises(ClosedError):
        rids(table)


def test_text_that_only_hashes_alike_does_not_match(
    table: ColumnarTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden keys only narrow: with all keys equal, filters still compare the texts themselves."""
    monkeypatch.setattr("strongroom.recall._columns.hash", lambda _: 5, raising=False)
    table.append([(0, memory(0, kind="a", subject="s", agent_id="g", session_id="z", tags=("t",)), 1)])
    for other in (
        Filter(kinds=["b"]),
        Filter(kinds=["b", "c"]),
        Filter(subjects=["x"]),
        Filter(agent_ids=["x"]),
        Filter(session_ids=["x", "y"]),
        Filter(tags_all=["x"]),
        Filter(tags_any=["x", "y"]),
    ):
        assert rids(table, other) == []
    assert rids(table, Filter(kinds=["a", "b"], subjects=["s"], tags_all=["t"], tags_any=["t", "x"])) == [0]


BAD_FILTERS: list[dict[str, Any]] = [
    {"kinds": "fact"},
    {"kinds": [1]},
    {"kinds": [None]},
    {"kinds": ["\ud800"]},
    {"subjects": ["x"] * 3 + [f"u{i}" for i in range(1001)]},
    {"tags_all": {"a": 1}},
    {"importance_min": "high"},
    {"importance_min": float("nan")},
    {"importance_min": True},
    {"created_after": datetime(2026, 1, 1)},
    {"created_before": "2026-01-01"},
    {"metadata": ["plan"]},
    {"metadata": {"": 1}},
    {"metadata": {"a..b": 1}},
    {"metadata": {".a": 1}},
    {"metadata": {"a.": 1}},
    {"metadata": {'"a': 1}},
    {"metadata": {'"a"b': 1}},
    {"metadata": {'a"b': 1}},
    {"metadata": {'"a\\n"': 1}},
    {"metadata": {".".join("a" * 40): 1}},
    {"metadata": {"a" * 2000: 1}},
    {"metadata": {5: 1}},
    {"metadata": {"\ud800": 1}},
    {"metadata": {"a": "\ud800"}},
    {"metadata": {"a": [1]}},
    {"metadata": {"a": {"b": 1}}},
    {"metadata": {"a": float("inf")}},
    {"metadata": {"a": float("nan")}},
    {"metadata": {"a": 10**400}},
    {"metadata": {"a": b"x"}},
    {"metadata": {f"k{i}": 1 for i in range(33)}},
    {"where": 5},
]


@pytest.mark.parametrize("fields", BAD_FILTERS, ids=lambda f: ascii(f)[:40])
def test_malformed_filters_are_refused(table: ColumnarTable, fields: dict[str, Any]) -> None:
    """A filter of the wrong type, size or form raises InvalidFilterError and nothing else."""
    table.append([(0, memory(0, metadata={"a": "x"}), 1)])
    with pytest.raises(InvalidFilterError):
        rids(table, Filter(**fields))


def test_values_of_filters_are_never_sql(table: ColumnarTable) -> None:
    """Quotes and SQL in values and paths are compared as text."""
    nasty = "x' OR true --"
    table.append([(0, memory(0, kind=nasty, tags=(nasty,), metadata={nasty: nasty}), 1), (1, memory(1), 2)])
    for wanted in (Filter(kinds=[nasty]), Filter(tags_all=[nasty]), Filter(metadata={nasty: nasty})):
        assert rids(table, wanted) == [0]


def test_a_conversion_that_fails_on_a_value_is_the_filter_s_error(table: ColumnarTable) -> None:
    """CAST of a text that is no number raises InvalidFilterError without the text; TRY_CAST does not."""
    table.append([(0, memory(0, content="canary-42"), 1)])
    with pytest.raises(InvalidFilterError) as refusal:
        rids(table, Filter(where="content::INTEGER > 5"))
    assert "canary" not in f"{refusal.value.message}{refusal.value.hint}"
    assert refusal.value.__cause__ is None
    assert rids(table, Filter(where="TRY_CAST(content AS INTEGER) > 5")) == []


def test_a_query_that_takes_too_long_is_stopped() -> None:
    """The time limit ends a query with OperationTimeoutError, and the table still answers afterwards."""
    store = ColumnarStore(memory_limit="1GB", query_timeout_ms=150)
    table = store.table(1, "a")
    shared = memory(0, content="ab" * 500)
    for start in range(0, 30_000, 1_000):
        table.append([(rid, shared, 1) for rid in range(start, start + 1_000)])
        table.flush()
    slow = " OR ".join(f"regexp_matches(content, '(a|b|ab)*{n}(a|b)*$')" for n in range(60))
    with pytest.raises(OperationTimeoutError):
        rids(table, Filter(where=slow))
    assert rids(table, Filter(kinds=["none"])) == []
    store.close()


def test_a_wrong_memory_limit_is_a_configuration_error() -> None:
    """A limit that the engine does not understand is reported as configuration."""
    with pytest.raises(ConfigurationError):
        ColumnarStore(memory_limit="much")


LOCKED: list[tuple[str, Any]] = [
    ("read a file", "SELECT * FROM read_text('/etc/hostname')"),
    ("read a file by name", "SELECT * FROM '/etc/hostname'"),
    ("list files", "SELECT * FROM glob('/*')"),
    ("write a file", "COPY (SELECT 1) TO 'out.csv'"),
    ("attach a file", "ATTACH 'out.db' AS other"),
    ("export", "EXPORT DATABASE 'out'"),
    ("install", "INSTALL httpfs"),
    ("load", "LOAD httpfs"),
    ("unlock", "SET lock_configuration = false"),
    ("open up", "SET enable_external_access = true"),
    ("spill", "SET temp_directory = '/tmp'"),
    ("no time limit", "SET max_execution_time = 0"),
    ("time zone", "SET TimeZone = 'Asia/Tokyo'"),
    ("persistent secret", "CREATE PERSISTENT SECRET s (TYPE http)"),
    ("python variables", "SELECT * FROM python_variable"),
]


@pytest.mark.parametrize(("what", "statement"), LOCKED, ids=[w for w, _ in LOCKED])
def test_the_engine_is_locked_down(
    store: ColumnarStore, what: str, statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a statement that got past every check reaches no file, network, setting or Python variable."""
    monkeypatch.chdir(tmp_path)
    python_variable = pa.table({"a": [1]})
    assert python_variable is not None
    with pytest.raises(duckdb.Error):
        store._connection.cursor().execute(statement).fetchall()
    assert list(tmp_path.iterdir()) == []


def test_every_lock_is_set(store: ColumnarStore) -> None:
    """Each setting of the lockdown has its value, also where another one would cover for it."""
    wanted = dict(setting.replace("'", "").split(" = ") for setting in LOCKDOWN)
    assert wanted.keys() >= {
        "python_enable_replacements",
        "autoinstall_known_extensions",
        "lock_configuration",
    }
    with store.cursor() as cursor:
        rows = cursor.execute("SELECT name, value FROM duckdb_settings()").fetchall()
    found = {name: value or "" for name, value in rows}
    assert {name: found[name] for name in wanted} == wanted
    assert found["max_execution_time"] == "5000"
    for setting in ("enable_external_access", "python_enable_replacements", "allow_community_extensions"):
        assert found[setting] == "false"


def test_it_never_spills_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sort beyond the memory limit fails with a typed error and leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    store = ColumnarStore(memory_limit="40MB", threads=1)
    with store.cursor() as cursor:
        assert cursor.execute("SELECT current_setting('temp_directory')").fetchone()[0] in ("", None)
    with pytest.raises(LimitExceededError), store.cursor() as cursor:
        cursor.execute("SELECT hash(i) AS h, i FROM range(5000000) t(i) ORDER BY h, i").fetchall()
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_own_changes_have_no_time_limit() -> None:
    """The limit of callers' statements cuts off no change of a table: rows that wait, their flags and
    counters, removals, a dump and what is restored from it all come to an end, however slow the machine."""
    rows = FLUSH_ROWS_MAX
    store = ColumnarStore(query_timeout_ms=1)
    table = store.table(1, "company_a/support")
    table.append([(n, memory(n, tags=["a", "b"], metadata={"n": n}), n + 1) for n in range(rows)])
    table.flush()
    table.set_embedded(range(rows), True)
    table.remove(range(1, rows, 2))
    for rid in range(0, rows, 4):
        table.set_access(rid, 3, NOW_US)
    raw = io.BytesIO()
    frozen = table.freeze()
    frozen.dump(BlockWriter(raw), np.arange(0, rows, 2))
    frozen.close()
    raw.seek(0)
    again = store.table(2, "company_a/support")
    again.restore(BlockReader(raw), rows // 2, None)
    with store.own_cursor() as cursor:
        for made in (table, again):
            query = (
                f"SELECT count(*), count(*) FILTER (has_embedding), sum(access_count) FROM {made.qualified}"
            )
            assert cursor.execute(query).fetchone() == (rows // 2, rows // 2, 3 * rows // 4)
    with pytest.raises(OperationTimeoutError), store.cursor() as cursor:
        cursor.execute("SELECT hash(i) AS h, i FROM range(5000000) t(i) ORDER BY h, i").fetchall()
    store.close()


def test_own_connections_are_shared_and_end_with_the_store(store: ColumnarStore) -> None:
    """More changes than there are connections wait for each other and all come through; when the store is
    closed those that wait are told."""
    tables = [store.table(n, "company_a/support") for n in range(3 * OWN)]

    def change(table: ColumnarTable) -> None:
        for n in range(20):
            table.append([(n, memory(n), n + 1)])
            table.flush()

    _in_threads([lambda table=table: change(table) for table in tables])  # type: ignore[misc]
    assert [t.count(ALL, now_us=NOW_US) for t in tables] == [20] * len(tables)
    held = [store.own_cursor() for _ in range(OWN)]
    for cursor in held:
        cursor.__enter__()

    def drop() -> None:
        with pytest.raises(ClosedError):
            tables[0].drop()

    waiting = threading.Thread(target=drop)
    waiting.start()
    store.close()
    waiting.join(20)
    assert not waiting.is_alive()
    for cursor in held:
        cursor.__exit__(None, None, None)


def _in_threads(tasks: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as e:  # shown by the main thread
            failures.append(e)

    threads = [threading.Thread(target=run, args=(t,)) for t in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_writers_and_readers_at_once(store: ColumnarStore) -> None:
    """Two writers a table and four readers: every writer sees its own rows, no reader sees half an update."""
    tables = [store.table(ns, "a") for ns in (1, 2)]
    locks = [threading.Lock() for _ in tables]
    next_rid = [0 for _ in tables]
    done = threading.Event()
    live: list[dict[str, int]] = [{}, {}]

    def write(which: int, name: str) -> None:
        table, chance = tables[which], random.Random(name)
        for turn in range(60):
            with locks[which]:  # as the index does: rids are given under its lock
                rid = next_rid[which]
                next_rid[which] += 1
                old = live[which].get(name)
                table.append([(rid, memory(rid, subject=name, importance=turn / 60), rid)])
                if old is not None:
                    table.remove([old])
                live[which][name] = rid
            if chance.random() < 0.5:
                assert rids(table, Filter(subjects=[name])) == [rid]

    def read(which: int) -> None:
        chance = random.Random(which)
        while not done.is_set():
            found = rids(
                tables[which], chance.choice([ALL, Filter(where="importance >= 0 OR has_embedding")])
            )
            assert found == sorted(set(found))

    def write_all(which: int, name: str) -> None:
        try:
            write(which, name)
        finally:
            remaining.release()

    remaining = threading.Semaphore(0)
    writers = [lambda w=w, n=n: write_all(w, n) for w in (0, 1) for n in ("x", "y")]

    def stop_when_written() -> None:
        for _ in writers:
            remaining.acquire()
        done.set()

    _in_threads([*writers, *(lambda w=w: read(w) for w in (0, 1, 0, 1)), stop_when_written])
    for table, names in zip(tables, live, strict=True):
        assert rids(table) == sorted(names.values())


def test_an_update_is_a_new_row(table: ColumnarTable) -> None:
    """Removing the old row and adding the new one shows exactly the new state."""
    old = memory(1, kind="observation", tags=("a",))
    table.append([(0, old, 1)])
    assert rids(table, Filter(tags_all=["a"])) == [0]
    table.remove([0])
    table.append([(1, replace(old, tags=("b",), version=2), 2)])
    assert rids(table, Filter(tags_all=["a"])) == []
    assert rids(table, Filter(where="version = 2 AND 'b' IN tags")) == [1]


def test_a_connection_that_rests_keeps_nothing_of_what_others_drop(store: ColumnarStore) -> None:
    """Results of which one row was read, on several of them: none holds its transaction open as it rests."""
    with store.cursor() as one, store.cursor() as two:
        for cursor in (one, two):
            assert cursor.execute("SELECT range FROM range(9)").fetchone() == (0,)
    with store.own_cursor() as own:
        own.execute("SELECT range FROM range(9)").fetchone()
    for number in range(60):
        store.table(1, f"team/{number}").drop()
    with store.cursor() as cursor:
        kept = "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'TRANSACTION'"
        assert cursor.execute(kept).fetchall() == [(0,)]
