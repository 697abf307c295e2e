"""Reciprocal rank fusion against the formula."""

from __future__ import annotations

from random import Random

import pytest

from strongroom.recall.fusion import LaneWeights, fuse, lane_depth


def test_scores_are_those_of_the_paper() -> None:
    """weight / (constant + rank), summed over the lanes; ranks are reported."""
    fused = dict(fuse((["a", "b"], ["b", "c"]), lambda _: LaneWeights((1.0, 0.5), 60), lambda _: (0,)))
    assert fused["a"].score == pytest.approx(1 / 61)
    assert fused["b"].score == pytest.approx(1 / 62 + 0.5 / 61)
    assert fused["c"].score == pytest.approx(0.5 / 62)
    assert [fused[k].ranks for k in "abc"] == [(1, None), (2, 1), (None, 2)]


def test_order_and_ties() -> None:
    """Best first; of equal scores the more recent, however the lanes are ordered."""
    weights = LaneWeights((1.0, 1.0), 60)
    order = [key for key, _ in fuse(([1, 5], [5, 1]), lambda _: weights, lambda key: (key,))]
    assert order == [5, 1]
    order = [key for key, _ in fuse(([1, 2, 3], [3]), lambda _: weights, lambda key: (key,))]
    assert order[0] == 3


def test_weights_may_differ_by_thing() -> None:
    """A namespace that trusts its keywords more moves its memories up."""
    by_thing = {"x": LaneWeights((1.0, 0.1)), "y": LaneWeights((1.0, 5.0))}
    assert [k for k, _ in fuse((["x"], ["x", "y"]), by_thing.__getitem__, lambda _: (0,))] == ["y", "x"]


def test_lanes_may_be_empty() -> None:
    """Nothing fused with nothing is nothing."""
    assert fuse(([], []), lambda _: LaneWeights((1.0, 1.0)), lambda _: (0,)) == []


def test_lane_depth_covers_the_answer() -> None:
    """A lane gives at least twice what is wanted, and never fewer than the setting."""
    assert lane_depth(10, 50) == 50
    assert lane_depth(100, 50) == 200


def test_the_first_of_all_are_the_first() -> None:
    """Asking for some gives the beginning of all of them; for ties the order of the things themselves."""
    lot = Random(5)
    weights = LaneWeights((1.0, 1.0), 60)
    for _ in range(50):
        lanes = [lot.sample(range(30), lot.randint(0, 30)) for _ in range(2)]
        every = fuse(lanes, lambda _: weights, lambda key: (key,))
        assert fuse(lanes, lambda _: weights, None) == every
        assert [(-item.score, -key) for key, item in every] == sorted(
            (-item.score, -key) for key, item in every
        )
        assert fuse(lanes, lambda _: weights, None, first=7) == every[:7]


def test_one_weight_for_all_gives_what_weights_by_thing_give() -> None:
    """The same scores to the last bit, ranks and order, ties included, however many are wanted."""
    rng = Random(5)
    for _ in range(300):
        lanes = [rng.sample(range(40), rng.randrange(30)) for _ in range(2)]
        weights = LaneWeights((rng.choice((0.0, 0.5, 1.0)), 1.0), rng.choice((0, 60)))
        for first in (None, 1, 5, 100):
            of_each = fuse(lanes, lambda _, w=weights: w, None, first=first)  # type: ignore[misc]
            assert fuse(lanes, weights, None, first=first) == of_each
            every = fuse(lanes, weights, lambda key: (key,))
            assert of_each == every[:first]
