"""What the tests of rotations share: stores with subjects, and what can be said of their records."""

from __future__ import annotations

from uuid import UUID

from strongroom.engine import Room
from strongroom.keyring import KeyNote, KeyState

NS = "company_a/support"
NOTE = KeyNote("test", "a test")


def fill(room: Room, count: int = 60, namespace: str = NS) -> dict[UUID, str]:
    """Memories of seven subjects and of nobody, embedded."""
    made = room.store_many(
        {
            "content": f"memory number{i} alpha {'beta' if i % 2 else 'gamma'}",
            "namespace": namespace,
            "subject": None if i % 8 == 7 else f"user:{i % 8}",
        }
        for i in range(count)
    )
    room.flush(timeout_s=60)
    return {m.memory_id: m.content for m in made}


def ns_of(room: Room, namespace: str = NS) -> int:
    entry = room.engine.registry.get(namespace)
    assert entry is not None
    return entry.ns


def keys_in_use(room: Room, namespace: str = NS) -> set[int]:
    return set(room.engine.ledger.keys_in_use(ns_of(room, namespace)))


def rows_under(room: Room, keys: set[int], namespace: str = NS) -> int:
    ns = ns_of(room, namespace)
    return sum(room.engine.ledger.rows_under(ns, k, k) for k in keys)


def states(room: Room) -> dict[int, KeyState]:
    return {k.key_id: k.state for k in room.engine.vault.keyring.list_keys()}


def assert_all_there(room: Room, wanted: dict[UUID, str], namespace: str = NS) -> None:
    """Every memory is read, listed and found, each of its rows is under one key that opens, heads agree."""
    for memory_id, content in [*wanted.items()][:5]:
        assert room.get(memory_id, namespace=namespace).content == content
    found = room.search("alpha", namespaces=[namespace], mode="keyword", k=1000)
    assert {h.memory.memory_id: h.memory.content for h in found} == wanted
    report = room.check(read_data=True)
    assert report.findings == ()
    known = states(room)
    for key_id in keys_in_use(room, namespace):
        assert known[key_id] not in (KeyState.DESTROYED, KeyState.DISABLED)
