"""Data subjects in the audit log: by pseudonym, findable by who holds the key, and gone with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom
from tests.support.database import ledger_file

import strongroom
from strongroom.audit import AuditFilter
from strongroom.config import CONFIG_NAME
from strongroom.engine import Room
from strongroom.ledger import WriteBatch

NS = "company_a/support"
ALICE, BOB = "user:alice", "user:bob"


def unit() -> Any:
    return np.ones(64, dtype=np.float32)


def about(room: Room, *subjects: str, **filters: Any) -> list[str]:
    """The actions of the entries about any of the subjects, in their order."""
    return [e.action for e in room.audit_query(AuditFilter(subjects=subjects, **filters))]


def pseudonyms(room: Room) -> list[bytes]:
    return [s for e in room.audit(limit=1000) for s in e.subjects]


def destroy_keys(room: Room, subject: str) -> None:
    entry = room.engine.registry.get(NS)
    assert entry is not None
    keyring = room.engine.vault.keyring
    key = keyring.data_key(entry.ns, room.engine.vault.blinded_subject(entry.ns, subject), create=False)
    keyring.destroy_data_key(key.key_id)


def drop_pseudonyms(room: Room) -> int:
    """Take their rows out of the file, behind the store's back; the number of the namespace."""
    entry = room.engine.registry.get(NS)
    assert entry is not None
    db = ledger_file(room.engine.directory)
    db.execute("DELETE FROM record WHERE ns = ? AND field = 3", (entry.ns,))
    db.close()
    return entry.ns


def destroy_pseudonym(room: Room) -> None:
    """As in a store of before there were any; the head is made anew over what is left."""
    room.engine.ledger.reset_head(drop_pseudonyms(room))
    room.engine.pseudonyms._known.clear()


def test_every_operation_on_memories_of_a_subject_is_found_by_its_name(room: Room) -> None:
    """Stored, in bulk too, searched, listed, read, changed, deleted: who asks for a person gets it all."""
    m = room.store("likes tea", namespace=NS, subject=ALICE, embedding=unit())
    room.store_many([{"content": "likes coffee", "namespace": NS, "subject": BOB}] * 2)
    room.store("nobody in particular", namespace=NS)
    room.search("tea", namespaces=[NS], mode="keyword")
    room.list(namespaces=[NS])
    room.get(m.memory_id, namespace=NS)
    room.update(m.memory_id, namespace=NS, importance=0.9)
    room.delete(m.memory_id, namespace=NS)
    assert about(room, ALICE) == ["store", "search", "list", "read", "update", "delete"]
    assert about(room, BOB) == ["store", "list"]
    assert about(room, ALICE, actions=("delete",)) == ["delete"]
    assert about(room, "user:unknown") == []
    assert about(room, ALICE, BOB) == ["store", "store", "search", "list", "read", "update", "delete"]


def test_entries_name_no_subject_and_a_pseudonym_says_nothing(room: Room) -> None:
    """Random, equal for equal subjects of one namespace, different elsewhere; the name itself is nowhere."""
    room.store("one", namespace=NS, subject=ALICE)
    room.store("two", namespace=NS, subject=ALICE)
    room.store("three", namespace="company_b/support", subject=ALICE)
    first, second, elsewhere = pseudonyms(room)
    assert first == second != elsewhere and len(first) == 8
    assert "alice" not in repr(room.audit(limit=100))
    assert about(room, ALICE, namespaces=(strongroom.model.NamespacePattern.parse("company_b/*"),)) == [
        "store"
    ]


def test_a_subject_has_the_same_pseudonym_after_a_restart_and_a_rotation(open_room: OpenRoom) -> None:
    """It is kept sealed in the ledger, not in the process; and its own key may change epochs."""
    room = open_room()
    room.store("one", namespace=NS, subject=ALICE)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    room.engine.vault.keyring.rotate_data_key(entry.ns, room.engine.vault.blinded_subject(entry.ns, ALICE))
    room.store("two", namespace=NS, subject=ALICE)
    room.close()
    room = open_room()
    room.store("three", namespace=NS, subject=ALICE)
    assert len(set(pseudonyms(room))) == 1 and about(room, ALICE) == ["store"] * 3


def test_with_its_key_the_link_from_a_subject_to_its_entries_is_gone(open_room: OpenRoom) -> None:
    """The entries stay and the log still verifies; nobody can tell any more whom they are about, in the
    process that destroyed the key and in another one; and the subject, stored anew, is somebody new."""
    room, other = open_room(), open_room(worker=False)
    m = room.store("one", namespace=NS, subject=ALICE)
    assert other.get(m.memory_id, namespace=NS).content == "one" and about(other, ALICE) == ["store", "read"]
    before = room.audit_checkpoint()
    destroy_keys(room, ALICE)
    other.close()
    other = open_room(worker=False)
    assert about(room, ALICE) == [] == about(other, ALICE)
    room.store("again", namespace=NS, subject=ALICE)
    assert about(room, ALICE) == ["store"] == about(other, ALICE)
    old, *_, new = pseudonyms(room)
    assert old != new
    room.audit_consistency(before.size)


