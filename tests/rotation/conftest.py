from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.conftest import model, open_room, room

import strongroom
from strongroom.config import Config, EmbeddingConfig, RotationConfig

__all__ = ["data", "model", "open_room", "room"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A new store in which nothing rotates unless it is told to."""
    directory = tmp_path / "data"
    embedding = EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50)
    rotation = RotationConfig(worker=False, lease_ms=300, batch_rows=50)
    strongroom.init(directory, config=Config(embedding=embedding, rotation=rotation))
    return directory
