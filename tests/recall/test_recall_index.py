"""An index against a plain dictionary, through every kind of change in every kind of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.recall.lane_tools import NOW_US, START, blind, clustered, memory, memory_id, unit

from strongroom.errors import InternalError, InvalidVectorError, LimitExceededError
from strongroom.model import Filter, Memory
from strongroom.recall import (
    AccessPut,
    Change,
    ColumnarStore,
    NamespaceIndex,
    Recall,
    RecallQuery,
    RecallSettings,
    Remove,
    Upsert,
    VectorDrop,
    VectorPut,
    _allocator,
    _row_questions,
)
from strongroom.recall import index as module

D = 8
ALL = Filter()


@pytest.fixture
def store() -> Iterator[ColumnarStore]:
    made = ColumnarStore()
    yield made
    made.close()


@pytest.fixture
def index(store: ColumnarStore) -> Iterator[NamespaceIndex]:
    made = NamespaceIndex(store.table(1, "acme/notes"), blind, ns=1, dimensions=D)
    yield made
    made.close()


def vector(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return unit(np.random.default_rng(number).standard_normal(D))


def meaning(index: NamespaceIndex, number: int = 0, **more: Any) -> dict[bytes, float]:
    """Every memory that a semantic search reaches, with its cosine to ``vector(number)``."""
    query = RecallQuery(now_us=NOW_US, vector=vector(number), mode="semantic", k=1000, **more)
    return {c.memory_id: c.score for c in Recall.search([index], query)}


def words(index: NamespaceIndex, text: str, **more: Any) -> set[bytes]:
    query = RecallQuery(now_us=NOW_US, text=text, mode="keyword", k=1000, **more)
    return {c.memory_id for c in Recall.search([index], query)}


def ids(*numbers: int) -> set[bytes]:
    return {memory_id(n).bytes for n in numbers}


# -- single rules -----------------------------------------------------------------------------------
def test_a_search_sees_what_was_applied_before_it(index: NamespaceIndex) -> None:
    """Read your own writes: text at once, meaning as soon as the vector is there."""
    index.apply([Upsert(memory(1, "refund please"), 1, 1)], 1)
    assert words(index, "refund") == ids(1)
    assert not meaning(index)
    index.apply([VectorPut(memory_id(1).bytes, 1, vector(1), 2)], 2)
    assert meaning(index, 1)[memory_id(1).bytes] == pytest.approx(1.0, abs=1e-3)
    assert (index.watermark, index.memories, index.embedded) == (2, 1, 1)
    assert index.has(memory_id(1).bytes)
    assert index.seq_of(memory_id(1).bytes) == 1


def test_metadata_update_keeps_the_vector(index: NamespaceIndex) -> None:
    """The same content version: found by the same vector under the new state."""
    index.apply([Upsert(memory(1, "a"), 1, 1), VectorPut(memory_id(1).bytes, 1, vector(1), 2)], 2)
    meaning(index)
    for seq in (3, 4, 5):
        index.apply([Upsert(memory(1, "a", importance=seq / 10), seq, 1)], seq)
        if seq == 4:
            meaning(index)
    assert list(meaning(index)) == [memory_id(1).bytes]
    assert meaning(index, filter=Filter(importance_min=0.5)).keys() == ids(1)
    assert not meaning(index, filter=Filter(importance_min=0.51))
    assert index.embedded == 1


def test_content_update_voids_the_vector(index: NamespaceIndex) -> None:
    """A vector of the old content finds nothing any more, even when it comes late."""
    index.apply([Upsert(memory(1, "old"), 1, 1), VectorPut(memory_id(1).bytes, 1, vector(1), 2)], 2)
    index.apply([Upsert(memory(1, "new"), 3, 2)], 3)
    assert not meaning(index)
    index.apply([VectorPut(memory_id(1).bytes, 1, vector(1), 4)], 4)
    assert not meaning(index)
    assert words(index, "old") == set()
    assert words(index, "new") == ids(1)
    assert index.embedded == 0


def test_a_vector_may_come_before_its_memory(index: NamespaceIndex) -> None:
    """The feed shows rows by their last change: an early vector waits, also for a newer content."""
    index.apply([VectorPut(memory_id(1).bytes, 1, vector(1), 5)], 5)
    assert not meaning(index)
    index.apply([Upsert(memory(1, "a"), 9, 1)], 9)
    assert meaning(index).keys() == ids(1)
    index.apply([VectorPut(memory_id(1).bytes, 2, vector(2), 11)], 11)
    index.apply([Upsert(memory(1, "b"), 12, 2)], 12)
    assert meaning(index, 2)[memory_id(1).bytes] == pytest.approx(1.0, abs=1e-3)


def test_settle_drops_vectors_without_a_memory(index: NamespaceIndex) -> None:
    """A vector whose memory never comes is held for one more round, then forgotten."""
    index.apply([VectorPut(memory_id(1).bytes, 1, vector(1), 5)], 5)
    assert index.settle() == 1
    assert index.settle() == 0
    index.apply([Upsert(memory(1, "a"), 9, 1)], 9)
    assert not meaning(index)


def test_removed_means_gone_until_added_again(index: NamespaceIndex) -> None:
    """No late vector and no repeated old change brings a removed memory back; a newer one does."""
    first: list[Change] = [Upsert(memory(1, "refund"), 1, 1), VectorPut(memory_id(1).bytes, 1, vector(1), 2)]
    index.apply([*first, Remove(memory_id(1).bytes, 3)], 3)
    assert not words(index, "refund")
    index.apply([*first, Remove(memory_id(2).bytes, 4)], 4)
    assert (index.memories, index.embedded) == (0, 0)
    assert not index.has(memory_id(1).bytes)
    assert index.seq_of(memory_id(1).bytes) is None
    index.apply([Upsert(memory(1, "refund"), 5, 1)], 5)
    index.apply(first, 5)
    assert words(index, "refund") == ids(1)
    assert not meaning(index)
    index.apply([Remove(memory_id(1).bytes, 3)], 5)
    assert index.has(memory_id(1).bytes)


def test_a_dropped_vector_is_not_found(index: NamespaceIndex) -> None:
    """After a drop the memory is only found by words, until a newer vector comes."""
    put = VectorPut(memory_id(1).bytes, 1, vector(1), 2)
    index.apply([Upsert(memory(1, "a refund"), 1, 1), put], 2)
    meaning(index)
    index.apply([VectorDrop(memory_id(1).bytes, 3), put], 3)
    assert not meaning(index)
    assert words(index, "refund", filter=Filter(where="NOT has_embedding")) == ids(1)
    index.apply([VectorPut(memory_id(1).bytes, 1, vector(2), 4)], 4)
    assert meaning(index, 2)[memory_id(1).bytes] == pytest.approx(1.0, abs=1e-3)
    assert words(index, "refund", filter=Filter(where="has_embedding")) == ids(1)


def test_has_embedding_says_what_the_lane_holds(index: NamespaceIndex) -> None:
    """Whatever the memory claims, the column is true exactly for those with a vector."""
    index.apply(
        [
            Upsert(memory(1, "refund", has_embedding=True), 1, 1),
            Upsert(memory(2, "refund", has_embedding=False), 2, 1),
            VectorPut(memory_id(2).bytes, 1, vector(2), 3),
        ],
        3,
    )
    assert words(index, "refund", filter=Filter(where="has_embedding")) == ids(2)
    assert not index.has_vector(memory_id(1).bytes)
    assert index.has_vector(memory_id(2).bytes)


def test_access_counters_reach_the_columns(index: NamespaceIndex) -> None:
    """Counters stay with the memory through updates, early or late, and go with it."""
    index.apply([AccessPut(memory_id(1).bytes, 7, NOW_US, 1), Upsert(memory(1, "refund"), 2, 1)], 2)
    where = Filter(where="access_count = 7")
    assert words(index, "refund", filter=where) == ids(1)
    index.apply([Upsert(memory(1, "refund again"), 3, 2), AccessPut(memory_id(1).bytes, 5, None, 1)], 3)
    assert words(index, "refund", filter=where) == ids(1)
    index.apply([Remove(memory_id(1).bytes, 4), Upsert(memory(1, "refund"), 5, 3)], 5)
    assert not words(index, "refund", filter=where)


def test_expired_memories_are_left_out(index: NamespaceIndex) -> None:
    """At the moment of expiry a memory vanishes from searches, lists and counts, with or without a filter."""
    soon = START + timedelta(days=1)
    at_us = (START - START.replace(year=1970)) // timedelta(microseconds=1) + 86_400_000_000
    index.apply([Upsert(memory(1, "refund", expires_at=soon), 1, 1), Upsert(memory(2, "refund"), 2, 1)], 2)
    index.apply([VectorPut(memory_id(n).bytes, 1, vector(n), n + 2) for n in (1, 2)], 4)
    for wanted in (ALL, Filter(kinds=("observation",))):
        for now_us, left in ((at_us - 1, ids(1, 2)), (at_us, ids(2))):
            for query in (
                RecallQuery(now_us=now_us, text="refund", mode="keyword", filter=wanted),
                RecallQuery(now_us=now_us, vector=vector(1), mode="semantic", filter=wanted),
            ):
                assert {c.memory_id for c in Recall.search([index], query)} == left
            assert {i.memory_id for i in index.list_newest(wanted, 9, None, now_us)} == left
            assert Recall.count([index], wanted, now_us=now_us) == len(left)


def test_bad_changes_are_refused_whole(index: NamespaceIndex) -> None:
    """One bad vector in a batch: nothing of the batch is applied, and the index goes on."""
    good = Upsert(memory(1, "refund"), 1, 1)
    for bad in (np.full(D, np.nan, np.float32), np.zeros(D, np.float32), np.ones(D + 1, np.float32)):
        with pytest.raises(InvalidVectorError):
            index.apply([good, VectorPut(memory_id(1).bytes, 1, bad, 2)], 2)
        assert (index.memories, index.watermark) == (0, 0)
    index.apply([good], 1)
    assert words(index, "refund") == ids(1)


def test_a_memory_that_columns_cannot_hold_fails_alone(
    index: NamespaceIndex, caplog: pytest.LogCaptureFixture
) -> None:
    """Invalid Unicode: logged without its content, found without filters, no harm to others."""
    bad = memory(2, "refund \ud800 secretword")
    index.apply([Upsert(memory(n, "refund"), n, 1) if n != 2 else Upsert(bad, 2, 1) for n in (1, 2, 3)], 3)
    assert words(index, "refund") == ids(1, 2, 3)
    assert words(index, "refund", filter=Filter(kinds=("observation",))) == ids(1, 3)
    assert "columns" in caplog.text
    assert "secretword" not in caplog.text


def test_dimensions_come_from_the_first_vector(store: ColumnarStore) -> None:
    """Without a given length the first vector sets it, and others are refused from then on."""
    index = NamespaceIndex(store.table(1, "acme/notes"), blind)
    index.apply([Upsert(memory(1, "a"), 1, 1), VectorPut(memory_id(1).bytes, 1, np.ones(5), 2)], 2)
    assert index.dimensions == 5
    with pytest.raises(InvalidVectorError):
        index.apply([VectorPut(memory_id(1).bytes, 1, np.ones(6), 3)], 3)
    index.close()


def test_half_done_work_is_never_searched(index: NamespaceIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a lane fails while it takes changes over, every later question says so instead of lying."""
    index.apply([Upsert(memory(1, "refund"), 1, 1)], 1)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(index.keywords, "add", fail)
    with pytest.raises(MemoryError):
        words(index, "refund")
    with pytest.raises(InternalError):
        words(index, "refund")
    with pytest.raises(InternalError):
        index.list_newest(ALL, 1, None, NOW_US)
    monkeypatch.setattr(index, "prepare", lambda: None)  # as when another thread failed just before
    with pytest.raises(InternalError):
        words(index, "refund")
    with pytest.raises(InternalError):
        index.list_newest(ALL, 1, None, NOW_US)


