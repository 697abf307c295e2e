"""Indexes within a memory budget: the oldest goes, nobody notices, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, RecallConfig
from strongroom.engine import Room
from strongroom.engine import _residency as residency_module
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._residency import FIXED_BYTES
from strongroom.recall import NamespaceIndex

NAMESPACES = [f"team/{number}" for number in range(12)]


@pytest.fixture
def small(tmp_path: Path, model: WordModel) -> Iterator[Room]:
    """A store of twelve namespaces that may keep about three of them in memory."""
    config = Config(embedding=EmbeddingConfig(dimensions=64))
    config = replace(config, recall=RecallConfig(resident_bytes_max=4 * FIXED_BYTES))
    strongroom.init(tmp_path / "data", config=config)
    room = strongroom.open(tmp_path / "data", provider=model)
    for number, name in enumerate(NAMESPACES):
        room.store_many({"content": f"train number {number} to rome", "namespace": name} for _ in range(3))
    room.flush()
    yield room
    room.close()


def evicted(room: Room) -> float:
    return next(s.value for m in room.engine.metrics.evicted.collect() for s in m.samples)


def test_the_budget_holds_and_every_namespace_answers(small: Room) -> None:
    """Round after round over more namespaces than fit: right answers, and never many loaded."""
    for _ in range(2):
        for number, name in enumerate(NAMESPACES):
            hits = small.search("train rome", namespaces=[name])
            assert [h.memory.content for h in hits] == [f"train number {number} to rome"] * 3
            assert small.engine.indexes.loaded() <= 4
    assert small.engine.indexes.residency.total_bytes() <= 4 * FIXED_BYTES
    assert evicted(small) >= 2 * len(NAMESPACES) - 8


def test_the_one_asked_last_stays(small: Room) -> None:
    """A namespace in use is not loaded again and again while others come and go."""
    favourite = NAMESPACES[0]
    small.search("rome", namespaces=[favourite])
    entry = small.engine.registry.get(favourite)
    assert entry is not None
    index = small.engine.indexes.ready(entry)
    for name in NAMESPACES[1:]:
        small.search("rome", namespaces=[name])
        small.search("rome", namespaces=[favourite])
    assert small.engine.indexes.ready(entry) is index


def test_what_is_stored_while_an_index_is_away_is_found(small: Room) -> None:
    """A store into a namespace that was let go is seen by the next search."""
    for name in NAMESPACES:
        small.search("rome", namespaces=[name])
    small.store("a ferry to corsica", namespace=NAMESPACES[0])
    small.flush()
    (hit, *_) = small.search("ferry corsica", namespaces=[NAMESPACES[0]])
    assert hit.memory.content == "a ferry to corsica"
    small.delete(hit.memory.memory_id, namespace=NAMESPACES[0])
    for name in NAMESPACES:
        small.search("rome", namespaces=[name])
    assert len(small.search("ferry rome", namespaces=[NAMESPACES[0]])) == 3


def test_searches_at_once_never_see_a_closed_index(small: Room) -> None:
    """Threads over all namespaces, with an index let go at almost every question."""

    def look(start: int) -> set[int]:
        names = [NAMESPACES[(start + step * 5) % len(NAMESPACES)] for step in range(30)]
        return {len(small.search("train rome", namespaces=[name])) for name in names}

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(look, range(4))) == [{3}] * 4  # raises what one of them has raised
    assert evicted(small) > 20


def test_a_question_over_more_namespaces_than_fit_is_answered_at_once(
    small: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has got stays open until it has its answer, however long the loading of the others takes."""
    monkeypatch.setattr(residency_module, "REST_S", 0.0)
    loads: list[str] = []
    indexes = small.engine.indexes
    ready = indexes.ready

    def slow(entry: NamespaceEntry) -> NamespaceIndex:
        loads.append(entry.name)
        index = ready(entry)
        indexes.residency.tend()  # as the housekeeping would, if loading took long
        return index

    monkeypatch.setattr(indexes, "ready", slow)
    assert len(small.search("train rome", namespaces=["team/*"], k=50)) == 3 * len(NAMESPACES)
    assert len(small.list(namespaces=["team/*"], limit=50).memories) == 3 * len(NAMESPACES)
    assert sorted(loads) == sorted(2 * NAMESPACES)
    indexes.residency.tend()
    assert not indexes.residency._leaving
