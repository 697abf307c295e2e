"""Indexes within a memory budget: the oldest goes, nobody notices, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import AccessConfig, Config, EmbeddingConfig, RecallConfig
from strongroom.engine import Room, Session
from strongroom.engine import _residency as residency_module
from strongroom.engine._registry import NamespaceEntry
from strongroom.engine._residency import FIXED_BYTES
from strongroom.errors import MemoryNotFoundError
from strongroom.model import NamespacePattern, Principal, Scope
from strongroom.recall import NamespaceIndex

BUDGET = 5 * (FIXED_BYTES + 2_000)  # three with three memories each, and one that is to be closed
NAMESPACES = [f"team/{number}" for number in range(12)]


@pytest.fixture
def small(tmp_path: Path, model: WordModel) -> Iterator[Room]:
    """A store of twelve namespaces that may keep about three of them in memory."""
    config = Config(embedding=EmbeddingConfig(dimensions=64))
    config = replace(config, recall=RecallConfig(resident_bytes_max=BUDGET))
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
    assert small.engine.indexes.residency.total_bytes() <= BUDGET + 2 * (FIXED_BYTES + 4_000)
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


def test_what_policies_ask_of_a_memory_is_answered_however_little_fits(
    tmp_path: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, changing, deleting and counting memories of which policies permit some: the index that is
    asked stays open until it has answered, though it is let go at once and nobody searches."""
    monkeypatch.setattr(residency_module, "REST_S", 0.0)
    (tmp_path / "data" / "policies").mkdir(parents=True)
    (tmp_path / "data" / "policies" / "notes.cedar").write_text(
        '@id("notes") permit(principal, action, resource)'
        ' when { !(resource is Memory) || resource.kind == "note" };'
    )
    config = Config(
        embedding=EmbeddingConfig(dimensions=64),
        access=AccessConfig(policy_directory="policies"),
        recall=RecallConfig(resident_bytes_max=1),
    )
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data", provider=model) as room:
        kept = [room.store(f"train {n}", namespace="team/a", kind=("note", "fact")[n % 2]) for n in range(4)]
        room.store("ferry", namespace="team/b")
        room.flush()
        indexes = room.engine.indexes
        second = room.engine.registry.get("team/b")
        assert second is not None
        ready = indexes.ready

        def pushed_out(entry: NamespaceEntry) -> NamespaceIndex:
            index = ready(entry)
            ready(second)  # which leaves no room for the first
            indexes.residency.tend()
            return index

        monkeypatch.setattr(indexes, "ready", pushed_out)
        grants = (NamespacePattern.parse("*"),)
        who = Principal(id="k-test", name="test", scope=Scope.READ_WRITE, grants=grants)
        session = Session(room.engine, lambda: who, "python", caller=who.id)
        assert session.get(kept[0].memory_id, namespace="team/a").content == "train 0"
        with pytest.raises(MemoryNotFoundError):
            session.get(kept[1].memory_id, namespace="team/a")
        assert session.update(kept[0].memory_id, namespace="team/a", content="ferry 0").version == 2
        assert session.stats(["team/a"]).memories == 2
        assert session.delete(kept[0].memory_id, namespace="team/a")
        assert evicted(room) >= 5
        indexes.residency.tend()
        assert not indexes.residency._leaving


def test_what_is_let_go_counts_until_it_is_closed(small: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes that wait to be closed are a small part of the budget: they are closed by the questions that
    come after, and those that a question still holds are counted."""
    monkeypatch.setattr(residency_module, "REST_S", 3600.0)  # the housekeeping closes none
    residency = small.engine.indexes.residency
    most = 0
    for _ in range(2):
        for name in NAMESPACES:
            small.search("train rome", namespaces=[name])
            most = max(most, len(residency._leaving))
            assert residency.total_bytes() == residency._total + sum(x.size for x in residency._leaving)
    assert most <= 2
    with residency.asking():  # somebody still asks what was got before
        for name in NAMESPACES:
            small.search("train rome", namespaces=[name])
        assert len(residency._leaving) >= len(NAMESPACES) - 4
        assert residency.total_bytes() > BUDGET
    small.search("train rome", namespaces=[NAMESPACES[0]])
    assert len(residency._leaving) <= 2


def test_the_sum_is_that_of_the_parts_whatever_happens_at_once(small: Room) -> None:
    """Searches, filters, stores and deletes on all namespaces while indexes come and go: every answer is
    whole, every write is found, and the sum of what is loaded is never wrong."""

    def work(start: int) -> None:
        for step in range(25):
            name = NAMESPACES[(start * 3 + step * 5) % len(NAMESPACES)]
            own = small.store(f"ferry of thread {start} step {step}", namespace=name)
            found = small.search(f"ferry thread {start} step {step}", namespaces=[name], mode="keyword", k=50)
            assert own.memory_id in [h.memory.memory_id for h in found]
            kept = small.search("train rome", namespaces=[name], k=50, where="content LIKE 'train%'")
            assert len(kept) == 3
            assert small.delete(own.memory_id, namespace=name)
            assert all(
                h.memory.memory_id != own.memory_id for h in small.search("ferry", namespaces=[name], k=50)
            )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    residency = small.engine.indexes.residency
    residency.tend()
    with residency._lock:
        assert residency._total == sum(size for _, size in residency._known.values())
    assert evicted(small) > 20


def test_an_answer_is_the_same_before_and_after_it_was_let_go(small: Room) -> None:
    """Searches by meaning, by words, with filters and listings of a namespace that grew by single stores,
    that was loaded anew, and that has got a table of its own, are the same."""
    name = NAMESPACES[0]
    for number in range(30):
        small.store(f"train to rome by ferry {number % 5}", namespace=name, importance=number / 30)
    small.flush()

    def answers() -> list[object]:
        hits = small.search("train ferry 3", namespaces=[name], k=20)
        near = small.search("rome", namespaces=[name], k=20, mode="semantic", where="importance > 0.3")
        words = small.search("ferry 4", namespaces=[name], k=40, mode="keyword", importance_min=0.5)
        listed = small.list(namespaces=[name], limit=10, where="importance < 0.5").memories
        return [
            [(h.memory.memory_id, round(h.score, 5)) for h in hits],
            [(h.memory.memory_id, round(h.score, 5)) for h in near],
            sorted((round(h.score, 5), h.memory.memory_id) for h in words),
            [m.memory_id for m in listed],
        ]

    grown = answers()
    for other in NAMESPACES[1:]:
        small.search("rome", namespaces=[other])
    entry = small.engine.registry.get(name)
    assert entry is not None and small.engine.indexes.loaded_index(entry.ns) is None
    loaded = answers()
    assert loaded == grown
    index = small.engine.indexes.loaded_index(entry.ns)
    assert index is not None
    index.table.flush()
    assert answers() == grown
