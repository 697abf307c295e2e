from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room

OpenRoom = Callable[..., Room]


def save_snapshot(room: Room, namespace: str) -> Path:
    """Write the snapshot of a namespace now; its file."""
    indexes = room.engine.indexes
    entry = room.engine.registry.get(namespace)
    assert entry is not None
    assert indexes.snapshots.write(entry, indexes.ready(entry), lambda worked_s: None) is not None
    (file,) = indexes.snapshots.files(entry.ns)
    return file.path


def snapshot_events(room: Room) -> dict[str, float]:
    """How often each thing has happened to snapshots in this process."""
    samples = [s for m in room.engine.metrics.snapshots.collect() for s in m.samples]
    return {s.labels["event"]: s.value for s in samples if s.name.endswith("_total")}


@pytest.fixture
def model() -> WordModel:
    return WordModel()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of a new store whose default model is the test's."""
    directory = tmp_path / "data"
    embedding = EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50)
    strongroom.init(directory, config=Config(embedding=embedding))
    return directory


@pytest.fixture
def open_room(data: Path, model: WordModel) -> Iterator[OpenRoom]:
    """Opens the store (again); everything is closed at the end."""
    opened: list[Room] = []

    def open_it(**options: Any) -> Room:
        options.setdefault("provider", model)
        options.setdefault("debug", True)
        room = strongroom.open(data, **options)
        opened.append(room)
        return room

    yield open_it
    for room in opened:
        room.close()


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room()