def test_two_processes_that_meet_a_subject_at_once_agree_on_it(open_room: OpenRoom) -> None:
    """Whoever is second takes what the first has written."""
    one, two = open_room(), open_room(worker=False)
    one.store("the namespace is there", namespace=NS)
    two.engine.registry.refresh()
    here, there = one.engine.registry.get(NS), two.engine.registry.get(NS)
    assert here is not None and there is not None
    first = one.engine.pseudonyms.of(here, [ALICE, BOB], create=True)
    late = two.engine.pseudonyms
    made = late._make(there, [(ALICE, 0), (BOB, 0)])
    with pytest.raises(strongroom.errors.DuplicateMemoryError):  # between its reading and its writing
        two.engine.ledger.commit(WriteBatch(puts=[draft.put for draft in made]))
    assert late.of(there, [ALICE, BOB], create=True) == first


@pytest.mark.parametrize("way", ["store", "store_many", "update"])
def test_a_pseudonym_that_another_process_made_meanwhile_counts(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Between a write's reading and its commit: the write is repeated, once, and says what the other says."""
    one, two = open_room(), open_room(worker=False)
    there = one.store("somebody's, of before", namespace=NS, subject=ALICE)
    destroy_pseudonym(one)
    late = two.engine.pseudonyms
    drafted = late.drafted

    def meanwhile(*arguments: Any) -> Any:
        answer = drafted(*arguments)
        assert answer[1], "nothing to be overtaken in"
        one.engine.pseudonyms._known.clear()
        one.store("the other process", namespace=NS, subject=ALICE)
        return answer

    monkeypatch.setattr(late, "drafted", meanwhile)
    if way == "store":
        two.store("late", namespace=NS, subject=ALICE)
    elif way == "store_many":
        two.store_many([{"content": "late", "namespace": NS, "subject": ALICE}])
    else:
        two.update(there.memory_id, namespace=NS, content="late")
    assert len(set(pseudonyms(one)[1:])) == 1
    assert [m.content for m in one.list(namespaces=[NS], limit=50).memories].count("late") == 1
    assert one.check(read_data=True).ok


def test_the_first_memory_of_a_subject_is_one_commit_of_the_ledger(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pseudonym goes with it: all or nothing, and one fsync less."""
    room.store("the namespace is there", namespace=NS)
    commits: list[list[int]] = []
    commit = room.engine.ledger.commit

    def noted(batch: WriteBatch) -> list[int]:
        seqs = commit(batch)
        commits.append([p.field for p in batch.puts])  # what whoever leads has put in, too
        return seqs

    monkeypatch.setattr(room.engine.ledger, "commit", noted)
    room.store("one", namespace=NS, subject=ALICE)
    assert [fields for fields in commits if 0 in fields or 3 in fields] == [[0, 3]]
    assert about(room, ALICE) == ["store"]


def test_a_failed_write_leaves_no_pseudonym_of_a_new_subject(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry of the failure names nobody: what was drawn for it was never written."""
    room.store("the namespace is there", namespace=NS)
    commit = room.engine.ledger.commit

    def full(batch: WriteBatch) -> list[int]:
        if batch.puts:
            raise strongroom.errors.StorageFullError()
        return commit(batch)

    monkeypatch.setattr(room.engine.ledger, "commit", full)
    with pytest.raises(strongroom.errors.StorageFullError):
        room.store("one", namespace=NS, subject=ALICE)
    monkeypatch.undo()
    assert pseudonyms(room) == [] == about(room, ALICE)
    room.store("one", namespace=NS, subject=ALICE)
    assert about(room, ALICE) == ["store"]


def test_rows_of_pseudonyms_pass_check_and_count_in_the_head(room: Room, open_room: OpenRoom) -> None:
    """They are rows like others: authenticated, counted, and missed when they are gone."""
    room.store("one", namespace=NS, subject=ALICE)
    assert room.check(read_data=True).ok
    drop_pseudonyms(room)
    assert not room.check().ok


def test_policy_decides_what_is_recorded_above_the_floor(data: Path, open_room: OpenRoom) -> None:
    """Without memory ids and subjects an entry still says who, what, where, how many and how it ended."""
    file = data / CONFIG_NAME
    text = file.read_text("utf-8")
    for name in ("record_memory_ids", "record_subjects"):
        assert f"{name} = true" in text
        text = text.replace(f"{name} = true", f"{name} = false")
    file.write_text(text, "utf-8")
    room = open_room()
    room.store("one", namespace=NS, subject=ALICE)
    entry = room.audit_query(AuditFilter(actions=("store",)))[0]
    assert (entry.action, entry.namespaces, entry.outcome, entry.count) == ("store", (NS,), "ok", 1)
    assert entry.memory_ids == () == entry.subjects
