"""A key that is revoked while its operation runs: nothing of it comes after the revocation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from strongroom.engine import Room, Session
from strongroom.errors import UnauthenticatedError
from strongroom.model import AuditEntry, Memory

NS = "company_a/support"


def first(room: Room) -> Memory:
    return room.list(namespaces=[NS]).memories[0]


OPERATIONS: dict[str, Callable[[Session, Memory], object]] = {
    "search": lambda s, m: s.search("invoice", namespaces=["*"]),
    "get": lambda s, m: s.get(m.memory_id, namespace=NS),
    "list": lambda s, m: s.list(namespaces=[NS]),
    "sql": lambda s, m: s.sql("SELECT content FROM memories"),
    "sql_describe": lambda s, m: s.sql_describe("SELECT content FROM memories"),
    "stats": lambda s, m: s.stats(),
    "namespaces": lambda s, m: s.namespaces(),
    "whoami": lambda s, m: s.whoami(),
    "queue": lambda s, m: s.queue(),
    "requeue": lambda s, m: s.requeue(),
    "store": lambda s, m: s.store("too late", namespace=NS, subject="maria"),
    "store into a new namespace": lambda s, m: s.store("too late", namespace="company_a/new"),
    "store_many": lambda s, m: s.store_many([{"content": "too late", "namespace": NS}] * 3),
    "update": lambda s, m: s.update(m.memory_id, namespace=NS, content="too late"),
    "delete": lambda s, m: s.delete(m.memory_id, namespace=NS),
    "create_namespace": lambda s, m: s.create_namespace("company_a/late"),
    "update_namespace": lambda s, m: s.update_namespace(NS, language="german"),
    "keys_create": lambda s, m: s.keys_create("late", "read-only", ["company_a/*"]),
    "keys_list": lambda s, m: s.keys_list(),
    "elevations_request": lambda s, m: s.elevations_request("read-write", ["company_b/x"], "late", minutes=5),
    "audit": lambda s, m: s.audit(limit=10),
    "audit_query": lambda s, m: s.audit_query(limit=10),
    "audit_export": lambda s, m: s.audit_export(lambda text: None, format="json"),
}


@pytest.fixture
def filled(room: Room) -> Iterator[Room]:
    room.store("an invoice", namespace=NS)
    room.flush()
    yield room


def before_the_commit(room: Room, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen at the last moment before this thread commits for the first time."""
    ledger, mine, armed = room.engine.ledger, threading.get_ident(), [happens]

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(ledger, name)

        def commit(*arguments: Any, **options: Any) -> Any:
            if armed and threading.get_ident() == mine:
                armed.pop()()
            return real(*arguments, **options)

        return commit

    for name in ("commit", "requeue"):
        monkeypatch.setattr(ledger, name, watched(name))


def after_revocation(room: Room, key_id: str) -> list[AuditEntry]:
    """What the log has of a key after its revocation."""
    entries = list(room.audit(limit=1000))
    last = max(i for i, e in enumerate(entries) if e.reason == f"revoke key {key_id}")
    return [e for e in entries[last + 1 :] if e.principal == key_id]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_not_committed_before_the_revocation_is_refused(
    filled: Room, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """It comes at the last moment: no answer, no change, and only a denial in the log after it."""
    memory, before = first(filled), filled.stats()
    info, text = filled.keys_create("k", "admin", ["*"])
    mine = filled.engine.authenticate(text)
    before_the_commit(filled, monkeypatch, lambda: filled.keys_revoke(info.key_id))
    with pytest.raises(UnauthenticatedError):
        OPERATIONS[operation](mine, memory)
    later = after_revocation(filled, info.key_id)
    assert [(e.outcome, e.reason) for e in later] == [("denied", "the key was revoked")]
    assert (filled.stats(), first(filled).content) == (before, "an invoice")
    assert [k.name for k in filled.keys_list()] == ["k"]


@pytest.mark.parametrize("operation", ["search", "store", "update", "delete", "keys_create", "store_many"])
def test_a_change_of_the_registry_alone_refuses_nobody(
    filled: Room, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A key that somebody else gets meanwhile makes the caller looked at again, and no more."""
    _, text = filled.keys_create("k", "admin", ["*"])
    mine, memory = filled.engine.authenticate(text), first(filled)
    before_the_commit(filled, monkeypatch, lambda: filled.keys_create("other", "read-only", ["*"]))
    OPERATIONS[operation](mine, memory)
    assert "other" in {k.name for k in filled.keys_list()}
    assert "denied" not in {e.outcome for e in filled.audit(limit=100)}


def test_rights_that_end_while_a_search_runs_are_not_used_for_its_answer(
    filled: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is done again with what is left."""
    filled.store("an invoice of b", namespace="company_b/x")
    filled.flush()
    mine = filled.engine.authenticate(filled.keys_create("k", "read-only", ["company_a/*"])[1])
    lent = filled.elevations_approve(
        mine.elevations_request("read-only", ["company_b/*"], "incident", minutes=5).id
    )
    assert len(mine.search("invoice", namespaces=["*"])) == 2
    before_the_commit(filled, monkeypatch, lambda: filled.elevations_revoke(lent.id))
    found = mine.search("invoice", namespaces=["*"])
    assert [h.memory.namespace for h in found] == [NS]
    ok = [e for e in filled.audit(limit=100) if e.action == "search"][-1]
    assert (ok.namespaces, ok.count) == ((NS,), 1)


def test_the_log_has_nothing_of_a_key_after_its_revocation_but_denials(filled: Room) -> None:
    """Eight threads at work while the key is revoked, as often as it takes: the log is in order each time."""
    memory = first(filled)
    work: list[Callable[[Session, Memory], Any]] = [
        OPERATIONS[name] for name in ("search", "get", "list", "sql", "store", "store_many", "stats", "queue")
    ]
    for _ in range(4):
        info, text = filled.keys_create("k", "read-write", ["*"])
        going = threading.Barrier(len(work) + 1)

        def run(operation: Callable[[Session, Memory], Any], text: str = text, go: Any = going) -> None:
            mine = filled.engine.authenticate(text)
            go.wait()
            for _ in range(10_000):
                try:
                    operation(mine, memory)
                except UnauthenticatedError:
                    return

        threads = [threading.Thread(target=run, args=(operation,)) for operation in work]
        for thread in threads:
            thread.start()
        going.wait()
        filled.search("something else", namespaces=["*"])
        filled.keys_revoke(info.key_id)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert {e.outcome for e in after_revocation(filled, info.key_id)} == {"denied"}
