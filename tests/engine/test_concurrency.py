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

from tests.engine.conftest import OpenRoom

from strongroom.engine import Room
from strongroom.errors import (
    ClosedError,
    DuplicateMemoryError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    VersionConflictError,
)

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
