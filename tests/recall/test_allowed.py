"""What passed a filter is remembered, and never past a change of who is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from tests.recall.lane_tools import NOW_US, START, blind, memory, memory_id, unit

from strongroom.model import Filter
from strongroom.model.rows import ALL, WHOLE, Reach, TagsAny
from strongroom.recall import AccessPut, ColumnarStore, NamespaceIndex, Remove, Upsert, _allowed
from strongroom.recall._allowed import Packed
from strongroom.recall.vectors import VectorLane

EVEN = Filter(tags_any=("even",))
ODD = Filter(tags_any=("odd",))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[NamespaceIndex]:
    """Forty memories, of which every other one is even; more than ten are given as a mask."""
    monkeypatch.setattr(_allowed, "FEW_ROWS", 10)
    store = ColumnarStore()
    made = NamespaceIndex(store.table(1, "acme/notes"), blind, ns=1, dimensions=8)
    made.apply([_put(n, n + 1) for n in range(40)], 40)
    yield made
    made.close()
    store.close()


def _put(number: int, seq: int, **more: Any) -> Upsert:
    tags = ("odd",) if number % 2 else ("even",)
    return Upsert(memory(number, f"text {number}", **{"tags": tags, **more}), seq, seq)


def _reached(
    index: NamespaceIndex, filter: Filter = EVEN, now_us: int = NOW_US, reach: Reach = WHOLE
) -> set[bytes]:
    index.prepare()
    with index.lock.read:
        allowed = index.allowed(filter, now_us, reach)
    assert allowed is not None
    rids = np.flatnonzero(allowed) if allowed.dtype == np.bool_ else allowed
    return {index.id_at(rid) for rid in rids.tolist()}


def _ids(numbers: Any) -> set[bytes]:
    return {memory_id(n).bytes for n in numbers}


def _asks(index: NamespaceIndex, monkeypatch: pytest.MonkeyPatch) -> list[Filter]:
    """Grows by each filter for which the table makes a mask."""
    seen: list[Filter] = []
    real = index.table.mask

    def mask(filter: Filter, *, now_us: int) -> Any:
        seen.append(filter)
        return real(filter, now_us=now_us)

    monkeypatch.setattr(index.table, "mask", mask)
    return seen


def test_the_same_filter_is_not_worked_out_again(
    index: NamespaceIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two filters by turns cost a mask each; counters of access change nothing; the array is read-only."""
    asks = _asks(index, monkeypatch)
    for seq in range(50, 53):
        assert _reached(index) == _ids(range(0, 40, 2))
        assert _reached(index, ODD) == _ids(range(1, 40, 2))
        index.apply([AccessPut(memory_id(3).bytes, seq, NOW_US, seq)], seq)
    assert asks == [EVEN, ODD]
    with index.lock.read:
        allowed = index.allowed(EVEN, NOW_US)
    assert allowed is not None
    with pytest.raises(ValueError, match="read-only"):
        allowed[0] = False


def test_callers_who_may_see_different_rows_share_no_answer(index: NamespaceIndex) -> None:
    """The same filter under two conditions of policies, and none, by turns: each gets its own rows."""
    even, odd = (Reach(rows, rows) for rows in (TagsAny(("even",)), TagsAny(("odd",))))
    wide = Filter(tags_any=("even", "odd"))
    for _ in range(3):
        assert _reached(index, wide, reach=even) == _ids(range(0, 40, 2))
        assert _reached(index, wide, reach=odd) == _ids(range(1, 40, 2))
        assert _reached(index, Filter(), reach=odd) == _ids(range(1, 40, 2))
        assert _reached(index, wide, reach=Reach(ALL, ALL)) == _ids(range(40))
        assert _reached(index, reach=odd) == set()


def test_a_new_updated_or_removed_memory_is_seen(index: NamespaceIndex) -> None:
    """After each change the remembered answer is gone: what was allowed before says nothing."""
    assert _reached(index) == _ids(range(0, 40, 2))
    index.apply([_put(100, 60)], 60)
    assert _reached(index) == _ids([*range(0, 40, 2), 100])
    index.apply([Remove(memory_id(4).bytes, 61)], 61)
    assert _reached(index) == _ids([0, 2, *range(6, 40, 2), 100])
    index.apply([_put(6, 62, tags=("odd",))], 62)
    assert _reached(index) == _ids([0, 2, *range(8, 40, 2), 100])
    assert _reached(index, ODD) == _ids([*range(1, 40, 2), 6])


def test_a_memory_that_has_expired_meanwhile_is_left_out(index: NamespaceIndex) -> None:
    """The clock alone takes a row out of a remembered answer."""
    index.apply([_put(200, 70, expires_at=START + timedelta(days=300))], 70)
    later_us = NOW_US + int(timedelta(days=300).total_seconds()) * 1_000_000
    assert _reached(index) == _ids([*range(0, 40, 2), 200])
    assert _reached(index, now_us=later_us) == _ids(range(0, 40, 2))
    assert _reached(index) == _ids([*range(0, 40, 2), 200])


def test_only_the_last_few_are_kept(index: NamespaceIndex) -> None:
    """A byte for each row, of at most ``KEPT`` filters."""
    for number in range(10):
        _reached(index, Filter(importance_min=number / 100, tags_any=("even",)))
    assert len(index._permits._kept) == _allowed.KEPT


def test_bits_are_kept_for_what_cannot_change() -> None:
    """A read-only mask is packed once; one that may change each time, so that its change is seen."""
    packed, mask = Packed(), np.ones(100, dtype=np.bool_)
    first = packed.of(mask, 10)
    mask[:50] = False
    second = packed.of(mask, 10)
    assert (first[0], second[0]) == (100, 50)
    mask.flags.writeable = False
    third = packed.of(mask, 10)
    assert third[1] is not second[1]
    assert packed.of(mask, 10)[1] is third[1]
    assert packed.of(mask.copy(), 10)[1] is not third[1]
    assert packed.of(np.arange(5), 10) == (5, None)


def test_a_lane_asked_with_a_kept_mask_answers_as_with_a_fresh_one() -> None:
    """Two masks by turns, one object each: every answer lies inside its own, and is that of a copy."""
    rng = np.random.default_rng(5)
    rows = unit(rng.standard_normal((9_000, 8)))
    lane = VectorLane(8)
    lane.add(np.arange(9_000), rows)
    masks = [np.arange(9_000) % 2 == which for which in (0, 1)]
    for mask in masks:
        mask.flags.writeable = False
    for number in range(6):
        mask = masks[number % 2]
        found, scores = lane.search(rows[number], 20, mask)
        fresh = lane.search(rows[number], 20, mask.copy())
        assert found.tolist() == fresh[0].tolist()
        assert scores.tobytes() == fresh[1].tobytes()
        assert mask[found].all()
    lane.close()
