"""Another purpose root after a compromise: what hung on the one before hangs on the new one, or has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom, save_snapshot
from tests.rotation.rotated import NOTE, NS, assert_all_there, fill, ns_of, states
from tests.support.database import ledger_file

from strongroom.audit import AuditFilter
from strongroom.engine import Room, _new_roots
from strongroom.engine._registry import NAMESPACE_NAME, row_id
from strongroom.errors import (
    ConflictError,
    KeyStateError,
    KmsUnavailableError,
    TamperedError,
    UnauthenticatedError,
)
from strongroom.keyring import FORMER, ROOT, KeyState
from strongroom.ledger import WriteBatch, root_of_head
from strongroom.model import SYSTEM_NAME, Field

USER = "user:1"


def blinded(room: Room) -> set[bytes]:
    """Every blinded subject of the namespace that the keyring holds, destroyed keys included."""
    reserved = (None, ROOT, FORMER)
    return {k.subject for k in room.engine.vault.keyring.list_keys(ns_of(room)) if k.subject not in reserved}  # type: ignore[misc]


def pseudonym_ids(room: Room) -> set[bytes]:
    rows = room.engine.ledger.iter_changes(ns_of(room))
    return {r.memory_id for r in rows if r.field == Field.SUBJECT}


def about(room: Room, subject: str) -> list[str]:
    return [e.action for e in room.audit_query(AuditFilter(subjects=(subject,)))]


def head_root(room: Room, ns: int) -> int:
    return root_of_head(room.engine.ledger.head(ns)[1])


def compromise(room: Room, namespace: str = NS) -> None:
    report = room.respond_key_compromise(f"namespace:{namespace}")
    assert report.coverage["purpose_roots_renewed"] == 1


def test_nothing_of_the_exposed_root_is_left(room: Room) -> None:
    """With the exposed root no guess of a subject can be confirmed in keyring or ledger, no head be made."""
    wanted = fill(room, 24)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    exposed, first = keyring.purpose_key(ns, "subject"), keyring.root_key_id(ns)
    guess = exposed.mac(USER.encode())
    before = about(room, USER)
    assert guess in blinded(room) and guess[:16] in pseudonym_ids(room)
    compromise(room)
    assert guess not in blinded(room) and guess[:16] not in pseudonym_ids(room)
    assert states(room)[first] == KeyState.DESTROYED
    root = keyring.root_key_id(ns)
    assert root != first and head_root(room, ns) == root == keyring.root(ns)
    assert about(room, USER)[: len(before)] == before
    assert_all_there(room, wanted)
    tree = {k.id: k.role for k in room.keyring_list([NS])}
    assert tree[f"data:{root}"] == "purpose root"


def test_a_subject_keeps_its_key_and_its_pseudonym(room: Room, open_room: OpenRoom) -> None:
    """What comes after two responses and a restart is sealed and noted as of the same person."""
    wanted = fill(room, 16)
    before = about(room, USER)
    for _ in range(2):
        compromise(room)
    late = room.store("late alpha", namespace=NS, subject=USER)
    wanted[late.memory_id] = late.content
    room.flush()
    room.close()
    room = open_room()
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    assert about(room, USER)[-1] == "store" and len(about(room, USER)) > len(before)
    blind = room.engine.vault.blinded_subject(ns, USER)
    mine = [k for k in keyring.list_keys(ns) if k.subject == blind]
    assert [k.state for k in mine] == [KeyState.DESTROYED, KeyState.DESTROYED, KeyState.ACTIVE]
    assert len(pseudonym_ids(room)) == 7  # as many as there are subjects: nobody has got a second one
    roots = [k for k in keyring.list_keys(ns) if k.subject == ROOT]
    assert [k.state for k in roots] == [KeyState.DESTROYED, KeyState.ACTIVE]
    assert_all_there(room, wanted)


def test_search_words_are_blinded_anew(room: Room, open_room: OpenRoom) -> None:
    """The index and its snapshot are thrown away, here and in another process that has them open; then a word
    has another number, so that whoever had the root before cannot try words any more."""
    wanted = fill(room, 16)
    other = open_room()
    entry = room.engine.registry.get(NS)
    assert entry is not None
    assert_all_there(other, wanted)
    save_snapshot(room, NS)
    mine, theirs = room.engine.indexes.ready(entry), other.engine.indexes.ready(entry)
    (before,) = mine.keywords.blinded("discount")
    compromise(room)
    other.engine.vault.keyring.refresh()
    (after,) = room.engine.indexes.ready(entry).keywords.blinded("discount")
    assert after != before
    assert other.engine.indexes.ready(entry).keywords.blinded("discount") == [after]
    assert room.engine.indexes.ready(entry) is not mine
    assert other.engine.indexes.ready(entry) is not theirs
    assert_all_there(other, wanted)
    other.close()


def test_rotations_leave_the_root_alone(room: Room) -> None:
    """Waves, their way back and policy by age go past a root of its own: it seals nothing."""
    wanted = fill(room, 16)
    compromise(room)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    root = keyring.root_key_id(ns)
    (rotation,) = room.rotate("data", namespaces=[NS])
    room.rotation_rollback(rotation.id)
    (rotation,) = room.rotate("data", namespaces=[NS])
    room.rotation_finalise(rotation.id)
    room.rotate_namespace(namespaces=[NS])
    assert states(room)[root] == KeyState.ACTIVE and keyring.root_key_id(ns) == root
    assert_all_there(room, wanted)


def test_names_of_the_store_itself(room: Room, open_room: OpenRoom) -> None:
    """After an exposure of the system's keys every name is found once, changed and made as before."""
    wanted = fill(room, 8)
    room.create_namespace("b/other")
    _, text = room.keys_create("agent", "read-write", [NS])
    token = room.engine.authenticate(text).tokens_create(minutes=10)[1]
    compromise(room, SYSTEM_NAME)
    assert head_root(room, 0) == room.engine.vault.keyring.root(0) != 0
    for gone in (text, token):
        with pytest.raises(UnauthenticatedError):
            room.engine.authenticate(gone)
    names = [n.name for n in room.namespaces()]
    with pytest.raises(ConflictError, match="exists"):
        room.create_namespace(NS)
    room.rotate_master(namespaces=["b/other"])
    room.update_namespace("b/other", language="german")
    assert [n.name for n in room.namespaces()] == names
    room.close()
    room = open_room()
    assert [n.language for n in room.namespaces() if n.name == "b/other"] == ["german"]
    _, text = room.keys_create("agent", "read-write", [NS])
    assert room.engine.authenticate(text).search("alpha", namespaces=[NS], mode="keyword", k=50)
    assert_all_there(room, wanted)


