"""Many threads on the same few memories: no false alarm, no foreign error, and the ledger adds up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import pytest
from tests.engine.conftest import OpenRoom

from strongroom.engine import Room
from strongroom.engine._slot import Slot
from strongroom.errors import (
    ClosedError,
    DuplicateMemoryError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    VersionConflictError,
)
from strongroom.recall import NamespaceIndex

NS = "company_a/support"
EXPECTED = (DuplicateMemoryError, MemoryNotFoundError, VersionConflictError)


def hammer(room: Room, seconds: float, ids: list[str], threads: int = 6) -> Counter[str]:
    """Random operations on ``ids`` from several threads; the errors that nobody should see."""
    end = time.monotonic() + seconds
    errors: Counter[str] = Counter()

    def work(seed: int) -> None:
        rnd = random.Random(seed)
        operations: list[Callable[[str], object]] = [
            lambda i: room.store(f"text {rnd.random()}", namespace=NS, memory_id=i, metadata={"a": seed}),
            lambda i: room.update(i, namespace=NS, content=f"text {rnd.random()}"),
            lambda i: room.update(i, namespace=NS, importance=rnd.random()),
            lambda i: room.delete(i, namespace=NS),
            lambda _: room.search("text", namespaces=[NS], k=20),
            lambda _: room.list(namespaces=[NS], where="importance >= 0"),
            lambda i: room.get(i, namespace=NS),
            lambda _: room.store_many([{"content": f"more {n}", "namespace": NS} for n in range(3)]),
        ]
        while time.monotonic() < end:
            try:
                rnd.choice(operations)(rnd.choice(ids))
            except EXPECTED:
                pass
            except Exception as e:  # whatever else it is: the test shows it, and that there was none
                errors[f"{type(e).__name__}: {e}"] += 1
                if isinstance(e, ClosedError):
                    return

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return errors


def ids_of(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


def test_threads_on_the_same_memories_leave_a_store_that_adds_up(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    room.store("text at first", namespace=NS)
    assert not hammer(room, 6.0, ids_of(4))
    room.flush()
    assert room.check(read_data=True).ok
    seen = room.list(namespaces=[NS], limit=1000).memories
    stats = room.stats()
    assert stats.embedded == stats.memories and stats.pending == 0
    for m in seen[:200]:
        assert room.get(m.memory_id, namespace=NS).content == m.content
    room.close()
    again = open_room(debug=False)
    assert [m.memory_id for m in again.list(namespaces=[NS], limit=1000).memories] == [
        m.memory_id for m in seen
    ]
    assert again.check(read_data=True).ok


def test_closing_under_load_gives_only_closed_errors_and_loses_nothing(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    room.store("text at first", namespace=NS)
    timer = threading.Timer(1.0, room.close)
    timer.start()
    errors = hammer(room, 3.0, ids_of(3))
    timer.join()
    assert set(errors) <= {"ClosedError: The store was closed."}, errors
    again = open_room()
    assert again.check(read_data=True).ok
    again.flush()


def test_indexes_dropped_under_load_are_built_again_unnoticed(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    room.store("text at first", namespace=NS)
    stop = threading.Event()

    def drop() -> None:
        while not stop.wait(0.1):
            room.engine.indexes.drop(1)

    dropper = threading.Thread(target=drop)
    dropper.start()
    errors = hammer(room, 3.0, ids_of(3), threads=4)
    stop.set()
    dropper.join()
    assert not errors
    room.flush()
    assert room.check(read_data=True).ok


def test_many_namespaces_first_seen_at_once(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        start.wait()
        for i in range(25):
            with suppress(NamespaceNotFoundError):
                room.store(f"text {seed}", namespace=f"tenant{i}/a")
                room.search("text", namespaces=[f"tenant{(i + seed) % 25}/a", "*"], mode="keyword")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))  # raises what one of them has raised
    stats = room.stats()
    assert (stats.namespaces, stats.memories) == (25, 150)
    assert room.check().ok


class Fleeting(Slot):
    """A slot whose index somebody else takes away between any two looks at it."""

    def __init__(self, index: NamespaceIndex | None, at: int) -> None:
        self._kept, self.left = index, at
        super().__init__()

    @property  # type: ignore[override]
    def index(self) -> NamespaceIndex | None:
        self.left -= 1
        return self._kept if self.left >= 0 else None

    @index.setter
    def index(self, value: NamespaceIndex | None) -> None:
        pass


@pytest.mark.parametrize("looks", range(4))
def test_an_index_that_goes_between_two_looks_at_it_is_no_error(open_room: OpenRoom, looks: int) -> None:
    """What a reader without the lock has seen once it uses, or does without; reading and upkeep go on."""
    room = open_room(worker=False)
    memory = room.store("text at first", namespace=NS)
    room.search("text", namespaces=[NS])
    indexes = room.engine.indexes
    slot = indexes._slots[1]
    fleeting = indexes._slots[1] = Fleeting(slot.index, looks)
    fleeting.built_for, fleeting.entry = slot.built_for, slot.entry
    for use in (
        lambda: indexes.seq_seen(1, memory.memory_id.bytes),
        indexes.loaded_entries,
        indexes.observe,
        lambda: room.get(memory.memory_id, namespace=NS),
    ):
        fleeting.left = looks
        use()
    assert all(index is not None for _, index in indexes.loaded_entries())
    indexes._slots[1] = slot
