"""store_many over several chunks: one is committed while the next one is prepared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom
from tests.support.interrupts import interrupted_at

from strongroom.engine import Room, _bulk
from strongroom.errors import (
    DuplicateMemoryError,
    InvalidInputError,
    KeyMovedError,
    StorageFullError,
    StrongroomError,
)
from strongroom.ledger import OutdatedError, WriteBatch
from strongroom.model import Field, Memory
from strongroom.model.memory import UnfrozenMemory, with_metadata

NS = "company_a/support"
CHUNK = 50


@pytest.fixture
def room(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A store whose chunks hold 50 items, so that little data makes many of them."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", CHUNK)
    room = open_room(worker=False)
    room.store("the first of its namespace", namespace=NS)
    return room


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "content": f"item {n}",
            "namespace": NS,
            "subject": f"user:{n % 7}",
            "metadata": {"n": n},
            "embedding": np.full(64, n + 1, np.float32),
            **more,
        }
        for n in range(count)
    ]


def stored(room: Room) -> list[str]:
    """The contents that begin with "item", in the order of their rows."""
    engine = room.engine
    entry = engine.registry.get(NS)
    assert entry is not None
    rows = [r for r in engine.ledger.iter_changes(entry.ns) if r.field == Field.MEMORY]
    found = room.list(namespaces=[NS], limit=500).memories
    by_id = {m.memory_id.bytes: m.content for m in found}
    return [by_id[r.memory_id] for r in rows if by_id[r.memory_id].startswith("item")]


def entries(room: Room) -> list[Any]:
    return [e for e in room.audit(limit=500) if e.action == "store"][-500:]


class Commits:
    """Stands before ``ledger.commit``; ``act`` is called with the number of each batch of memories."""

    def __init__(self, room: Room, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
        ledger = room.engine.ledger
        commit, self.count = ledger.commit, 0

        def watched(batch: WriteBatch) -> list[int]:
            if len(batch.puts) > 10:
                self.count += 1
                act(self.count)
            return commit(batch)

        monkeypatch.setattr(ledger, "commit", watched)


def test_chunks_follow_each_other_and_each_has_its_own_audit_entry(room: Room) -> None:
    """Rows stand in the order of the items, answers too, and every chunk's entry names its own memories."""
    given = items(4 * CHUNK + 3)
    answer = room.store_many(given)
    assert [m.content for m in answer] == [i["content"] for i in given]
    assert stored(room) == [i["content"] for i in given]
    chunks = [e for e in entries(room) if e.count > 1]
    assert sorted(e.count for e in chunks) == [3, CHUNK, CHUNK, CHUNK, CHUNK]
    named = [set(e.memory_ids) for e in chunks]
    ids = [m.memory_id.bytes for m in answer]
    expected = [set(ids[at : at + CHUNK]) for at in range(0, len(ids), CHUNK)]
    assert sorted(map(sorted, named)) == sorted(map(sorted, expected))
    assert all(len(e.subjects) == min(7, e.count) for e in chunks), "pseudonyms are made once for a subject"
    assert len({s for e in chunks for s in e.subjects}) == 7


