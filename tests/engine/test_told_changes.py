"""What an operation changes in the ledger and what the audit log says of it are one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.support.breaking import Breaking
from tests.support.database import ledger_file

from strongroom.engine import Room, _admin, _rotation
from strongroom.errors import StrongroomError, UnauthenticatedError
from strongroom.model import AuditEntry, RotationState

TURNS = 12
SPACES = ("a/one", "a/two")


@pytest.fixture
def room(open_room: OpenRoom) -> Iterator[Room]:
    opened = open_room(worker=False)
    for name in SPACES:
        for n in range(3):
            opened.store(f"memory {n}", namespace=name, subject="user:1")
    yield opened
    opened.close()


def give_up(room: Room) -> int:
    """Have every queued memory be a dead letter; how many those are."""
    ledger, after, found = room.engine.ledger, 0, 0
    while page := ledger.queue(after=after, limit=100):
        found += ledger.queue_mark([row.item for row in page], error_code="embedding_rejected", dead=True)
        after = page[-1].id
    return found


def said(room: Room, *, after: int) -> list[AuditEntry]:
    """What people were told to have done since, in order."""
    found = [e for e in room.audit(limit=500, after=after) if e.outcome == "ok" and e.action != "administer"]
    return [e for e in found if e.principal != "rotation"]


def requeue(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    give_up(room)
    return room.requeue, lambda: not room.queue(dead=True), ""


def begin(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    return (
        lambda: room.rotate(namespaces=["a/one"], wait=False),
        lambda: bool(room.rotation_status()),
        "rotate data",
    )


def moved(room: Room) -> int:
    (wave,) = room.rotate(namespaces=["a/one"])
    assert wave.state is RotationState.MOVED
    return wave.id


def state(room: Room, wave: int) -> Any:
    return next(r for r in room.rotation_status(ended=True) if r.id == wave)


def pause(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    (wave,) = room.rotate(namespaces=["a/one"], wait=False)
    return lambda: room.rotation_pause(wave.id), lambda: state(room, wave.id).paused, "pause rotation"


def resume(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    (wave,) = room.rotate(namespaces=["a/one"], wait=False)
    room.rotation_pause(wave.id)
    return lambda: room.rotation_resume(wave.id), lambda: not state(room, wave.id).paused, "resume rotation"


def roll_back(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    wave = moved(room)
    done = lambda: state(room, wave).state is RotationState.TURNING  # noqa: E731
    return lambda: room.rotation_rollback(wave, wait=False), done, "roll back rotation"


def finalise(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    wave = moved(room)
    done = lambda: state(room, wave).state is not RotationState.MOVED  # noqa: E731
    return lambda: room.rotation_finalise(wave), done, "finalise rotation"


def accept(room: Room) -> tuple[Callable[[], Any], Callable[[], bool], str]:
    entry = room.engine.registry.get("a/one")
    assert entry is not None
    file = ledger_file(room.engine.directory)
    file.execute("DELETE FROM record WHERE id = (SELECT min(id) FROM record WHERE ns = ?)", (entry.ns,))
    before = room.engine.ledger.head(entry.ns)
    return (
        lambda: room.repair(accept_loss=True),
        lambda: room.engine.ledger.head(entry.ns) != before,
        "repair, accepting loss",
    )


@pytest.mark.parametrize(
    "make", [requeue, begin, pause, resume, roll_back, finalise, accept], ids=lambda make: make.__name__
)
def test_whatever_is_done_when_nothing_works_any_more_stands_in_the_log(
    room: Room, monkeypatch: pytest.MonkeyPatch, make: Callable[[Room], Any]
) -> None:
    """The machine breaks behind each durable write in turn: change and entry are both there, or neither."""
    act, done, reason = make(room)
    before = room.engine.ledger.audit_count()
    breaking = Breaking(monkeypatch)
    seen = False
    for turn in range(1, TURNS + 1):
        try:
            broke = breaking.behind(turn, act)
        except StrongroomError:
            broke = True
        told = [e for e in said(room, after=before) if e.reason.startswith(reason)]
        told = [e for e in told if e.action == "update"] if make is requeue else told
        assert bool(told) == done(), f"behind write {turn}"
        seen = seen or bool(told)
        if seen or not broke:
            break
    assert seen
    assert told[0].principal == "owner" and len(told) == 1
    if make is requeue:
        assert told[0].count == 6


@pytest.mark.parametrize("what", ["requeue", "pause"])
def test_a_key_that_is_revoked_on_the_way_changes_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The transaction itself sees the revocation: what the key was about to change stays as it was."""
    info, text = room.keys_create("operator", "admin", ["*"])
    (wave,) = room.rotate(namespaces=["a/one"], wait=False)
    dead = give_up(room)
    session = room.engine.authenticate(text)
    module, name = (_admin, "chosen_namespaces") if what == "requeue" else (_rotation, "_row")
    prepare = getattr(module, name)

    def revoked_meanwhile(*arguments: Any, **options: Any) -> Any:
        found = prepare(*arguments, **options)
        room.keys_revoke(info.key_id)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module, name, revoked_meanwhile)
        with pytest.raises(UnauthenticatedError):
            session.requeue() if what == "requeue" else session.rotation_pause(wave.id)
    assert len(room.queue(dead=True)) == dead == 6
    assert not state(room, wave.id).paused
    (last,) = [e for e in room.audit(limit=20) if e.outcome == "denied"]
    assert info.key_id in last.principal and "done" not in dict(last.details)


@pytest.mark.parametrize("what", ["begin", "roll back"])
def test_a_key_that_is_revoked_on_the_way_leaves_the_suite_as_it_was(
    room: Room, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The keyring is told of a suite before the ledger has the step: without the step that is taken back."""
    entry = room.engine.registry.get("a/one")
    assert entry is not None
    keyring, number = room.engine.vault.keyring, 0
    if what == "roll back":
        (wave,) = room.rotate("suite", namespaces=["a/one"], suite="ChaCha20-Poly1305", wait=False)
        number = wave.id
    info, text = room.keys_create("operator", "admin", ["*"])
    session = room.engine.authenticate(text)
    before, waves = keyring.suite(entry.ns), room.rotation_status()
    begin_epoch, revoke = keyring.begin_epoch, [info.key_id]

    def revoked_meanwhile(*arguments: Any) -> int:
        while revoke:
            room.keys_revoke(revoke.pop())
        return begin_epoch(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(keyring, "begin_epoch", revoked_meanwhile)
        with pytest.raises(UnauthenticatedError):
            if what == "begin":
                session.rotate("suite", namespaces=["a/one"], suite="AES-256-GCM-SIV", wait=False)
            else:
                session.rotation_rollback(number, wait=False)
    assert not revoke
    assert keyring.suite(entry.ns) == before and room.rotation_status() == waves


def test_each_namespace_whose_rotation_is_begun_has_its_entry(room: Room) -> None:
    """One entry for each transaction: who, which namespace, why; the rotation by policy has one as well."""
    room.rotate(namespaces=["a/*"], wait=False, reason="yearly")
    told = [e for e in room.audit(limit=20) if e.reason == "rotate data: yearly"]
    assert [(e.namespaces, e.count, e.outcome) for e in told] == [
        (("a/one",), 1, "ok"),
        (("a/two",), 1, "ok"),
    ]
