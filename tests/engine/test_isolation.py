"""Every operation with every kind of credential: what is not granted does not exist."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from tests.engine.conftest import OpenRoom

from strongroom.engine import Room, Session
from strongroom.errors import AccessDeniedError, StrongroomError, UnauthenticatedError

MINE, BELOW = "company_a/support", "company_a/support/eu"
OTHERS = [
    "company_ab/support",
    "company_A/support",
    "company_a",
    "company_a.b/support",
    "company_b/support",
    BELOW,
]
MISSING = "company_b/never-made"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)

Operation = Callable[[Session, str], Any]
READS: dict[str, Operation] = {
    "search": lambda s, n: s.search("secret words", namespaces=[n]),
    "search with its own": lambda s, n: s.search("secret words", namespaces=[MINE, n]),
    "list": lambda s, n: s.list(namespaces=[n]),
    "get": lambda s, n: s.get(uuid4(), namespace=n),
    "stats": lambda s, n: s.stats([n]),
    "queue": lambda s, n: s.queue([n]),
}
WRITES: dict[str, Operation] = {
    "store": lambda s, n: s.store("x", namespace=n),
    "store_many": lambda s, n: s.store_many([{"content": "x", "namespace": n}]),
    "update": lambda s, n: s.update(uuid4(), namespace=n, content="x"),
    "delete": lambda s, n: s.delete(uuid4(), namespace=n),
    "requeue": lambda s, n: s.requeue([n]),
}
ADMIN: dict[str, Operation] = {
    "create_namespace": lambda s, n: s.create_namespace(n),
    "update_namespace": lambda s, n: s.update_namespace(n, language="german"),
    "keys_create": lambda s, n: s.keys_create("k", "read-only", [n]),
}
STORE_WIDE: dict[str, Callable[[Session], Any]] = {
    "audit": lambda s: s.audit(),
    "check": lambda s: s.check(),
    "repair": lambda s: s.repair(),
    "keys for all": lambda s: s.keys_create("k", "read-only", ["*"]),
}


@pytest.fixture
def filled(open_room: OpenRoom) -> Room:
    room = open_room(debug=False)
    for name in (MINE, *OTHERS):
        room.store_many(
            [
                {"content": f"secret words of {name} {i}", "namespace": name, "created_at": WHEN}
                for i in range(3)
            ]
        )
    room.flush()
    return room


def session_of(room: Room, scope: str, *grants: str) -> Session:
    return room.engine.authenticate(room.keys_create("k", scope, grants)[1])


def refusal(call: Callable[[], Any]) -> tuple[str, str, str | None]:
    with pytest.raises(StrongroomError) as caught:
        call()
    assert type(caught.value) is AccessDeniedError
    return caught.value.code, caught.value.message, caught.value.hint


@pytest.mark.parametrize("scope", ["read-only", "read-write", "admin"])
def test_what_is_not_granted_is_refused_alike_whether_it_exists_or_not(filled: Room, scope: str) -> None:
    session = session_of(filled, scope, MINE)
    before = filled.stats()
    for name, operation in {**READS, **WRITES, **ADMIN}.items():
        answers = {refusal(partial(operation, session, n)) for n in (*OTHERS, MISSING)}
        assert len(answers) == 1, name
        [answer] = answers
        assert not any(n in str(answer) for n in (*OTHERS, MISSING))
    for act in STORE_WIDE.values():
        refusal(partial(act, session))
    after = filled.stats()
    assert (after.memories, after.namespaces) == (before.memories, before.namespaces)


def test_a_scope_bounds_what_a_grant_allows(filled: Room) -> None:
    reader, writer = session_of(filled, "read-only", "*"), session_of(filled, "read-write", "*")
    for operation in {**WRITES, **ADMIN}.values():
        refusal(partial(operation, reader, MINE))
    for operation in ADMIN.values():
        refusal(partial(operation, writer, MINE))
    for act in STORE_WIDE.values():
        refusal(partial(act, reader))
        refusal(partial(act, writer))
    assert filled.stats().memories == 21


@pytest.mark.parametrize("pattern", ["*", "company_a/*"])
def test_a_wildcard_selects_only_what_is_granted_and_counts_nothing_else(filled: Room, pattern: str) -> None:
    session = session_of(filled, "read-only", MINE)
    hits = session.search("secret words", namespaces=[pattern], k=100)
    assert {h.memory.namespace for h in hits} == {MINE} and len(hits) == 3
    for where in (
        "namespace = 'company_b/support'",
        "namespace LIKE '%' OR 1 = 1",
        "content LIKE '%company_b%'",
        "NOT (namespace = 'company_a/support')",
    ):
        assert {m.namespace for m in session.list(namespaces=[pattern], where=where).memories} <= {MINE}
    stats = session.stats([pattern])
    assert (stats.memories, stats.namespaces) == (3, 1)
    assert [n.name for n in session.namespaces()] == [MINE]
    session.flush()
    assert session_of(filled, "read-only", "company_none/*").stats().namespaces == 0
    assert session_of(filled, "read-only", "company_none/*").search("secret words", namespaces=["*"]) == []


@pytest.mark.parametrize(
    "column", ["seq", "rid", "ns", "tag_bits", "kind_key", "rowid", "n1.mem.content", "mem"]
)
def test_inner_columns_are_no_columns_of_a_where(filled: Room, column: str) -> None:
    with pytest.raises(StrongroomError) as caught:
        filled.list(namespaces=["*"], where=f"{column} IS NOT NULL")
    assert caught.value.code == "invalid_filter"


def test_a_cursor_carries_no_right_to_what_it_came_from(filled: Room) -> None:
    cursor = filled.list(namespaces=["*"], limit=1).next_cursor
    assert cursor
    session = session_of(filled, "read-only", MINE)
    page = session.list(namespaces=["*"], cursor=cursor, limit=100)
    assert {m.namespace for m in page.memories} <= {MINE}
    refusal(lambda: session.list(namespaces=["company_b/support"], cursor=cursor))


def test_an_id_of_another_namespace_is_no_id_here(filled: Room) -> None:
    theirs = filled.list(namespaces=["company_b/support"]).memories[0]
    session = session_of(filled, "read-write", MINE)
    with pytest.raises(StrongroomError) as caught:
        session.get(theirs.memory_id, namespace=MINE)
    with pytest.raises(StrongroomError) as unknown:
        session.get(uuid4(), namespace=MINE)
    assert caught.value.as_dict() == unknown.value.as_dict()
    assert session.delete(theirs.memory_id, namespace=MINE) is False
    mine = session.store("same id, my own", namespace=MINE, memory_id=theirs.memory_id)
    assert filled.get(theirs.memory_id, namespace="company_b/support").content == theirs.content
    session.delete(mine.memory_id, namespace=MINE)
    assert filled.get(theirs.memory_id, namespace="company_b/support").content == theirs.content


@pytest.mark.parametrize(
    "name", ["company_\u0430/support", "company_a\u200b/support", "ｃompany_a/support", "company_a/support "]
)
def test_names_that_only_look_alike_are_no_names(filled: Room, name: str) -> None:
    session = session_of(filled, "read-write", MINE)
    for operation in {**READS, **WRITES}.values():
        with pytest.raises(StrongroomError) as caught:
            operation(session, name)
        assert caught.value.code == "invalid_namespace"


def test_a_key_revoked_in_the_middle_of_store_many_stops_at_the_next_chunk(filled: Room) -> None:
    info, text = filled.keys_create("k", "read-write", [MINE])
    session = filled.engine.authenticate(text)

    def items() -> Any:
        for i in range(5000):
            if i == 1500:
                filled.keys_revoke(info.key_id)
            yield {"content": f"item {i}", "namespace": MINE}

    with pytest.raises(UnauthenticatedError):
        session.store_many(items())
    assert filled.stats([MINE]).memories in (3 + 1000, 3 + 2000)
    with pytest.raises(UnauthenticatedError):
        session.search("item", namespaces=[MINE])


def test_a_data_key_opens_nothing_of_another_namespace(filled: Room) -> None:
    engine = filled.engine
    mine, theirs = engine.registry.get(MINE), engine.registry.get("company_b/support")
    assert mine is not None and theirs is not None
    row = next(r for r in engine.ledger.iter_changes(theirs.ns) if r.field == 0)
    key = engine.vault.data_key(mine.ns, None)
    for forged in (
        row._replace(key_id=key.key_id),
        row._replace(ns=mine.ns),
        row._replace(ns=mine.ns, key_id=key.key_id),
        row._replace(memory_id=uuid4().bytes),
        row._replace(version=row.version + 1),
        row._replace(field=1),
    ):
        with pytest.raises(StrongroomError) as caught:
            engine.vault.open(theirs.tenant, forged)
        assert caught.value.code in ("decryption_failed", "tampered", "key_state")
    with pytest.raises(StrongroomError):
        engine.vault.open("company_a", row)
