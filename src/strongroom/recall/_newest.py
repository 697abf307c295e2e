"""Which rows a page of a listing holds: the newest first, of one microsecond the lower memory_id first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["page_of"]

Numbers = NDArray[np.int64]


def page_of(
    rids: Numbers, created: Numbers, ids: NDArray[np.uint8], limit: int, before: tuple[int, bytes] | None
) -> tuple[Numbers, Numbers]:
    """At most ``limit`` of ``rids`` and their times, in no order; many may share one microsecond.

    Args:
        created: microseconds of each of ``rids``.
        ids: the memory ids by rid, shape (rows, 16).
        before: (created_us, memory_id) of the last item of the page before.
    """
    if before is not None:
        at, memory_id = before
        keep = created < at
        same = np.flatnonzero(created == at)
        keep[same] = _is_above(ids[rids[same]], memory_id)
        rids, created = rids[keep], created[keep]
    if len(rids) > limit:
        last = np.partition(created, len(created) - limit)[len(created) - limit]
        keep = created > last
        same = np.flatnonzero(created == last)
        wanted = limit - int(np.count_nonzero(keep))
        high, low = _halves(ids[rids[same]])
        few = np.flatnonzero(high <= np.partition(high, wanted - 1)[wanted - 1])
        keep[same[few[np.lexsort((low[few], high[few]))[:wanted]]]] = True
        rids, created = rids[keep], created[keep]
    return rids, created


def _halves(ids: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = np.ascontiguousarray(ids).reshape(-1, 16).view(">u8")
    return halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)


def _is_above(ids: NDArray[np.uint8], memory_id: bytes) -> NDArray[np.bool_]:
    high, low = _halves(ids)
    first, second = np.uint64(int.from_bytes(memory_id[:8])), np.uint64(int.from_bytes(memory_id[8:]))
    above: NDArray[np.bool_] = (high > first) | ((high == first) & (low > second))
    return above
