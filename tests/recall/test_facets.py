"""Filters as arrays: a mask that was kept says the same as one that is made anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from strongroom.model import Memory
from strongroom.recall import _facets
from strongroom.recall._columns import to_row, to_us
from strongroom.recall._facets import Compare, Condition, Facets, OneOf

START = datetime(2026, 1, 1, tzinfo=UTC)


def memory(random: Random) -> Memory:
    created = START + timedelta(minutes=random.randrange(1_000))
    ends: Any = created + timedelta(minutes=random.randrange(2_000)) if random.random() < 0.1 else None
    return Memory(
        memory_id=uuid4(),
        namespace="n",
        content="c",
        kind=random.choice(("fact", "goal")),
        agent_id=random.choice((None, "a", "b")),
        importance=random.random(),
        created_at=created,
        updated_at=created,
        expires_at=ends,
    )


def test_a_kept_mask_follows_rows_that_come_go_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 random changes; each kept mask, grown again and again, equals what a look at every row gives."""
    monkeypatch.setattr(_facets, "BLOCK_ROWS", 64)
    random = Random(7)
    facets = Facets()
    asked: list[tuple[Condition, ...]] = [
        (Compare("importance", ">=", 0.8),),
        (OneOf("kind", ("fact",)), Compare("created_at", "<", to_us(START + timedelta(minutes=500)))),
        (OneOf("agent_id", ("a", "later")),),
        (),
    ]
    kept: dict[int, _facets.KeptMask] = {}
    end = 0
    for step in range(300):
        if random.random() < 0.6:
            count = random.randrange(1, 40)
            facets.append([to_row(end + i, memory(random), 1) for i in range(count)])
            end += count
        else:
            facets.remove(random.sample(range(end), min(end, 5)))
        if step == 150:  # rows before those that are there: what was kept does not know them
            other = Facets()
            other.append([to_row(end + i, memory(random), 1) for i in range(10)])
            kept = {n: other.mask(c, 0) for n, c in enumerate(asked)}
            other.append([to_row(i, memory(random), 1) for i in range(end)])
            facets, end = other, end + 10
        now_us = to_us(START + timedelta(minutes=step * 10))
        for number, conditions in enumerate(asked):
            kept[number] = facets.mask(conditions, now_us, kept.get(number))
            anew = facets.mask(conditions, now_us)
            assert np.array_equal(kept[number].passing, anew.passing), (step, number)
            assert int(np.count_nonzero(anew.passing)) == facets.count(conditions, now_us)
        wrong = facets.mask(asked[0], now_us, kept[1])  # of other conditions: not believed
        assert np.array_equal(wrong.passing, kept[0].passing)
        back_us = now_us - 20 * 60_000_000  # the clock is put back: rows that had expired live again
        for number, conditions in enumerate(asked):
            again = facets.mask(conditions, back_us, kept[number])
            assert np.array_equal(again.passing, facets.mask(conditions, back_us).passing), (step, number)


def test_a_mask_of_rows_that_stand_as_they_were_is_the_same_array() -> None:
    """Nothing came, went or expired: the very array, which nobody can change; after any of these another."""
    random = Random(3)
    facets = Facets()
    rows = [memory(random) for _ in range(50)]
    facets.append([to_row(i, m, 1) for i, m in enumerate(rows) if m.expires_at is None])
    conditions = (OneOf("kind", ("fact",)),)
    first = facets.mask(conditions, 0)
    assert facets.mask(conditions, 10**15, first) is first
    with pytest.raises(ValueError, match="read-only"):
        first.passing[0] = True
    there = [i for i, m in enumerate(rows) if m.expires_at is None]
    facets.remove([next(i for i in there if rows[i].kind == "fact")])
    second = facets.mask(conditions, 0, first)
    assert int(second.passing.sum()) == int(first.passing.sum()) - 1
    assert facets.mask(conditions, 0, second) is second
    facets.append([to_row(60, memory(random), 1)])
    third = facets.mask(conditions, 0, second)
    assert third is not second and len(third.passing) == 61


def test_groups_are_those_of_a_look_at_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come, go and expire; counts and sums by no, one and two columns, with conditions and without."""
    monkeypatch.setattr(_facets, "BLOCK_ROWS", 64)
    random = Random(11)
    facets = Facets()
    there: dict[int, Memory] = {}
    for step in range(60):
        start = step * 20
        made = {start + i: memory(random) for i in range(20)}
        facets.append([to_row(rid, m, 1) for rid, m in made.items()])
        there |= made
        for rid in random.sample(sorted(there), 7 if step > 20 else 0):
            facets.remove([rid])
            del there[rid]
        now = START + timedelta(minutes=step * 40)
        living = [m for m in there.values() if m.expires_at is None or m.expires_at > now]
        for columns in ((), ("agent_id",), ("kind", "agent_id")):
            for conditions, passes in (
                ((), lambda m: True),
                ((OneOf("kind", ("goal",)), Compare("importance", "<", 0.5)),
                 lambda m: m.kind == "goal" and m.importance < 0.5),
                ((OneOf("agent_id", ("nobody",)),), lambda m: False),
            ):  # fmt: skip
                key = lambda m, columns=columns: tuple(getattr(m, c) for c in columns)  # noqa: E731
                chosen = [m for m in living if passes(m)]
                found = facets.groups(columns, conditions, to_us(now), adding=True)
                assert found is not None
                assert {g.texts: g.rows for g in found} == dict(Counter(map(key, chosen)))
                for group in found:
                    total = sum(m.importance for m in chosen if key(m) == group.texts)
                    assert group.importance == pytest.approx(total)


def test_columns_that_could_make_very_many_groups_are_not_counted_here() -> None:
    random = Random(1)
    facets = Facets()
    facets.append([to_row(i, replace(memory(random), session_id=f"s{i}"), 1) for i in range(600)])
    assert facets.groups(["kind"], (), 0, adding=False) is not None
    assert facets.groups(["session_id"], (), 0, adding=False) is not None
    assert facets.groups(["session_id", "kind"], (), 0, adding=False) is None
