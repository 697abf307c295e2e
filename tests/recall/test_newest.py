"""Pages of a listing against sorting everything, also where a whole import shares one microsecond."""

from __future__ import annotations

import numpy as np
import pytest

from strongroom.recall._newest import page_of


@pytest.mark.parametrize("moments", [1, 3, 1000])
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_hold_everything_once_and_in_order(moments: int, limit: int) -> None:
    """Newest first, of one microsecond the lower id first, and never more rows than the page takes."""
    rng = np.random.default_rng(moments * 1000 + limit)
    rows = 250
    ids = rng.integers(0, 256, size=(2 * rows, 16), dtype=np.uint8)
    ids[:rows, :9] = 0xFF  # alike in the first half, and beyond what a signed number holds
    created = rng.integers(0, moments, size=2 * rows)
    rids = np.sort(rng.choice(2 * rows, size=rows, replace=False))
    wanted = sorted((-int(created[r]), ids[r].tobytes()) for r in rids)
    seen: list[tuple[int, bytes]] = []
    before: tuple[int, bytes] | None = None
    while True:
        found, times = page_of(rids, created[rids], ids, limit, before)
        assert len(found) == len(times) <= limit
        if not len(found):
            break
        page = sorted((-int(at), ids[rid].tobytes()) for rid, at in zip(found, times, strict=True))
        seen += page
        before = (-page[-1][0], page[-1][1])
    assert seen == wanted
