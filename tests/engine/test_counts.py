"""Counting memories: the ledger says what the index would, without taking a namespace into memory."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from tests.engine.conftest import OpenRoom
from tests.support.database import ledger_file

from strongroom.engine import Room

SPACES = ("company_a/support", "company_a/sales", "company_b/empty")


def shown(room: Room) -> list[tuple[str, int, int, int]]:
    return [(n.name, n.memories, n.embedded, n.pending) for n in room.namespaces()]


def test_listing_namespaces_takes_none_into_memory_and_counts_the_same(open_room: OpenRoom) -> None:
    """New, changed, deleted, expired, embedded and waiting memories are counted as an index counts them."""
    room = open_room(worker=False)
    room.create_namespace(SPACES[2])
    vector = np.ones(64, np.float32)
    for namespace in SPACES[:2]:
        made = room.store_many(
            {"content": f"memory {n}", "namespace": namespace, "embedding": vector if n % 3 else None}
            for n in range(30)
        )
        room.update(made[1].memory_id, namespace=namespace, content="another content")
        room.update(made[2].memory_id, namespace=namespace, importance=0.9)
        room.update(made[3].memory_id, namespace=namespace, content="embedded at once", embedding=vector)
        for memory in made[4:10]:
            room.delete(memory.memory_id, namespace=namespace)
        begun, ended = datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC)
        room.store("past", namespace=namespace, created_at=begun, expires_at=ended)
    room.close()
    room = open_room(worker=False)
    counted, stats = shown(room), room.stats()
    listed = list(room.sql("SELECT namespace, memories, embedded, pending FROM namespaces").rows())
    assert room.engine.indexes.loaded() == 0
    room.search("memory", namespaces=["*"], mode="keyword")
    assert room.engine.indexes.loaded() == len(SPACES)
    assert shown(room) == counted == sorted(listed)
    assert room.stats() == stats
    assert {c[0]: c[1:] for c in counted}[SPACES[0]] == (25, 16, 9)


def test_what_was_shredded_is_not_counted(open_room: OpenRoom) -> None:
    """Memories and vectors under a destroyed key count for the ledger as for an index: not at all."""
    room = open_room(worker=False)
    vector = np.ones(64, np.float32)
    for subject in ("sam", "sam", "tom"):
        room.store("about", namespace=SPACES[0], subject=subject, embedding=vector)
    ring = room.engine.vault.keyring
    ring.destroy_data_key(room.engine.vault.data_key(1, "sam").key_id)
    room.close()
    room = open_room(worker=False)
    counted = shown(room)
    assert counted == [(SPACES[0], 1, 1, 0)] and room.engine.indexes.loaded() == 0
    room.search("about", namespaces=["*"], mode="keyword")
    assert shown(room) == counted


def test_a_namespace_whose_head_was_changed_is_not_counted(open_room: OpenRoom) -> None:
    """Counting from the ledger is no way around what shows that a head is not the store's own."""
    import pytest

    from strongroom.errors import IntegrityError

    room = open_room(worker=False)
    room.store("tea", namespace=SPACES[0])
    room.store("coffee", namespace=SPACES[1])
    room.close()
    with ledger_file(room.engine.directory) as db:
        db.execute("UPDATE namespace SET head = (SELECT head FROM namespace WHERE ns = 2) WHERE ns = 1")
    room = open_room(worker=False)
    with pytest.raises(IntegrityError):
        room.namespaces()


def test_a_check_keeps_no_namespace_in_memory_that_was_not_there(open_room: OpenRoom) -> None:
    """Each is taken in, compared and let go: a check of ten thousand does not hold them all."""
    room = open_room(worker=False)
    for namespace in SPACES:
        room.store("tea", namespace=namespace)
    room.close()
    room = open_room(worker=False)
    room.search("tea", namespaces=[SPACES[1]], mode="keyword")
    assert room.check(read_data=True).ok
    assert [room.engine.indexes.is_loaded(ns) for ns in (1, 2, 3)] == [False, True, False]
    assert len(room.search("tea", namespaces=["*"], mode="keyword", k=10)) == 3