def test_a_process_that_has_not_noticed_makes_nothing_under_the_root_before(
    room: Room, open_room: OpenRoom
) -> None:
    """New subjects, their pseudonyms and new namespaces of a late process are those of everybody."""
    fill(room, 8)
    late = open_room()
    late.store("warm", namespace=NS, subject=USER)
    keyring = late.engine.vault.keyring
    keyring._cache._recheck_s = 3600.0
    keyring._cache.fresh(at_once=True)
    compromise(room)
    assert keyring._cache.root_of(ns_of(room)) == 0
    late.store("late alpha", namespace=NS, subject="user:new")
    room.store("early alpha", namespace=NS, subject="user:new")
    compromise(room, SYSTEM_NAME)
    late.create_namespace("c/late")
    with pytest.raises(ConflictError, match="exists"):
        room.create_namespace("c/late")
    assert [n.name for n in room.namespaces()].count("c/late") == 1
    ns = ns_of(room)
    blind = room.engine.vault.blinded_subject(ns, "user:new")
    assert [k.state for k in room.engine.vault.keyring.list_keys(ns) if k.subject == blind] == [
        KeyState.ACTIVE
    ]
    assert about(room, "user:new") == ["store", "store"]
    assert room.check(read_data=True).findings == ()
    late.close()


