"""A load by workers takes what a load by one process takes, and refuses the rest in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room, _bulk
from strongroom.errors import InvalidInputError

CHUNK = 20
AT = 2 * CHUNK + 5

ODD: dict[str, dict[str, Any]] = {
    "an array of objects": {"embedding": np.array([1, 2, 3, 4], dtype=object)},
    "an array of times": {"embedding": np.array([1, 2, 3, 4], dtype="M8[ns]")},
    "an array without a dimension": {"embedding": np.array(3.0)},
    "an array of two dimensions": {"embedding": np.ones((2, 2))},
    "an array of nothing": {"embedding": np.zeros(0)},
    "an array as metadata": {"metadata": {"a": np.array([1.0, 2.0])}},
    "an array of tags": {"tags": np.array(["a", "b"])},
    "an array of parents": {"derived_from": np.array([])},
    "a masked array": {"embedding": np.ma.masked_array([1.0, 2, 3, 4], [0, 1, 0, 0])},
    "the other order of bytes": {"embedding": np.array([1, 2, 3, 4], dtype=">f4")},
    "small whole numbers": {"embedding": np.array([1, 2, 3, 4], dtype=np.uint8)},
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    directory: Path = tmp_path_factory.mktemp("alike") / "room"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=4)))
    with strongroom.open(directory, worker=False) as opened:
        yield opened


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_item_has_the_same_outcome(
    room: Room, monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
) -> None:
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", CHUNK)
    vector = np.arange(1, 5, dtype=np.float32)
    plain: dict[str, Any] = {"content": "x", "namespace": "a/notes", "embedding": vector}

    def outcome(workers: int) -> tuple[str, str]:
        try:
            kept = room.load(
                ({**plain, **odd} if n == AT else plain for n in range(3 * CHUNK)), workers=workers
            )
        except InvalidInputError as e:
            return type(e).__name__, str(e)
        return "kept", str(kept)

    assert outcome(2) == outcome(1)
