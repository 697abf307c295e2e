"""Keys, scopes and grants: what a credential may touch, and what it can learn of the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.engine.conftest import OpenRoom

import strongroom
from strongroom.engine import Room, Session
from strongroom.errors import (
    AccessDeniedError,
    CredentialNotFoundError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    StrongroomError,
    UnauthenticatedError,
)
from strongroom.keyring import DataKey

A, B = "company_a/support", "company_b/support"


def session(room: Room, scope: str, *grants: str) -> Session:
    _, text = room.keys_create("test", scope, list(grants))
    return room.engine.authenticate(text)


OPERATIONS: dict[str, Callable[[Session, str], object]] = {
    "store": lambda s, ns: s.store("x", namespace=ns),
    "store_many": lambda s, ns: s.store_many([{"content": "x", "namespace": ns}]),
    "search": lambda s, ns: s.search("x", namespaces=[ns]),
    "get": lambda s, ns: s.get(uuid4(), namespace=ns),
    "list": lambda s, ns: s.list(namespaces=[ns]),
    "update": lambda s, ns: s.update(uuid4(), namespace=ns, importance=0.1),
    "delete": lambda s, ns: s.delete(uuid4(), namespace=ns),
    "stats": lambda s, ns: s.stats([ns]),
    "queue": lambda s, ns: s.queue([ns]),
    "requeue": lambda s, ns: s.requeue([ns]),
    "create_namespace": lambda s, ns: s.create_namespace(ns),
    "update_namespace": lambda s, ns: s.update_namespace(ns, language="german"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_foreign_namespace_is_refused_the_same_whether_it_exists_or_not(room: Room, operation: str) -> None:
    room.store("secret of b", namespace=B)
    s = session(room, "admin", "company_a/*")
    seen = []
    for namespace in (B, "company_c/never_made"):
        with pytest.raises(AccessDeniedError) as caught:
            OPERATIONS[operation](s, namespace)
        seen.append(caught.value.as_dict())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("operation", ["store", "store_many", "update", "delete", "requeue"])
def test_a_read_only_key_writes_nothing(room: Room, operation: str) -> None:
    room.store("x", namespace=A)
    s = session(room, "read-only", "*")
    with pytest.raises(AccessDeniedError):
        OPERATIONS[operation](s, A)
    assert room.stats().memories == 1


def test_wildcards_select_only_what_is_granted(room: Room) -> None:
    room.store("ours", namespace=A)
    room.store("theirs", namespace=B)
    room.flush()
    s = session(room, "read-only", "company_a/*")
    assert [h.memory.content for h in s.search("ours theirs", namespaces=["*"])] == ["ours"]
    assert [m.content for m in s.list(namespaces=["*"]).memories] == ["ours"]
    assert s.stats().memories == 1
    assert [n.name for n in s.namespaces()] == [A]


def test_a_memory_of_another_namespace_cannot_be_reached_through_ones_own(room: Room) -> None:
    theirs = room.store("theirs", namespace=B)
    room.store("ours", namespace=A)
    s = session(room, "read-write", "company_a/*")
    with pytest.raises(MemoryNotFoundError):
        s.get(theirs.memory_id, namespace=A)
    with pytest.raises(MemoryNotFoundError):
        s.update(theirs.memory_id, namespace=A, importance=1.0)
    assert s.delete(theirs.memory_id, namespace=A) is False
    assert room.get(theirs.memory_id, namespace=B).content == "theirs"


def test_the_same_id_may_live_in_two_namespaces(room: Room) -> None:
    i = uuid4()
    room.store("a", namespace=A, memory_id=i)
    room.store("b", namespace=B, memory_id=i)
    room.delete(i, namespace=A)
    assert room.get(i, namespace=B).content == "b"


def test_a_granted_namespace_that_does_not_exist_is_said_to_be_missing(room: Room) -> None:
    s = session(room, "read-only", "company_a/*")
    with pytest.raises(NamespaceNotFoundError):
        s.search("x", namespaces=["company_a/none"])


def test_a_key_that_is_revoked_between_the_check_and_the_commit_stores_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit notices that the registry has changed, and who calls is looked at again."""
    room.store("there before", namespace=A)
    info, text = room.keys_create("k", "read-write", [A])
    mine, revoking = room.engine.authenticate(text), [info.key_id]
    vault = room.engine.vault
    data_key = vault.data_key

    def revoked_meanwhile(ns: int, subject: str | None) -> DataKey:
        if ns and revoking:
            room.keys_revoke(revoking.pop())
        return data_key(ns, subject)

    monkeypatch.setattr(vault, "data_key", revoked_meanwhile)
    with pytest.raises(UnauthenticatedError):
        mine.store("too late", namespace=A)
    assert not revoking and [m.content for m in room.list(namespaces=["*"]).memories] == ["there before"]
    entry = [e for e in room.audit(limit=50) if e.action == "store"][-1]
    assert (entry.principal, entry.outcome, entry.reason) == (info.key_id, "denied", "the key was revoked")