def test_settle_makes_ready_for_quick_searches(store: ColumnarStore) -> None:
    """After a load the lists are built without waiting for a question."""
    settings = RecallSettings(exact_rows_max=100)
    index = NamespaceIndex(store.table(1, "acme/notes"), blind, settings, dimensions=D)
    for n in range(200):
        index.apply([Upsert(memory(n), n + 1, 1), VectorPut(memory_id(n).bytes, 1, vector(n), n + 1)], n + 1)
    index.settle()
    assert index.wait_idle(30)
    assert index.vectors is not None
    assert not index.vectors.is_exact
    index.close()


def test_large_back_logs_are_taken_over_unasked(
    store: ColumnarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes do not pile up when nobody searches: the background takes them, or ``apply`` itself."""
    monkeypatch.setattr(module, "PENDING_BACKGROUND", 10)
    monkeypatch.setattr(module, "PENDING_MAX", 100)
    index = NamespaceIndex(store.table(1, "acme/notes"), blind)
    index.apply([Upsert(memory(n, "refund"), n + 1, 1) for n in range(20)], 20)
    index.wait_idle(30)
    assert len(index.keywords) == 20
    index.apply([Upsert(memory(n, "refund"), n + 1, 1) for n in range(20, 150)], 150)
    assert len(index.keywords) == 150
    assert index.memory_bytes() > 0
    index.close()


def test_searches_beside_changes_are_never_short(store: ColumnarStore) -> None:
    """Updates, new memories and list builds beside searches: what was there before is always found."""
    index = NamespaceIndex(
        store.table(1, "acme/notes"), blind, RecallSettings(exact_rows_max=500), dimensions=D
    )
    rows = clustered(2_000, D, 20, seed=1)
    seq = 0
    finished = threading.Event()
    problems: list[str] = []

    def put(number: int, content_version: int) -> None:
        nonlocal seq
        index.apply(
            [
                Upsert(memory(number, f"refund {number}"), seq + 1, content_version),
                VectorPut(memory_id(number).bytes, content_version, rows[number], seq + 2),
            ],
            seq + 2,
        )
        seq += 2

    def look() -> None:
        rng = np.random.default_rng(threading.get_ident() % 1000)
        while not finished.is_set():
            before = index.memories
            for mode in ("semantic", "keyword", "hybrid"):
                query = RecallQuery(
                    now_us=NOW_US, text="refund", vector=rows[rng.integers(2_000)], mode=mode, k=40
                )
                found = [c.memory_id for c in Recall.search([index], query)]
                if len(found) < min(40, before) or len(set(found)) != len(found):
                    problems.append(f"{mode}: {len(found)} of {before}")

    for number in range(100):
        put(number, 1)
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100, 2_000):
        put(number, 1)
        if number % 3 == 0:  # the same content again: another row takes the vector over
            index.apply([Upsert(memory(number // 2, f"refund {number // 2}"), seq + 1, 1)], seq + 1)
            seq += 1
        if number % 20 == 0:  # lets the other threads go on
            assert len(meaning(index)) == min(number + 1, 1000)
    finished.set()
    for thread in threads:
        thread.join()
    assert index.wait_idle(60)
    assert not problems
    assert index.embedded == 2_000
    index.close()


# -- any history ------------------------------------------------------------------------------------
class History(RuleBasedStateMachine):
    """Random changes, some of them repeated or late, against a dictionary; and a replay from nothing."""

    numbers = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.store = ColumnarStore()
        self.index = NamespaceIndex(self.store.table(1, "acme/notes"), blind, dimensions=D)
        self.seq = 0
        self.memories: dict[int, tuple[Memory, int, int]] = {}  # memory, seq, content version
        self.vectors: dict[int, tuple[int, int, int]] = {}  # seed, content version, seq
        self.gone: dict[int, int] = {}
        self.versions: dict[int, int] = {}
        self.sent: list[Change] = []

    def send(self, change: Change) -> None:
        self.sent.append(change)
        self.index.apply([change], self.seq)

    @rule(number=numbers, word=st.sampled_from(["refund", "price", "phone"]))
    def store_content(self, number: int, word: str) -> None:
        self.seq += 1
        version = self.versions[number] = self.versions.get(number, 0) + 1
        made = memory(number, f"{word} {number}")
        self.memories[number] = (made, self.seq, version)
        self.gone.pop(number, None)
        self.send(Upsert(made, self.seq, version))

    @rule(number=numbers, importance=st.sampled_from([0.0, 0.4, 0.8]))
    def touch(self, number: int, importance: float) -> None:
        if number in self.memories:
            self.seq += 1
            known, _, version = self.memories[number]
            made = replace(known, importance=importance)
            self.memories[number] = (made, self.seq, version)
            self.send(Upsert(made, self.seq, version))

    @rule(number=numbers, seed=st.integers(1, 9), behind=st.integers(0, 1))
    def embed(self, number: int, seed: int, behind: int) -> None:
        if number in self.memories:
            version = self.memories[number][2] - behind
            self.seq += 1
            if behind == 0:
                self.vectors[number] = (seed, version, self.seq)
            self.send(VectorPut(memory_id(number).bytes, version, vector(seed), self.seq))

    @rule(number=numbers)
    def drop_vector(self, number: int) -> None:
        self.seq += 1
        self.vectors.pop(number, None)
        self.send(VectorDrop(memory_id(number).bytes, self.seq))

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.seq += 1
        self.memories.pop(number, None)
        self.vectors.pop(number, None)
        self.gone[number] = self.seq
        self.send(Remove(memory_id(number).bytes, self.seq))

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        if self.sent:
            self.index.apply([data.draw(st.sampled_from(self.sent))], self.seq)

    @rule()
    def look(self) -> None:
        self.agree(self.index)

    @rule()
    def replay(self) -> None:
        """The feed of the rows as they are now, each at the place of its last change."""
        feed: list[Change] = [Upsert(m, seq, version) for m, seq, version in self.memories.values()]
        feed += [Remove(memory_id(n).bytes, seq) for n, seq in self.gone.items()]
        feed += [
            VectorPut(memory_id(n).bytes, version, vector(seed), seq)
            for n, (seed, version, seq) in self.vectors.items()
        ]
        store = ColumnarStore()
        index = NamespaceIndex(store.table(1, "acme/notes"), blind, dimensions=D)
        for change in sorted(feed, key=_seq):
            index.apply([change], _seq(change))
        self.agree(index)
        self.index.apply(sorted(feed, key=_seq), self.seq)
        index.close()
        store.close()

    @invariant()
    def counts(self) -> None:
        assert self.index.memories == len(self.memories)
        assert self.index.embedded == len(self.embedded())
        for number in range(5):
            known = self.memories.get(number)
            assert self.index.seq_of(memory_id(number).bytes) == (known[1] if known else None)

    def embedded(self) -> dict[bytes, int]:
        return {
            memory_id(n).bytes: seed
            for n, (seed, version, _) in self.vectors.items()
            if n in self.memories and self.memories[n][2] == version
        }

    def agree(self, index: NamespaceIndex) -> None:
        wanted = {i: float(vector(seed) @ vector(3)) for i, seed in self.embedded().items()}
        assert meaning(index, 3) == pytest.approx(wanted, abs=1e-3)
        for word in ("refund", "price", "phone"):
            having = {n for n, (m, _, _) in self.memories.items() if m.content.startswith(word)}
            assert words(index, word) == ids(*having)
        some = {n for n, (m, _, _) in self.memories.items() if m.importance >= 0.4}
        listed = index.list_newest(Filter(importance_min=0.4), 9, None, NOW_US)
        assert [i.memory_id for i in listed] == [memory_id(n).bytes for n in sorted(some, reverse=True)]
        assert {i.memory_id: i.seq for i in index.list_newest(ALL, 9, None, NOW_US)} == {
            memory_id(n).bytes: seq for n, (_, seq, _) in self.memories.items()
        }

    def teardown(self) -> None:
        self.agree(self.index)
        self.index.close()
        self.store.close()


def _seq(change: Change) -> int:
    return change.seq


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["set", "drop"]), st.booleans()), max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filter_asked_again_sees_what_changed_since(
    index: NamespaceIndex, steps: list[tuple[int, str, bool]]
) -> None:
    """What is remembered of a filter gives the answer of a first time, through changes and removals."""
    wanted = Filter(kinds=("fact",))
    seq = index.watermark
    is_fact: dict[int, bool] = {}
    for number in range(10):  # what earlier examples have left
        index.apply([Remove(memory_id(number).bytes, seq := seq + 1)], seq)
    for number, step, fact in steps:
        seq += 1
        if step == "set":
            index.apply([Upsert(memory(number, kind="fact" if fact else "goal"), seq, 1)], seq)
            is_fact[number] = fact
        else:
            index.apply([Remove(memory_id(number).bytes, seq)], seq)
            is_fact.pop(number, None)
        index.prepare()
        with index.lock.read:
            found = {index.id_at(rid) for rid in index.chosen(wanted, NOW_US).tolist()}
        assert found == {memory_id(n).bytes for n, yes in is_fact.items() if yes}


def test_a_bulk_load_does_not_leave_all_rows_waiting(
    store: ColumnarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are put into the columns while a load goes on and not all by the first filter; a table that
    cannot take them at that moment does not fail the load, and the filter finds them all."""
    monkeypatch.setattr(_row_questions, "WAITING_ROWS_MAX", 500)
    monkeypatch.setattr(module, "PENDING_MAX", 200)
    table = store.table(1, "acme/notes")
    index = NamespaceIndex(table, blind, ns=1, dimensions=D)
    broken = False

    def flush() -> None:
        if broken:
            raise LimitExceededError("no room")
        table._flush(counters=True)

    monkeypatch.setattr(table, "flush", flush)
    waited = []
    for start in range(0, 4_000, 100):
        broken = 1_000 <= start < 2_000
        changes = [Upsert(memory(n, "a note"), n + 1, 1) for n in range(start, start + 100)]
        index.apply(changes, start + 100)
        if not 1_000 <= start < 2_200:
            waited.append(table._buffer.rows)
    index.wait_idle()
    assert max(waited) < 800
    query = RecallQuery(
        now_us=NOW_US, text="note", mode="keyword", k=5_000, filter=Filter(kinds=("observation",))
    )
    assert len(Recall.search([index], query)) == 4_000
    index.close()


def test_no_lists_are_made_of_a_part_while_an_index_is_loading(store: ColumnarStore) -> None:
    """While all rows of a namespace are read no lists are made of those that are there; afterwards they are,
    once."""
    settings = RecallSettings(exact_rows_max=100)
    index = NamespaceIndex(store.table(1, "acme/notes"), blind, settings, ns=1, dimensions=D)
    index.loading = True
    for start in range(0, 2_400, 600):
        numbers = range(start, start + 600)
        index.apply([Upsert(memory(n, "a note"), n + 1, 1) for n in numbers], start + 600)
        index.apply([VectorPut(memory_id(n).bytes, 1, vector(n), 10_000 + n) for n in numbers], start + 600)
        index.wait_idle()
        assert index.vectors is None or index.vectors.is_exact
    index.loading = False
    index.settle()
    assert index.wait_idle(60)
    assert index.vectors is not None and index.vectors._trained_rows == 2_400
    index.close()


def test_what_loading_leaves_goes_back_to_the_system(
    store: ColumnarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many rows are read freed memory is given back now and then and once at the end, not later."""
    calls: list[int] = []
    monkeypatch.setattr(_allocator, "give_back", lambda: calls.append(index.end))
    monkeypatch.setattr(_allocator, "LEAVINGS_ROWS", 700)
    index = NamespaceIndex(store.table(1, "acme/notes"), blind, RecallSettings(), ns=1, dimensions=D)
    index.loading = True
    for start in range(0, 2_400, 300):
        index.apply([Upsert(memory(n, "a note"), n + 1, 1) for n in range(start, start + 300)], start + 300)
        index.prepare()
    index.loading = False
    assert calls == [900, 1_800]
    index.settle()
    assert len(calls) == 3
    index.apply([Upsert(memory(n, "a note"), n + 1, 1) for n in range(2_400, 4_000)], 4_000)
    index.prepare()
    index.settle()
    assert len(calls) == 3
    index.close()
