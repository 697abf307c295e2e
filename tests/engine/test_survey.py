"""A survey finds each memory among the live ones, however many there are and whatever their ids."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from strongroom.engine import _survey
from strongroom.engine._survey import Survey


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("live", [0, 1, 5_000])
def test_ids_are_found_where_they_stand(live: int, alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, over several pieces, unknown ones nowhere; also when all of them had one key."""
    monkeypatch.setattr(_survey, "_PLACES_ROWS", 700)
    if alike:
        monkeypatch.setattr(_survey, "_MIX", (np.uint64(0), np.uint64(0)))
    rng = np.random.default_rng(4)
    ids = rng.integers(256, size=(live + 300, 16), dtype=np.uint8)
    ids[:, :8] //= 64  # many with one beginning
    ids = np.unique(ids, axis=0)
    rng.shuffle(ids)
    made = Survey(seq=0, head_sum=0, ids=bytearray(ids[:live].tobytes()))
    asked = rng.permutation(len(ids))
    found = made._places(ids[asked])
    assert np.array_equal(found, np.where(asked < live, asked, -1))
    assert all(len(made._places(ids[a:b])) == b - a for a, b in pairwise((0, 0, 1)))
