"""What a hostile review of new roots and new signing keys found: each of these went wrong once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom
from tests.rotation.rotated import NOTE, NS, assert_all_there, fill, ns_of, states
from tests.rotation.test_new_roots import about, compromise, head_root
from tests.rotation.test_signing_keys import keys_of
from tests.support.database import ledger_file

from strongroom.audit.verify import verify_key_changes
from strongroom.engine import Room
from strongroom.errors import IntegrityError, InvalidInputError, KeyStateError, TamperedError
from strongroom.keyring import FORMER, KeyState
from strongroom.lifecycle.rotation import Waves
from strongroom.model import SYSTEM_NAME

USER = "user:1"


def test_an_interrupted_response_to_one_key_is_no_response_to_another(room: Room) -> None:
    """What was begun for one data key is ended first; then everything below the namespace key is replaced."""
    wanted = fill(room, 24)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    before = {k.key_id for k in keyring.list_keys(ns)}
    exposed = next(k.key_id for k in keyring.list_keys(ns) if k.subject)
    room.engine.rotations.waves.begin(ns, "compromise", NOTE, key_id=exposed)
    version = max(r.version for r in keyring.list_namespaces() if r.ns == ns)
    compromise(room)
    assert {states(room)[k] for k in before} == {KeyState.DESTROYED}
    assert max(r.version for r in keyring.list_namespaces() if r.ns == ns) == version + 1
    assert keyring.root(ns) == head_root(room, ns) != 0
    assert_all_there(room, wanted)


def test_an_interrupted_response_is_gone_on_with(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated for the same key, with another reason or none, it goes on with its wave and its root."""
    wanted = fill(room, 24)
    work = Waves.work

    def failing(*args: object, **kwargs: object) -> object:
        raise KeyStateError("interrupted")

    monkeypatch.setattr(Waves, "work", failing)
    with pytest.raises(KeyStateError):
        room.respond_key_compromise(f"namespace:{NS}", reason="stolen laptop")
    monkeypatch.setattr(Waves, "work", work)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    (wave,), root = room.engine.ledger.waves(ns), keyring.root(ns)
    report = room.respond_key_compromise(f"namespace:{NS}")
    assert [w.id for w in room.engine.ledger.waves(ns, ended=True)] == [wave.id]
    assert keyring.root(ns) == root and not any("had begun" in s.what for s in report.steps)
    assert_all_there(room, wanted)