@pytest.mark.parametrize("namespace", [NS, SYSTEM_NAME])
def test_a_root_that_comes_between_an_id_and_its_row(
    room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    """The ledger refuses a row whose id hangs on the root before, and the writer makes the id anew."""
    fill(room, 8)
    late = open_room()
    late.store("warm", namespace=NS, subject=USER)
    commit, rooted = late.engine.ledger.commit, []

    def between(batch: WriteBatch) -> list[int]:
        if batch.roots and not rooted:
            rooted.append(dict(batch.roots))
            _new_roots.renew(room.engine, 0 if namespace == SYSTEM_NAME else ns_of(room), NOTE)
        return commit(batch)

    monkeypatch.setattr(late.engine.ledger, "commit", between)
    if namespace == NS:
        late.store("between alpha", namespace=NS, subject="user:new")
    else:
        late.create_namespace("c/between")
    assert len(rooted) == 1
    assert about(room, "user:new") == (["store"] if namespace == NS else [])
    room.engine.vault.keyring.refresh()
    ns = ns_of(room, NS) if namespace == NS else 0
    root = room.engine.vault.keyring.root(ns)
    if namespace == NS:
        wanted = room.engine.vault.blinded_subject(ns, "user:new", root)[:16]
        assert room.engine.ledger.get(ns, wanted, int(Field.SUBJECT)) is not None
    else:
        wanted = row_id(room.engine.vault, root, NAMESPACE_NAME, "c/between")
        assert room.engine.ledger.get(ns, wanted, int(Field.NAMESPACE)) is not None
    assert room.check(read_data=True).findings == ()
    late.close()


def test_rows_that_do_not_match_their_head_get_no_new_one(room: Room, data: Path) -> None:
    """A response does not bless what somebody has taken away; nothing is changed then."""
    fill(room, 8)
    ns = ns_of(room)
    db = ledger_file(data)
    db.execute("DELETE FROM record WHERE id = (SELECT max(id) FROM record WHERE ns = ? AND field = 0)", (ns,))
    db.close()
    head = room.engine.ledger.head(ns)
    with pytest.raises(TamperedError):
        _new_roots.renew(room.engine, ns, NOTE)
    assert room.engine.ledger.head(ns) == head


@pytest.mark.parametrize("step", ["renew_root", "rebase", "end_roots"])
def test_a_response_that_stops_between_two_steps_goes_on(
    room: Room, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before or after each step of the change of roots: the store works, and a repetition ends it."""
    wanted = fill(room, 16)
    owner = room.engine.ledger if step == "rebase" else room.engine.vault.keyring
    original: Callable[..., object] = getattr(owner, step)
    for after in (False, True):

        def failing(*args: object, after: bool = after, **options: object) -> object:
            if after:
                original(*args, **options)
            raise KmsUnavailableError("no answer")

        monkeypatch.setattr(owner, step, failing)
        with pytest.raises(KmsUnavailableError):
            room.respond_key_compromise(f"namespace:{NS}")
        late = room.store("alpha between", namespace=NS, subject="user:between")
        wanted[late.memory_id] = late.content
        room.flush()
        assert_all_there(room, wanted)
    monkeypatch.undo()
    room.respond_key_compromise(f"namespace:{NS}")
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    assert head_root(room, ns) == keyring.root(ns)
    live = [k for k in keyring.list_keys(ns) if k.subject == ROOT and k.state != KeyState.DESTROYED]
    assert len(live) == 1
    assert about(room, "user:between").count("store") == 2
    assert_all_there(room, wanted)


def test_an_exposed_root_alone(room: Room) -> None:
    """When the key that was exposed is the root, named by its number, it is replaced and destroyed."""
    wanted = fill(room, 16)
    compromise(room)
    ns = ns_of(room)
    root = room.engine.vault.keyring.root_key_id(ns)
    report = room.respond_key_compromise(f"data:{root}")
    assert report.coverage["purpose_roots_renewed"] == 1
    assert states(room)[root] == KeyState.DESTROYED
    assert_all_there(room, wanted)


def test_a_root_belongs_to_its_namespace(room: Room) -> None:
    """A number of another namespace's root, or of a key that is none, derives nothing."""
    fill(room, 4)
    room.create_namespace("b/other")
    compromise(room)
    keyring = room.engine.vault.keyring
    root = keyring.root(ns_of(room))
    for ns, number in ((ns_of(room, "b/other"), root), (ns_of(room), root + 1)):
        with pytest.raises(KeyStateError):
            keyring.purpose_key(ns, "head", root=number)
