"""What columns are said to take is what their engine says it holds, shared out among the tables."""

from __future__ import annotations

import pytest
from tests.recall.lane_tools import NOW_US, memory

from strongroom.model import Filter
from strongroom.recall import _weight
from strongroom.recall.columnar import ColumnarStore, ColumnarTable


def filled(store: ColumnarStore, ns: int, rows: int) -> ColumnarTable:
    table = store.table(ns, f"acme/{ns}")
    table.append([(n, memory(n, f"the note number {n}", tags=("a", "b")), n + 1) for n in range(rows)])
    table.flush()
    return table


def held(store: ColumnarStore) -> int:
    with store.cursor() as cursor:
        return int(cursor.execute(_weight._HELD).fetchone()[0])


def test_the_count_is_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables together take what the engine holds and their arrays, each by what it was told; when the
    engine cannot be asked the last answer holds."""
    monkeypatch.setattr(_weight, "ASK_S", 0.0)
    store = ColumnarStore()
    large, small = filled(store, 1, 8_000), filled(store, 2, 4_000)
    for table in (large, small):
        table._weight.told *= 2  # as if groups of rows had been pressed together
    arrays = [table._facets.memory_bytes() for table in (large, small)]
    sizes = [table.memory_bytes() - n for table, n in zip((large, small), arrays, strict=True)]
    assert sum(sizes) == pytest.approx(held(store), rel=0.02)
    assert sizes[0] == pytest.approx(2 * sizes[1], rel=0.05)
    assert sum(sizes) < 0.6 * (large.dump_bytes() + small.dump_bytes())
    assert large.count(Filter(), now_us=NOW_US) == 8_000
    large.remove(range(8_000))
    assert large.memory_bytes() == large._facets.memory_bytes()
    before = small.memory_bytes()
    store.close()
    assert small.memory_bytes() == before


def test_the_engine_is_not_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tables are looked at, the engine is asked once in a while."""
    store = ColumnarStore()
    tables = [filled(store, ns, 100) for ns in range(20)]
    asked: list[int] = []
    cursor = store.cursor
    monkeypatch.setattr(store.weight, "_cursor", lambda: asked.append(1) or cursor())
    for _ in range(3):
        assert all(table.memory_bytes() > 0 for table in tables)
    assert len(asked) <= 1
    store.close()


def test_what_is_still_being_restored_counts_as_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are on their way out of a snapshot count, and make the others no lighter."""
    monkeypatch.setattr(_weight, "ASK_S", 0.0)
    store = ColumnarStore()
    table = filled(store, 1, 8_000)
    before = table.memory_bytes()
    coming = store.table(2, "acme/2")
    coming._weight.restore(100_000, 20_000_000)
    assert coming.memory_bytes() >= 20_000_000
    assert table.memory_bytes() == before
    coming._weight.is_whole = True
    assert table.memory_bytes() < before
    store.close()
