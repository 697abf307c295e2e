"""Vectors and metadata of a load, checked by the block: the same values and refusals as one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.engine.conftest import OpenRoom

from strongroom.config import LimitsConfig
from strongroom.engine import _validate
from strongroom.engine._vectors import check_vector, needs_only_its_norm, unit_vectors
from strongroom.errors import InvalidInputError, InvalidVectorError, StrongroomError

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
scales = st.sampled_from([0.0, 1e-45, 1e-30, 1e-8, 1.0, 1e6, 1e30, float("inf"), float("nan")])


@settings(deadline=None)
@given(st.lists(st.one_of(arrays(np.float32, 5, elements=floats)), min_size=1, max_size=150))
def test_vectors_by_the_block_are_those_one_by_one(vectors: list[Any]) -> None:
    """Bit for bit the same unit vector, and an error in the place of each that is refused."""
    made = unit_vectors(vectors)
    assert len(made) == len(vectors)
    for vector, found in zip(vectors, made, strict=True):
        try:
            single = check_vector(vector, 5)
        except InvalidVectorError as e:
            assert isinstance(found, InvalidVectorError) and found.message == e.message
        else:
            assert isinstance(found, np.ndarray) and found.tobytes() == single.tobytes()


def test_many_usual_vectors_by_the_block_are_those_one_by_one() -> None:
    """Of 20,000 vectors of 384 numbers and all norms every one has the same bits."""
    rng = np.random.default_rng(7)
    given_vectors = rng.standard_normal((20_000, 384)).astype(np.float32)
    given_vectors *= rng.uniform(0.01, 30, (20_000, 1)).astype(np.float32)
    single = [check_vector(v, 384).tobytes() for v in given_vectors]
    assert [v.tobytes() for v in unit_vectors(list(given_vectors))] == single  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [
        [1.0] * 4,
        np.ones(5, np.float32),
        np.ones((4, 1), np.float32),
        np.ones(4),
        np.ones(4, ">f4"),
        np.ones(4, np.float32).view(type("Own", (np.ndarray,), {})),
        None,
    ],
)
def test_only_plain_vectors_wait_for_the_block(value: object) -> None:
    """Anything but a plain array of that many float32 is looked at by itself, and at once."""
    assert not needs_only_its_norm(value, 4)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=2)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(), inner)),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, 2**63, -(2**63), b"x", 1 + 0j, np.float64(1)]
)
def test_metadata_that_is_refused_is_not_taken_as_flat(value: object) -> None:
    """A number beyond JSON or 64 bits, or a value of another type, is left to the walk, which refuses it."""
    assert _validate._flat_json({"a": 1, "b": value}) is None
    assert _validate._flat_json({1: "a"}) is None
    assert _validate._flat_json({"a": 2**63 - 1, "b": -(2**63) + 1}) == {"a": 2**63 - 1, "b": -(2**63) + 1}


@settings(deadline=None)
@given(st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), values, max_size=4))
def test_flat_metadata_is_taken_as_any_other(value: dict[Any, Any]) -> None:
    """What is taken at once is what the walk through all levels makes of it, and nothing that it refuses."""
    flat = _validate._flat_json(value)
    if flat is not None:
        assert repr(flat) == repr(_validate._plain_json(value, 1)) and flat is not value
    elif all(type(key) is str for key in value):
        with_levels = any(isinstance(v, (list, dict)) for v in value.values())
        try:
            _validate._plain_json(value, 1)
        except InvalidInputError:
            return
        assert with_levels
    assert _validate.check_metadata({"a": [1]}, LimitsConfig()) == {"a": [1]}


def test_the_first_item_that_is_refused_is_told_whatever_is_wrong_with_it(open_room: OpenRoom) -> None:
    """A vector is looked at with others, and its item is told before a later one; no namespace is made for
    what comes behind it."""
    room = open_room(worker=False)
    good = {"content": "x", "namespace": "a/b", "embedding": np.ones(64, np.float32)}
    zero = {**good, "embedding": np.zeros(64, np.float32)}
    odd = {**good, "embedding": np.full(64, math.nan, np.float32)}
    taken = {**good, "memory_id": room.store_many([good])[0].memory_id}
    for items, place in (
        ([good, odd, taken], 1),
        ([good, taken, odd], 1),
        ([good, zero, good, {"content": ""}], 1),
        ([good, good, odd, zero], 2),
        ([good, {**good, "content": ""}, zero], 1),
        ([good, zero, {**good, "namespace": "made/late"}], 1),
        ([good, good, {**good, "memory_id": "no id"}, zero], 2),
    ):
        for store in (room.store_many, room.load):
            with pytest.raises(StrongroomError, match=f"^item {place}: "):
                store(items)
    assert [n.name for n in room.namespaces()] == ["a/b"]
    assert room.store_many([good, good, {**good, "embedding": [3.0] + [4.0] * 63}])[2].has_embedding