def test_a_revoked_key_stops_at_the_next_call_also_in_another_process(
    room: Room, open_room: OpenRoom
) -> None:
    info, text = room.keys_create("k", "read-only", [A])
    room.store("x", namespace=A)
    mine = room.engine.authenticate(text)
    elsewhere = open_room(api_key=text)
    assert len(elsewhere.list(namespaces=[A]).memories) == 1
    room.keys_revoke(info.key_id)
    for s in (mine, elsewhere):
        with pytest.raises(UnauthenticatedError):
            s.list(namespaces=[A])
    with pytest.raises(UnauthenticatedError):
        room.engine.authenticate(text)


def test_an_expired_key_stops(open_room: OpenRoom) -> None:
    now = [1_800_000_000_000_000]
    room = open_room(clock_us=lambda: now[0])
    until = datetime.fromtimestamp(now[0] / 1e6, UTC) + timedelta(minutes=5)
    _, text = room.keys_create("k", "read-only", ["*"], until)
    s = room.engine.authenticate(text)
    s.stats()
    now[0] += 300_000_000
    with pytest.raises(UnauthenticatedError):
        s.stats()


def test_wrong_keys_are_told_apart_by_nothing(room: Room) -> None:
    info, text = room.keys_create("k", "read-only", ["*"])
    _, other = room.keys_create("k2", "read-only", ["*"])
    room.keys_revoke(info.key_id)
    seen = set()
    for wrong in ("", "sr_live_nonsense", text[:-1] + ("A" if text[-1] != "A" else "B"), text, other[:20]):
        with pytest.raises(UnauthenticatedError) as caught:
            room.engine.authenticate(wrong)
        seen.add(str(caught.value.as_dict()))
    assert len(seen) == 1


def test_a_namespaced_admin_manages_only_keys_within_its_grants(room: Room) -> None:
    foreign, _ = room.keys_create("b", "read-only", ["company_b/*"])
    admin = session(room, "admin", "company_a/*")
    with pytest.raises(AccessDeniedError):
        admin.keys_create("wide", "read-only", ["*"])
    with pytest.raises(AccessDeniedError):
        admin.keys_create("b", "read-only", [B])
    with pytest.raises(CredentialNotFoundError):
        admin.keys_revoke(foreign.key_id)
    made, _ = admin.keys_create("a", "read-write", [A])
    assert foreign.key_id not in {k.key_id for k in admin.keys_list()}
    admin.keys_revoke(made.key_id)
    with pytest.raises(AccessDeniedError):
        admin.audit()


def test_the_secret_of_a_key_is_nowhere_on_disk(room: Room, data: Path) -> None:
    _, text = room.keys_create("k", "admin", ["*"])
    room.engine.authenticate(text).stats()
    room.close()
    for file in [*data.rglob("*"), *data.with_name("data.keys").rglob("*")]:
        if file.is_file():
            blob = file.read_bytes()
            assert text.encode() not in blob and text[20:63].encode() not in blob


def test_every_operation_and_every_denial_is_in_the_audit_log(room: Room) -> None:
    s = session(room, "read-only", A)
    m = room.store("x", namespace=A)
    s.search("x", namespaces=[A])
    s.get(m.memory_id, namespace=A)
    for denied in (lambda: s.store("y", namespace=A), lambda: s.search("x", namespaces=[B])):
        with pytest.raises(AccessDeniedError):
            denied()
    with pytest.raises(UnauthenticatedError):
        room.engine.authenticate("sr_live_wrong")
    entries = room.audit(limit=50)
    told = [(e.action, e.outcome) for e in entries]
    for expected in (
        ("store", "ok"),
        ("search", "ok"),
        ("read", "ok"),
        ("store", "denied"),
        ("search", "denied"),
    ):
        assert expected in told
    assert ("authenticate", "denied") in told
    denials = [e for e in entries if e.outcome == "denied"]
    assert all(e.reason for e in denials)
    assert [e.seq for e in entries] == sorted(e.seq for e in entries)
    found = next(e for e in entries if e.action == "read" and e.outcome == "ok")
    assert found.memory_ids == (m.memory_id.bytes,) and found.namespaces == (A,)


def test_content_never_reaches_an_error_or_the_audit_log(room: Room) -> None:
    secret = "zebra-quartz-secret"
    room.store(secret, namespace=A)
    texts = []
    for bad in (
        lambda: room.store(secret + "\x00", namespace=A),
        lambda: room.search(secret, namespaces=[A], where=f"content = '{secret}' AND"),
        lambda: room.store(secret, namespace=A, metadata={secret: object()}),
        lambda: room.store(secret, namespace=secret + "//"),
    ):
        with pytest.raises(StrongroomError) as caught:
            bad()
        texts.append(str(caught.value.as_dict()))
    texts.extend(str(e) for e in room.audit(limit=100))
    assert not [t for t in texts if secret in t]


def test_opening_with_a_key_holds_the_caller_to_it(room: Room, data: Path, open_room: OpenRoom) -> None:
    room.store("theirs", namespace=B)
    _, text = room.keys_create("k", "read-only", ["company_a/*"])
    other = open_room(api_key=text)
    with pytest.raises(AccessDeniedError):
        other.search("x", namespaces=[B])
    with pytest.raises(UnauthenticatedError):
        strongroom.open(data, api_key="sr_live_wrong")
