"""The columnar projection against a plain Python model, on random memories, filters and changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.recall.columnar_model import (
    EXPRESSIONS,
    NOW,
    NOW_US,
    documents,
    filters,
    matches,
    memories,
    moments,
    paths,
    quoted_path,
    scalars,
    us,
)

from strongroom.model import Filter, Memory
from strongroom.recall.columnar import ColumnarStore

_numbers = iter(range(1, 10**9))


@pytest.fixture(scope="module")
def store() -> Iterator[ColumnarStore]:
    store = ColumnarStore(memory_limit="1GB", threads=2)
    yield store
    store.close()


_relaxed = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _check(table: Any, rows: dict[int, Memory], filter: Filter, meta: dict[Any, Any], where: Any) -> None:
    expected = [rid for rid, memory in rows.items() if matches(memory, filter, meta, where)]
    assert table.select(filter, now_us=NOW_US).tolist() == sorted(expected)
    assert table.count(filter, now_us=NOW_US) == len(expected)
    for _ in range(2):  # the second time from what was kept
        mask = table.mask(filter, now_us=NOW_US)
        if mask is not None:  # removed and expired rows are for the index to leave out
            gone = [rid for rid, m in rows.items() if m.expires_at is not None and m.expires_at <= NOW]
            found = set(mask.nonzero()[0].tolist()) & (set(rows) - set(gone))
            assert sorted(found) == sorted(expected)
    newest = sorted(((us(rows[rid].created_at), rid) for rid in expected), reverse=True)
    pages: list[tuple[int, int]] = []
    while page := table.list_page(filter, 3, (pages[-1][0], pages[-1][1]) if pages else None, now_us=NOW_US):
        pages.extend((created, rid) for rid, created in page)
    assert pages == newest


@_relaxed
@given(
    st.lists(memories, max_size=12),
    filters,
    st.dictionaries(paths, scalars, max_size=2),
    st.none() | st.sampled_from(EXPRESSIONS),
    st.data(),
)
def test_random_filters_agree_with_the_model(
    store: ColumnarStore, batch: list[Memory], given_filter: dict[str, Any], meta: Any, where: Any, data: Any
) -> None:
    """select, count and the pages of a listing give exactly what the model says."""
    rows = dict(enumerate(batch))
    if meta and batch and data.draw(st.booleans(), "metadata from a memory"):
        document = data.draw(st.sampled_from(batch)).metadata
        plain = {(k,): v for k, v in document.items() if not isinstance(v, dict | list)}
        nested = {(k, n): w for k, v in document.items() if isinstance(v, dict) for n, w in v.items()}
        meta = dict(list((plain | nested).items())[:2])
    wanted = Filter(
        **given_filter,
        metadata={quoted_path(path): value for path, value in meta.items()} or None,
        where=where[0] if where else None,
    )
    table = store.table(next(_numbers), "company_a/support")
    table.append([(rid, memory, rid + 1) for rid, memory in rows.items()])
    _check(table, rows, wanted, meta, where)
    table.drop()


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda e: e[0][:40])
@settings(_relaxed, max_examples=5)
@given(st.lists(memories, min_size=1, max_size=20))
def test_every_expression_agrees_with_the_model(
    store: ColumnarStore, expression: Any, batch: list[Memory]
) -> None:
    """Each expression of the documented kinds selects what the same condition in Python selects."""
    rows = dict(enumerate(batch))
    table = store.table(next(_numbers), "company_a/support")
    table.append([(rid, memory, rid + 1) for rid, memory in rows.items()])
    _check(table, rows, Filter(where=expression[0]), {}, expression)
    table.drop()


@_relaxed
@given(documents, paths)
def test_metadata_finds_every_value_that_it_holds(
    store: ColumnarStore, document: dict[str, Any], _: Any
) -> None:
    """A memory is found by each scalar of its own metadata, whatever characters its keys hold."""
    table = store.table(next(_numbers), "a")
    memory = Memory(
        memory_id=UUID(int=1),
        namespace="a",
        content="",
        metadata=document,
        created_at=NOW,
        updated_at=NOW,
    )
    table.append([(0, memory, 1)])
    for key, value in document.items():
        for path, leaf in (
            [((key, k), v) for k, v in value.items()] if isinstance(value, dict) else [((key,), value)]
        ):
            if not isinstance(leaf, list):
                assert table.count(Filter(metadata={quoted_path(path): leaf}), now_us=NOW_US) == 1
    table.drop()


class Changes(RuleBasedStateMachine):
    """Appends, removals and counters in any order, with queries between them, against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, Memory] = {}
        self.next = 0

    @initialize()
    def start(self) -> None:
        self.store = ColumnarStore(memory_limit="256MB", threads=1)
        self.table = self.store.table(1, "company_a/support")

    @rule(batch=st.lists(memories, max_size=4), gap=st.integers(0, 3))
    def append(self, batch: list[Memory], gap: int) -> None:
        self.next += gap
        numbered = [(self.next + i, memory, 1) for i, memory in enumerate(batch)]
        self.next += len(batch)
        self.table.append(numbered)
        self.rows.update({rid: memory for rid, memory, _ in numbered})

    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        rids = data.draw(st.lists(st.integers(0, self.next + 2), max_size=4))
        self.table.remove(rids)
        for rid in rids:
            self.rows.pop(rid, None)

    @rule(data=st.data(), flag=st.booleans())
    def set_embedded(self, data: Any, flag: bool) -> None:
        rids = data.draw(st.lists(st.integers(0, self.next + 2), max_size=4))
        self.table.set_embedded(rids, flag)
        self._change(rids, has_embedding=flag)

    @rule(data=st.data(), count=st.integers(0, 100), when=st.none() | moments)
    def set_access(self, data: Any, count: int, when: Any) -> None:
        rid = data.draw(st.integers(0, self.next + 2))
        self.table.set_access(rid, count, None if when is None else us(when))
        self._change([rid], access_count=count, last_accessed_at=when)

    def _change(self, rids: list[int], **fields: Any) -> None:
        for rid in rids:
            if rid in self.rows:
                self.rows[rid] = replace(self.rows[rid], **fields)

    @rule(where=st.sampled_from([e for e in EXPRESSIONS if "access" in e[0] or "embedding" in e[0]]))
    def query_counters(self, where: Any) -> None:
        _check(self.table, self.rows, Filter(where=where[0]), {}, where)

    @rule(given_filter=filters)
    def query(self, given_filter: dict[str, Any]) -> None:
        _check(self.table, self.rows, Filter(**given_filter), {}, None)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "table"):
            live = [m for m in self.rows.values() if m.expires_at is None or m.expires_at > NOW]
            assert self.table.count(Filter(), now_us=NOW_US) == len(live)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
