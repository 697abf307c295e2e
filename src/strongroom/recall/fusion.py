"""Weighted reciprocal rank fusion: several orders of the same things become one.

Cormack, Clarke & Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods": the score of a thing is the sum over the lanes that found it of
weight / (constant + rank), the first rank being 1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LaneWeights:
    """The weight of each lane, in the order of the lanes, and the constant that dampens the top ranks."""

    weights: tuple[float, ...]
    constant: int = 60


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused score, and the rank in each lane (1 is the best; None: the lane did not find it)."""

    score: float
    ranks: tuple[int | None, ...]


def lane_depth(k: int, depth_min: int) -> int:
    """How many candidates each lane gives when ``k`` are wanted."""
    return max(depth_min, 2 * k)


def fuse(
    lanes: Sequence[Sequence[K]],
    weights_of: LaneWeights | Callable[[K], LaneWeights],
    recency: Callable[[K], tuple[int, ...]] | None,
    *,
    first: int | None = None,
) -> list[tuple[K, Fused]]:
    """The things of every lane with their fused scores, best first; ties: the more recent first.

    Args:
        lanes: each its things, best first, none twice.
        weights_of: the weights, or those of one thing (they may differ, for example by namespace).
        recency: orders things of the same score, the greater one first; None: the greater thing.
        first: how many are wanted; None: all of them.
    """
    scores: dict[K, float] = {}
    for number, lane in enumerate(lanes):
        if isinstance(weights_of, LaneWeights):
            weight = weights_of.weights[number]
            for place, thing in enumerate(lane, start=weights_of.constant + 1):
                scores[thing] = scores.get(thing, 0.0) + weight / place
        else:
            for rank, thing in enumerate(lane, start=1):
                known = weights_of(thing)
                scores[thing] = scores.get(thing, 0.0) + known.weights[number] / (known.constant + rank)
    chosen: Iterable[K] = scores
    if first is not None and 0 < first < len(scores):
        least = sorted(scores.values(), reverse=True)[first - 1]
        chosen = [thing for thing, score in scores.items() if score >= least]
    order = sorted(chosen, key=recency, reverse=True)  # type: ignore[arg-type, type-var]  # None: they have one
    order.sort(key=scores.__getitem__, reverse=True)  # leaves equal ones in theirs
    ranks = [dict(zip(lane, count(1), strict=False)) for lane in lanes]
    return [(thing, Fused(scores[thing], tuple([r.get(thing) for r in ranks]))) for thing in order[:first]]
