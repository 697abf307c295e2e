"""Small namespaces take little memory, and answer as they do when they have become large."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import duckdb
import numpy as np
import pytest

from strongroom.errors import ClosedError, InternalError, InvalidFilterError, OperationTimeoutError
from strongroom.model import Filter, Memory
from strongroom.recall import columnar
from strongroom.recall._cursors import OWN
from strongroom.recall._in_passing import ASKED_MAX, BARE, SMALL_ROWS
from strongroom.recall._ivf import InvertedLists
from strongroom.recall._weight import TABLE_BYTES
from strongroom.recall.analyze import Analyzer
from strongroom.recall.changes import Upsert, VectorPut
from strongroom.recall.columnar import ColumnarStore, ColumnarTable
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.keywords import DELTA_DOCUMENTS_MIN, KeywordLane
from strongroom.recall.vectors import VectorLane

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
ALL = Filter()
WORDS = ("train", "ferry", "rome", "paris", "annual", "monthly", "refund", "hotel", "agent", "late", "coffee")
QUESTIONS = (
    ALL,
    Filter(kinds=("fact",)),
    Filter(tags_all=("a",)),
    Filter(where="importance >= 0.5 AND has_embedding"),
    Filter(where="access_count > 0"),
    Filter(where="json_extract_string(metadata, '$.plan') = 'team'"),
    Filter(where="len(derived_from) = 1"),
)


def memory(n: int, **fields: object) -> Memory:
    given: dict[str, object] = {
        "memory_id": UUID(int=n + 1),
        "namespace": "acme/notes",
        "content": f"{WORDS[n % 11]} {WORDS[n * 5 % 11]} number {n}",
        "kind": ("fact", "observation")[n % 2],
        "tags": ("a",) if n % 3 else (),
        "metadata": {"plan": ("team", "starter")[n % 5 == 0]},
        "derived_from": (UUID(int=7),) if n % 4 == 0 else (),
        "importance": (n % 10) / 10,
        "created_at": NOW + timedelta(seconds=n),
        "updated_at": NOW,
        "expires_at": NOW + timedelta(days=1) if n % 7 == 0 else None,
    }
    return Memory(**given | fields)  # type: ignore[arg-type]


def blind(stems: object) -> list[int]:
    return [hash(s) & ((1 << 64) - 1) for s in stems]  # type: ignore[attr-defined]


@pytest.fixture
def store() -> Iterator[ColumnarStore]:
    store = ColumnarStore(memory_limit="512MB")
    yield store
    store.close()


def tables_of(store: ColumnarStore) -> int:
    """The namespaces that have a table in the engine."""
    with store.own_cursor() as cursor:
        found = cursor.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name != 'bare'").fetchone()
    return int(found[0])


def left_in_shared(store: ColumnarStore) -> int:
    with store.own_cursor() as cursor:
        return int(cursor.execute(f"SELECT count(*) FROM {BARE}").fetchone()[0])


def answers(table: ColumnarTable, now_us: int) -> list[object]:
    out: list[object] = []
    for question in QUESTIONS:
        out.append(table.select(question, now_us=now_us).tolist())
        out.append(table.count(question, now_us=now_us))
        out.append(table.list_page(question, 5, now_us=now_us))
    return out


def test_rows_that_wait_answer_as_a_table_of_their_own_does(
    store: ColumnarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first row until long after it has got a table, beside changes of every kind."""
    monkeypatch.setattr(columnar, "ASKED_MAX", 1_000_000)  # so that it is asked in passing all the time
    small, own = store.table(1, "acme/notes"), store.table(2, "acme/notes")
    own.flush()
    sizes = [1, 2, 9, 40, SMALL_ROWS, SMALL_ROWS + 20, SMALL_ROWS + 90]
    at = 0
    for size in sizes:
        rows = [(rid, memory(rid), rid + 1) for rid in range(at, size)]
        at = size
        for table in (small, own):
            table.append(rows)
            table.remove([rid for rid, _, _ in rows if rid % 11 == 5])
            table.set_embedded([rid for rid, _, _ in rows if rid % 2], True)
            table.set_access(size - 1, 3, NOW_US)
        for now_us in (NOW_US, NOW_US + 2 * 86_400_000_000):
            assert answers(small, now_us) == answers(own, now_us)
        assert small._created is (len(small.select(ALL, now_us=0)) > SMALL_ROWS)
    assert left_in_shared(store) == 0


