"""What a commit offers to an index: nobody who writes waits for it, and nothing is lost on the way."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from tests.engine.conftest import OpenRoom

from strongroom.engine import Room, _indexes
from strongroom.engine._slot import Slot

NS = "company_a/support"


@pytest.fixture
def room(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Changes are taken in when more than eight wait, and at most 32 are kept."""
    monkeypatch.setattr(_indexes, "_PENDING_MAX", 8)
    opened = open_room(worker=False)
    opened.store("text at first", namespace=NS)
    opened.search("text", namespaces=[NS], mode="keyword")
    return opened


def slot_of(room: Room) -> Slot:
    entry = room.engine.registry.get(NS)
    assert entry is not None
    return room.engine.indexes._slots[entry.ns]


def found(room: Room) -> list[str]:
    hits = room.search("text", namespaces=[NS], mode="keyword", k=1000)
    return sorted(h.memory.content for h in hits)


def test_a_store_never_waits_for_an_index_that_is_busy(room: Room) -> None:
    """Its lock is held for long: stores go on, a bounded number of changes is kept, all are found later."""
    slot = slot_of(room)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with slot.lock:
            held.set()
            assert go.wait(60)

    most = 0
    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(hold)
        assert held.wait(60)
        try:
            for n in range(80):
                pool.submit(partial(room.store, f"text {n}", namespace=NS)).result(30)
                most = max(most, len(slot.pending))
        finally:
            go.set()
        holder.result(60)
    assert 8 < most <= 33
    assert found(room) == sorted(["text at first", *(f"text {n}" for n in range(80))])


def test_much_that_was_offered_is_taken_in_before_anybody_asks(room: Room) -> None:
    """So a search after many stores finds little to do."""
    slot = slot_of(room)
    index = slot.index
    assert index is not None
    before = index.watermark
    for n in range(60):
        room.store(f"text {n}", namespace=NS)
    end = time.monotonic() + 30
    while index.watermark < before + 40 and time.monotonic() < end:
        time.sleep(0.01)
        room.store("text more", namespace=NS)
    assert index.watermark >= before + 40
    assert len(slot.pending) <= 33


def test_changes_of_one_memory_keep_their_order_whoever_takes_them_in(room: Room) -> None:
    """Four threads store, change and delete, a fifth asks: in the end what is found is what there is."""
    stop = threading.Event()
    left: list[str] = []

    def write(seed: int) -> None:
        rnd = random.Random(seed)
        mine: dict[str, str] = {}
        for n in range(60):
            if mine and rnd.random() < 0.5:
                name = rnd.choice(list(mine))
                if rnd.random() < 0.5:
                    room.delete(name, namespace=NS)
                    del mine[name]
                else:
                    mine[name] = f"text {seed} {n} changed"
                    room.update(name, namespace=NS, content=mine[name])
            else:
                stored = room.store(f"text {seed} {n}", namespace=NS)
                mine[str(stored.memory_id)] = stored.content
        left.extend(mine.values())

    def ask() -> None:
        while not stop.wait(0.005):
            found(room)

    with ThreadPoolExecutor(5) as pool:
        asking = pool.submit(ask)
        writing = [pool.submit(write, seed) for seed in range(4)]
        try:
            for each in writing:
                each.result(120)
        finally:
            stop.set()
        asking.result(60)
    assert found(room) == sorted(["text at first", *left])
    assert room.check(read_data=True).ok