def test_a_head_of_before_that_is_put_back_while_a_response_works(
    room: Room, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exposed root somebody makes heads until it is destroyed: the response ends with an alarm."""
    fill(room, 16)
    ns = ns_of(room)
    _, before = room.engine.ledger.head(ns)
    finalise = Waves.finalise

    def put_back(*args: object, **kwargs: object) -> None:
        finalise(*args, **kwargs)  # type: ignore[arg-type]
        db = ledger_file(data)
        db.execute("UPDATE namespace SET head = ? WHERE ns = ?", (before, ns))
        db.close()

    monkeypatch.setattr(Waves, "finalise", put_back)
    for _ in range(2):  # a repetition does not bless it
        with pytest.raises(TamperedError, match="left"):
            room.respond_key_compromise(f"namespace:{NS}")


def test_signing_keys_of_before_are_not_taken_back(room: Room, data: Path) -> None:
    """A process that knows the new keys of the audit log never signs with the exposed ones again."""
    fill(room, 4)
    room.audit_key()
    db = ledger_file(data)
    row = "version, key_id, sealed, content_version, seq"
    (old,) = db.execute(f"SELECT {row} FROM record WHERE ns = 0 AND field = 19").fetchall()
    compromise(room, SYSTEM_NAME)
    room.audit_key()
    columns = ", ".join(f"{name.strip()} = ?" for name in row.split(","))
    db.execute(f"UPDATE record SET {columns} WHERE ns = 0 AND field = 19", old)
    db.close()
    for use in (room.audit_key, room.audit_checkpoint, room.respond_keys):
        with pytest.raises(TamperedError):
            use()


def test_a_damaged_pseudonym_stops_no_response(room: Room, data: Path) -> None:
    """One that does not open any more is drawn anew and told; the others keep theirs."""
    wanted = fill(room, 24)
    ns = ns_of(room)
    mine, others = about(room, USER), about(room, "user:2")
    blind = room.engine.vault.blinded_subject(ns, USER)[:16]
    db = ledger_file(data)
    ((sealed,),) = db.execute(
        "SELECT sealed FROM record WHERE ns = ? AND memory_id = ?", (ns, blind)
    ).fetchall()
    bad = sealed[:-1] + bytes([sealed[-1] ^ 1])
    db.execute("UPDATE record SET sealed = ? WHERE ns = ? AND memory_id = ?", (bad, ns, blind))
    db.close()
    report = room.respond_key_compromise(f"namespace:{NS}")
    assert any("1 pseudonyms" in text for text in report.left)
    assert mine and about(room, USER) == [] and about(room, "user:2")[: len(others)] == others
    late = room.store("late alpha", namespace=NS, subject=USER)
    wanted[late.memory_id] = late.content
    assert about(room, USER) == ["store"]
    room.flush()
    assert_all_there(room, wanted)


def test_a_key_that_blinds_stays(room: Room) -> None:
    """The blinding key of a former root is not disabled; a response to its exposure says that it stays."""
    wanted = fill(room, 16)
    compromise(room)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    (former,) = [k.key_id for k in keyring.list_keys(ns) if k.subject == FORMER]
    with pytest.raises(KeyStateError, match="needed"):
        room.keyring_disable(f"data:{former}")
    report = room.respond_key_compromise(f"data:{former}")
    assert any("stays" in text for text in report.left)
    assert_all_there(room, wanted)


def test_two_changes_of_signing_keys_are_a_chain(room: Room, open_room: OpenRoom) -> None:
    """From the first keys the changes lead to those of now, in order and without a gap."""
    fill(room, 4)
    keys = [keys_of(room)]
    for _ in range(3):
        compromise(room, SYSTEM_NAME)
        keys.append(keys_of(room))
    documents = [text.encode() for text in room.audit_key_changes()]
    found = verify_key_changes(b"\n".join(documents) + b"\n", keys[0])
    assert len(found) == 3
    assert found[-1].after == room.audit_key()
    assert len(verify_key_changes(b"\n".join(documents[1:]), keys[1])) == 2
    for wrong in (documents[::-1], [documents[0], documents[2]], documents[1:]):
        with pytest.raises(TamperedError):
            verify_key_changes(b"\n".join(wrong), keys[0])
    with pytest.raises(IntegrityError):
        verify_key_changes(b"\n\n", keys[0])


def test_a_root_that_is_met_in_a_head_first(room: Room, open_room: OpenRoom) -> None:
    """A process that reads the new head before it has looked at the keyring again goes on."""
    fill(room, 8)
    late = open_room()
    late.store("warm", namespace=NS, subject=USER)
    compromise(room)
    keyring, ns = late.engine.vault.keyring, ns_of(room)
    keyring.refresh()
    keyring.blinded(ns, USER.encode())
    keyring._cache._recheck_s = 3600.0
    keyring._cache.fresh(at_once=True)
    compromise(room)
    root = head_root(room, ns)
    assert root not in keyring._cache.roots_of(ns)[0]
    assert late.engine.vault.blinded_subject(ns, USER, root) == room.engine.vault.blinded_subject(ns, USER)
    late.close()


def test_keys_that_move_are_no_trouble_of_the_audit_log(room: Room, open_room: OpenRoom) -> None:
    """A process whose key was closed meanwhile takes the present one and goes on integrating."""
    fill(room, 4)
    late = open_room()
    late.engine.audit_log.integrate()
    keyring = late.engine.vault.keyring
    keyring._cache._recheck_s = 3600.0
    keyring._cache.fresh(at_once=True)
    compromise(room, SYSTEM_NAME)
    assert late.engine.audit_log.integrate().size == room.engine.ledger.audit_count()
    late.close()


def test_a_keyring_from_before_hides_only_what_it_lacks(room: Room, data: Path, open_room: OpenRoom) -> None:
    """Namespaces that it does not know are told as such by list, check and keyring; the others go on."""
    wanted = fill(room, 8)
    room.close()
    keys = data.with_name("data.keys")
    shutil.copytree(keys, data.with_name("older"))
    room = open_room()
    fill(room, 8, "b/late")
    room.close()
    shutil.rmtree(keys)
    shutil.copytree(data.with_name("older"), keys)
    room = open_room()
    assert sorted((n.name, n.unavailable) for n in room.namespaces()) == [("b/late", "key_state"), (NS, None)]
    assert {h.memory.memory_id for h in room.search("alpha", namespaces=[NS], mode="keyword", k=50)} == {
        *wanted
    }
    for use in (
        lambda: room.search("alpha", namespaces=["b/late"]),
        lambda: room.store("x", namespace="b/late"),
        lambda: room.rotate("data", namespaces=["b/late"]),
    ):
        with pytest.raises(KeyStateError) as caught:
            use()
        assert "older than the data" in (caught.value.hint or "")
    with pytest.raises(InvalidInputError):
        room.respond_key_compromise("namespace:b/late")
    assert {k.namespace for k in room.keyring_list()} >= {NS}
    assert [f.code for f in room.check().findings] == ["namespace_keys_unavailable"]
