"""The best k of many scores, with ties in one defined order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best(
    scores: NDArray[np.float32], rids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rids, scores) of the ``k`` highest scores, best first; of equal scores the higher rid first.

    ``scores`` float32 and ``rids`` int64 have the same length; no NaN. Cost: one partition, and a sort
    of the chosen.
    """
    if len(scores) > k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= threshold)
        scores, rids = scores[chosen], rids[chosen]
    order = np.lexsort((-rids, -scores))[:k]
    return rids[order], scores[order]
