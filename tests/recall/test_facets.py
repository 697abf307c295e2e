"""Filters as arrays: a mask that was kept says the same as one that is made anew."""

from __future__ import annotations

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