def test_a_namespace_has_no_table_before_it_pays(store: ColumnarStore) -> None:
    """Being made, filled and asked a few times needs none in the engine; being asked more often does, and
    then it counts."""
    table = store.table(1, "acme/notes")
    table.append([(rid, memory(rid), rid + 1) for rid in range(10)])
    for number in range(ASKED_MAX):
        assert len(table.select(Filter(where=f"importance >= 0.{number}"), now_us=NOW_US)) == 10 - number
    assert tables_of(store) == 0
    before = table.memory_bytes()
    assert table.count(ALL, now_us=NOW_US) == 10
    assert tables_of(store) == 1
    assert table.memory_bytes() > before + TABLE_BYTES // 2
    table.drop()
    assert tables_of(store) == 0


def test_the_statement_that_fails_leaves_nothing_behind(store: ColumnarStore) -> None:
    """A value that an expression chokes on is told, and the next question is answered: nothing of it stays in
    the table that all share."""
    table, other = store.table(1, "acme/notes"), store.table(2, "acme/other")
    table.append([(0, memory(0, content="no number"), 1)])
    other.append([(0, memory(1, content="17"), 1)])
    with pytest.raises(InvalidFilterError):
        table.count(Filter(where="CAST(content AS INTEGER) > 3"), now_us=NOW_US)
    assert left_in_shared(store) == 0
    assert other.count(Filter(where="CAST(content AS INTEGER) > 3"), now_us=NOW_US) == 1
    assert table.count(ALL, now_us=NOW_US) == 1


def test_namespaces_that_are_asked_at_once_never_see_each_other(store: ColumnarStore) -> None:
    """Eight threads over small namespaces that share a table while they are asked: each finds its own rows,
    while rows come."""
    tables = [store.table(n + 1, f"acme/n{n}") for n in range(8)]

    def work(n: int) -> None:
        table = tables[n]
        for size in range(1, 41):
            row = memory(1000 * n + size, content=f"of {n}", kind="fact", expires_at=None)
            table.append([(size, row, size)])
            table._asked = 0
            assert table.count(Filter(where=f"content = 'of {n}'"), now_us=NOW_US) == size
            assert table.count(ALL, now_us=NOW_US) == size

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert left_in_shared(store) == 0
    assert tables_of(store) == 0


def test_a_number_is_given_once_and_a_dropped_table_answers_no_more(store: ColumnarStore) -> None:
    """Also as long as nothing of it is in the engine."""
    table = store.table(1, "acme/notes")
    table.append([(0, memory(0), 1)])
    with pytest.raises(InternalError):
        store.table(1, "acme/notes")
    table.drop()
    with pytest.raises(ClosedError):
        table.count(ALL, now_us=NOW_US)
    assert store.table(1, "acme/notes").count(ALL, now_us=NOW_US) == 0