def test_the_next_chunk_is_prepared_while_one_is_committed(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of the first chunk can wait for an item of the second to be read: they overlap."""
    read = threading.Event()
    waited: list[bool] = []

    def source() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(2 * CHUNK)):
            if n == CHUNK:
                read.set()
            yield item

    Commits(room, monkeypatch, lambda number: waited.append(read.wait(20)) if number == 1 else None)
    assert len(room.store_many(source())) == 2 * CHUNK
    assert waited == [True]
    assert not [t for t in threading.enumerate() if t.name.startswith("strongroom-load")]


def test_a_load_needs_no_second_thread(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, as at the end of the process, each chunk is committed by the caller."""

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    given = items(3 * CHUNK)
    assert len(room.store_many(given)) == 3 * CHUNK
    monkeypatch.undo()
    assert stored(room) == [i["content"] for i in given]


def test_a_bad_item_keeps_what_came_before_its_chunk(room: Room) -> None:
    """The error names the position, the chunks before it are kept, also the one that was being committed."""
    given = items(3 * CHUNK)
    given[2 * CHUNK + 5]["importance"] = 7.0
    with pytest.raises(InvalidInputError, match=f"item {2 * CHUNK + 5}: "):
        room.store_many(given)
    assert stored(room) == [i["content"] for i in given[: 2 * CHUNK]]


def test_a_source_that_fails_keeps_what_came_before(room: Room) -> None:
    """An error of the caller's own iterator is told by its type, after the chunk before it is durable."""

    def source() -> Iterator[dict[str, Any]]:
        yield from items(CHUNK + 3)
        raise ZeroDivisionError("a secret text")

    with pytest.raises(InvalidInputError, match="ZeroDivisionError") as caught:
        room.store_many(source())
    assert "secret" not in str(caught.value)
    assert len(stored(room)) == CHUNK


def test_a_commit_that_fails_stops_the_load_and_is_what_is_told(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second chunk cannot be written: the first stays, and no third is written."""

    def act(number: int) -> None:
        if number == 2:
            raise StorageFullError

    given = items(3 * CHUNK)
    given[2 * CHUNK + 1]["importance"] = 7.0  # comes later, so it is not what is told
    commits = Commits(room, monkeypatch, act)
    with pytest.raises(StorageFullError):
        room.store_many(given)
    assert commits.count == 2
    assert stored(room) == [i["content"] for i in given[:CHUNK]]
    failed = [e for e in entries(room) if e.outcome == StorageFullError.code]
    assert [e.count for e in failed] == [CHUNK]
    known = {m.memory_id.bytes for m in room.list(namespaces=[NS], limit=500).memories}
    assert not known & set(failed[0].memory_ids)


class Own(Mapping[str, Any]):
    """A mapping of the caller's own, one of whose values cannot be read."""

    def __init__(self, item: dict[str, Any]) -> None:
        self.item = item

    def __getitem__(self, name: str) -> Any:
        if name == "content":
            raise ZeroDivisionError("a secret text")
        return self.item[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.item)

    def __len__(self) -> int:
        return len(self.item)


@pytest.mark.parametrize(
    ("spoil", "outcome", "namespaces"),
    [
        (lambda item: {**item, "importance": 7.0}, "invalid_input", (NS,)),
        (lambda item: {**item, "namespace": "company_b/other"}, "denied", ("company_b/other",)),
        (
            lambda item: {**item, "memory_id": "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"},
            "duplicate_memory",
            (NS,),
        ),
        (Own, "invalid_input", (NS,)),
        (lambda item: None, "invalid_input", (NS,)),
    ],
    ids=["invalid", "denied", "twice in a chunk", "own code", "no mapping"],
)
@pytest.mark.parametrize("at", [5, 2 * CHUNK + 5], ids=["first chunk", "third chunk"])
def test_the_entry_of_a_load_that_fails_is_about_nothing_that_was_stored(
    room: Room, spoil: Callable[[dict[str, Any]], Any], outcome: str, namespaces: tuple[str, ...], at: int
) -> None:
    """What is stored is in exactly one entry, as stored; the entry of the failure names no memory of it."""
    _, text = room.keys_create("loader", "read-write", [NS])
    session = room.engine.authenticate(text)
    given: list[Any] = items(3 * CHUNK)
    given[at + 1] = spoil({**given[at + 1], "memory_id": "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c12"})
    given[at]["memory_id"] = "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"
    before = room.engine.ledger.audit_count()
    with pytest.raises(StrongroomError) as caught:
        session.store_many(iter(given))
    assert "secret" not in f"{caught.value} {caught.value.__context__}"
    found = [e for e in room.audit(limit=100, after=before) if e.action == "store"]
    kept = at // CHUNK
    assert [e.outcome for e in found] == ["ok"] * kept + [outcome]
    named = [i for e in found for i in e.memory_ids]
    entry = room.engine.registry.get(NS)
    assert entry is not None
    rows = [r.memory_id for r in room.engine.ledger.iter_changes(entry.ns) if r.field == Field.MEMORY]
    assert sorted(named) == sorted(rows[1:]) and len(named) == kept * CHUNK
    assert (found[-1].count, found[-1].memory_ids, found[-1].subjects) == (0, (), ())
    assert found[-1].namespaces == (() if spoil is Own and not kept else namespaces)


@pytest.mark.parametrize("error", [KeyMovedError(), OutdatedError()], ids=["key moved", "outdated"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_chunk_that_is_overtaken_is_sealed_and_committed_again(
    room: Room, monkeypatch: pytest.MonkeyPatch, error: Exception, number: int
) -> None:
    """A key that was rotated, or a pseudonym made elsewhere, while a chunk was on its way costs nothing."""

    def act(at: int) -> None:
        if at == number:
            raise error

    commits = Commits(room, monkeypatch, act)
    given = items(2 * CHUNK + 20)
    assert len(room.store_many(given)) == len(given)
    assert commits.count == 4
    assert sorted(stored(room)) == sorted(i["content"] for i in given)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    assert room.check(read_data=True).ok


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "on its way"])
def test_an_id_that_is_given_again_in_the_next_chunk_is_refused_by_position(
    room: Room, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """Whether the chunk with the first of them is durable yet or not makes no difference."""
    given = items(2 * CHUNK)
    first = "6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c11"
    given[3]["memory_id"] = given[CHUNK + 3]["memory_id"] = first
    committed, looked_at = threading.Event(), threading.Event()
    prepare, commit_made = _bulk.prepare, _bulk.commit_made

    def prepared(call: Any, draft: Any, *rest: Any) -> Any:
        again = draft.content == f"item {CHUNK + 3}"
        if again and durable:
            assert committed.wait(20)
        try:
            return prepare(call, draft, *rest)
        finally:
            if again:
                looked_at.set()

    def made(*arguments: Any) -> list[int]:
        if not durable:
            assert looked_at.wait(20)
        seqs = commit_made(*arguments)
        committed.set()
        return seqs

    monkeypatch.setattr(_bulk, "prepare", prepared)
    monkeypatch.setattr(_bulk, "commit_made", made)
    with pytest.raises(DuplicateMemoryError, match=f"item {CHUNK + 3}: "):
        room.store_many(given)
    assert len(stored(room)) == CHUNK


def test_a_key_that_is_revoked_during_a_load_stops_it(room: Room) -> None:
    """Each chunk asks anew whether the caller's key is good; chunks that were taken before stay."""
    info, text = room.keys_create("loader", "read-write", [NS])
    session = room.engine.authenticate(text)

    def source() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(items(4 * CHUNK)):
            if n == 2 * CHUNK - 1:
                room.keys_revoke(info.key_id)
            yield item

    with pytest.raises(StrongroomError) as caught:
        session.store_many(source())
    assert caught.value.code == "unauthenticated"
    assert len(stored(room)) == CHUNK


def test_a_memory_made_quickly_is_a_memory_like_any_other(room: Room) -> None:
    """Slots, equality, freezing and repr are those of ``Memory``; other metadata changes nothing else."""
    memory = room.store("likes coffee", namespace=NS, metadata={"a": [1]}, tags=["x"])
    names = Memory.__slots__
    assert UnfrozenMemory.__slots__ == names
    fields = {name: getattr(memory, name) for name in names}
    slow = Memory(**fields)
    quick = UnfrozenMemory(**fields).freeze()
    assert type(quick) is Memory
    assert quick == slow == memory
    assert repr(quick) == repr(slow)
    with pytest.raises(AttributeError):
        quick.content = "other"  # type: ignore[misc]
    other = with_metadata(memory, {"b": 2})
    assert other.metadata == {"b": 2}
    assert memory.metadata == {"a": [1]}
    assert other == Memory(**{**fields, "metadata": {"b": 2}})


def test_an_interrupt_at_any_step_leaves_whole_chunks_each_with_its_entry(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the caller: what is stored is what the audit log says, no thread stays, and loads go on."""
    monkeypatch.setattr(_bulk, "CHUNK_ITEMS", 3)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    given = items(8)
    for step in range(1, 2000, 2):
        before = room.engine.ledger.audit_count()
        head = room.engine.ledger.head(entry.ns)[0]
        struck = interrupted_at(step, _bulk.__file__, lambda: room.store_many(given))
        for thread in threading.enumerate():
            if thread.name.startswith("strongroom-load"):  # it was struck as it began to close: soon over
                thread.join(30)
                assert not thread.is_alive(), step
        rows = [
            r.memory_id for r in room.engine.ledger.changes(entry.ns, head, 1000) if r.field == Field.MEMORY
        ]
        said = [e for e in room.audit(limit=100, after=before) if e.action == "store" and e.outcome == "ok"]
        assert sorted(i for e in said for i in e.memory_ids) == sorted(rows), step
        assert len(rows) in ((0, 3, 6, 8) if struck else (8,)), step
        if not struck:
            break
    else:
        pytest.fail("it never ended")
    assert step > 50
    assert len(room.store_many(items(7))) == 7
    assert room.search("item", namespaces=[NS], mode="keyword", k=100)
    assert room.check(read_data=True).ok


def test_one_id_in_two_namespaces_of_a_chunk(room: Room) -> None:
    """An id stands for one memory of a namespace: another may have the same, in one chunk as one by one."""
    shared = UUID("6d1f0c6e-3a37-4b5c-8f7e-2d1d5a0b9c13")
    spaces = ("company_b/one", "company_b/two")
    stored = room.store_many([{"content": s, "namespace": s, "memory_id": shared} for s in spaces])
    assert [m.content for m in stored] == [room.get(shared, namespace=s).content for s in spaces]
    with pytest.raises(DuplicateMemoryError, match="item 2"):
        room.store_many([{"content": "x", "namespace": s, "memory_id": shared} for s in (NS, "b/a")] * 2)