@pytest.mark.parametrize("loaded", [1, 3, 10])
def test_words_are_found_alike_however_they_came(loaded: int) -> None:
    """A lane whose memories came one by one scores as one that got them all at once, at every size, and does
    not keep many of them in the form that takes ten times the memory."""
    texts = [memory(n).content for n in range(300)]
    one = KeywordLane(Analyzer("english"), blind)
    one.add(range(loaded), texts[:loaded])
    assert one._delta_documents == 0
    for n in range(loaded, 300):
        one.add([n], [texts[n]])
        assert one._delta_documents <= max(DELTA_DOCUMENTS_MIN, n // 8)
        if n % 7 == 0:
            one.remove([n // 2])
        if n in (11, 30, 150, 299):
            whole = KeywordLane(Analyzer("english"), blind)
            whole.add(range(n + 1), texts[: n + 1])
            whole.remove([m // 2 for m in range(loaded, n + 1) if m % 7 == 0])
            for question in ("train rome", "late coffee number", f"number {n}"):
                found, expected = (lane.search(lane.query_terms(question), 20) for lane in (one, whole))
                assert found[0].tolist() == expected[0].tolist()
                np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_what_is_known_of_words_is_bounded_by_the_memories() -> None:
    """The numbers of words that are kept for the next text are a few for each memory, so that long texts in a
    small namespace do not take more than themselves; and the answers do not depend on them."""
    lane = KeywordLane(Analyzer("english"), blind)
    lane.add([0, 1], [" ".join(f"word{n}" for n in range(5_000)), "train"])
    for n in range(200):
        lane.query_terms(f"other{n} things{n}")
    assert len(lane._cache) <= 64 + 8 * 2
    assert lane.search(lane.query_terms("word4999"), 5)[0].tolist() == [0]


def test_vectors_of_small_namespaces_share_what_is_the_same_for_all() -> None:
    """Lists without centroids have one quantizer for all namespaces, which nobody changes."""
    one, two = VectorLane(16), VectorLane(16)
    rows = np.eye(16, dtype=np.float32)
    one.add(np.arange(16), rows)
    two.add(np.arange(8), rows[:8])
    assert one._lists._quantizer is two._lists._quantizer
    assert one.search(rows[12], 1)[0].tolist() == [12]
    assert set(two.search(rows[12], 20)[0].tolist()) == set(range(8))
    assert one._lists._quantizer.ntotal == InvertedLists(16).lists
    with pytest.raises(ValueError, match="read-only"):
        one._lists.centroids[0] = 1.0


def test_a_small_index_counts_a_few_kilobytes(store: ColumnarStore) -> None:
    """Ten memories with vectors count what their contents and vectors take and a little more, before and
    after the lanes have taken them over; nothing is allotted for hundreds."""
    index = NamespaceIndex(store.table(1, "acme/notes"), blind, ns=1, dimensions=384)
    vectors = np.random.default_rng(5).standard_normal((10, 384)).astype(np.float32)
    changes = [Upsert(memory(n), 2 * n + 1, 1) for n in range(10)]
    puts = [VectorPut(UUID(int=n + 1).bytes, 1, vectors[n], 2 * n + 2) for n in range(10)]
    index.apply([*changes, *puts], 20)
    index.settle()
    waiting = index.memory_bytes() + index.table.memory_bytes()
    index.prepare()
    taken = index.memory_bytes() + index.table.memory_bytes()
    index.close()
    assert 10 * 384 * 4 < waiting < 64 << 10
    assert 10 * 384 * 2 < taken < 40 << 10


class Stubborn:
    """A connection whose transaction does not end when it is told to: an interrupt came just then."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *given: Any) -> Any:
        if statement == "ROLLBACK" and not self.tries:
            self.tries = 1
            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")
        return self._cursor.execute(statement, *given)


def test_a_transaction_that_was_not_rolled_back_is_in_nobody_s_way(store: ColumnarStore) -> None:
    """When the time limit strikes while a question in passing is taken back, that question is told so; those
    after it, of this and of other namespaces, find what is there now, and never the rows of the first one."""
    small, other, own = (store.table(n, f"acme/n{n}") for n in range(3))
    small.append([(rid, memory(rid), rid + 1) for rid in range(10)])
    other.append([(0, memory(100), 1)])
    own.append([(0, memory(200), 1)])
    own.flush()
    stubborn = Stubborn(store.sql_cursor())
    store._cursors._idle.clear()
    store._cursors._idle.append(stubborn)
    with pytest.raises(OperationTimeoutError):
        small.count(ALL, now_us=NOW_US)
    assert stubborn.tries == 1
    own.append([(1, memory(201), 2)])
    assert own.count(ALL, now_us=NOW_US) == 2
    assert other.count(ALL, now_us=NOW_US) == 1
    assert small.count(ALL, now_us=NOW_US) == 10
    assert left_in_shared(store) == 0


def test_our_own_connection_comes_back_without_a_transaction(store: ColumnarStore) -> None:
    """Also when Ctrl-C comes between the beginning of a change and its end."""
    table = store.table(1, "acme/notes")
    for _ in range(2 * OWN):
        with pytest.raises(KeyboardInterrupt), store.own_cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION")
            raise KeyboardInterrupt
    table.append([(0, memory(0), 1)])
    table.flush()
    assert table.count(ALL, now_us=NOW_US) == 1
