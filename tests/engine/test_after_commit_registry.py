"""Keys, namespaces, certificates, elevations, rotations: no error behind a commit hides what is done."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.engine.conftest import OpenRoom
from tests.servers.mutual import new_request
from tests.support.breaking import Breaking

from strongroom.config import EmbeddingConfig, KeysConfig, keys_directory, load_config, to_toml
from strongroom.engine import Room, Session
from strongroom.errors import StorageError, StrongroomError, UnauthenticatedError
from strongroom.identity import create_client_authority
from strongroom.keyring import KeyState
from strongroom.kms import ImportRequest, create_key_file, wrap_material
from strongroom.model import ElevationState

TURNS = 12
NS = "a/first"


class Operation(NamedTuple):
    """``act`` does it for the ``n``-th time, ``done`` says whether that was done."""

    act: Callable[[int], Any]
    done: Callable[[int], bool]


@pytest.fixture
def room(open_room: OpenRoom, data: Path) -> Iterator[Room]:
    config = load_config(data)
    providers = {"other": KeysConfig(provider="local", key_file="other.key")}
    models = {"none": EmbeddingConfig(provider="none", dimensions=64)}
    config = dataclasses.replace(config, key_providers=providers, models=models)
    (data / "strongroom.toml").write_text(to_toml(config))
    room = open_room(worker=False)
    config = room.engine.config
    create_key_file(config, "other", keys_directory(data, config), room.engine.ledger.store_id)
    for n in range(TURNS + 1):
        room.store("something", namespace=f"a/n{n}", subject="user:1")
    room.store("something", namespace=NS)
    yield room
    room.close()


def agent_of(room: Room) -> Session:
    return room.engine.authenticate(room.keys_create("agent", "read-only", [NS])[1])


def namespaces(room: Room) -> Operation:
    found = lambda n: f"new/n{n}" in {i.name for i in room.namespaces()}  # noqa: E731
    return Operation(lambda n: room.create_namespace(f"new/n{n}"), found)


def settings(room: Room) -> Operation:
    def done(n: int) -> bool:
        (info,) = [i for i in room.namespaces() if i.name == f"a/n{n}"]
        return info.language == "german"

    return Operation(lambda n: room.update_namespace(f"a/n{n}", language="german"), done)


def services(room: Room) -> Operation:
    def done(n: int) -> bool:
        (found,) = [k for k in room.kms_status() if k.namespace == f"a/n{n}"]
        return found.providers == ("other",)

    return Operation(lambda n: room.update_namespace(f"a/n{n}", kms="other"), done)


def keys(room: Room) -> Operation:
    return Operation(
        lambda n: room.keys_create(f"key {n}", "read-only", [NS]),
        lambda n: f"key {n}" in {k.name for k in room.keys_list()},
    )


def revoked_keys(room: Room) -> Operation:
    made = [room.keys_create(f"key {n}", "read-only", [NS]) for n in range(TURNS + 1)]

    def done(n: int) -> bool:
        try:
            room.engine.authenticate(made[n][1])
        except UnauthenticatedError:
            return True
        return False

    return Operation(lambda n: room.keys_revoke(made[n][0].key_id), done)


def certificates(room: Room) -> Operation:
    create_client_authority(keys_directory(room.engine.directory, room.engine.config) / "tls")
    return Operation(
        lambda n: room.certificates_issue(
            new_request()[1], identity=f"dns:n{n}.example.org", name="x", scope="read-only", grants=[NS]
        ),
        lambda n: f"dns:n{n}.example.org" in {c.identity for c in room.certificates_list()},
    )


def revoked_serials(room: Room) -> Operation:
    def done(n: int) -> bool:
        return room.engine.registry.identities.revoked(f"{n + 16:x}") is not None

    return Operation(lambda n: room.certificates_revoke(serial=f"{n + 16:x}"), done)


def requests(room: Room) -> Operation:
    agents = [agent_of(room) for _ in range(TURNS + 1)]
    return Operation(
        lambda n: agents[n].elevations_request("read-write", [NS], f"reason {n}", minutes=5),
        lambda n: f"reason {n}" in {e.reason for e in room.elevations_list()},
    )


def approvals(room: Room) -> Operation:
    agents = [agent_of(room) for _ in range(TURNS + 1)]
    made = [a.elevations_request("read-write", [NS], "reason", minutes=5).id for a in agents]
    states = lambda: {e.id: e.state for e in room.elevations_list(all_states=True)}  # noqa: E731
    return Operation(
        lambda n: room.elevations_approve(made[n]), lambda n: states()[made[n]] is ElevationState.ACTIVE
    )


def signing_keys(room: Room) -> Operation:
    before = [0]

    def act(n: int) -> None:
        before[0] = len(room.audit_key_changes())
        room.rotate_audit()

    return Operation(act, lambda n: len(room.audit_key_changes()) > before[0])


def imports(room: Room) -> Operation:
    def material(n: int) -> tuple[str, str]:
        request = ImportRequest.parse(room.key_import_begin(f"new/n{n}"))
        return request.import_id, wrap_material(request, os.urandom(32))[0]

    made = [material(n) for n in range(TURNS + 1)]
    found = lambda n: f"new/n{n}" in {i.name for i in room.namespaces()}  # noqa: E731
    return Operation(lambda n: room.key_import_finish(*made[n]), found)


def rotations(room: Room) -> Operation:
    found = lambda n: f"a/n{n}" in {r.namespace for r in room.rotation_status()}  # noqa: E731
    return Operation(lambda n: room.rotate(namespaces=[f"a/n{n}"], wait=False), found)


def pauses(room: Room) -> Operation:
    made = [room.rotate(namespaces=[f"a/n{n}"], wait=False)[0].id for n in range(TURNS + 1)]
    paused = lambda: {r.id: r.paused for r in room.rotation_status()}  # noqa: E731
    return Operation(lambda n: room.rotation_pause(made[n]), lambda n: paused()[made[n]])


def disabled(room: Room) -> Operation:
    for n in range(TURNS + 1):
        room.rotate(namespaces=[f"a/n{n}"])
    keyring = room.engine.vault.keyring
    ns = [e.ns for e in room.engine.registry.entries() if e.name.startswith("a/n")]
    ids = [
        next(k.key_id for k in keyring.list_keys(n) if k.state == KeyState.DECRYPT_ONLY and k.subject)
        for n in ns
    ]
    state = lambda n: next(k.state for k in keyring.list_keys() if k.key_id == ids[n])  # noqa: E731
    return Operation(
        lambda n: room.keyring_disable(f"data:{ids[n]}"), lambda n: state(n) == KeyState.DISABLED
    )


def wrapped(room: Room) -> Operation:
    """Two at once: one is done, the other is not."""

    def done(n: int) -> bool:
        (found,) = [k for k in room.kms_status() if k.namespace == f"a/n{n}"]
        return found.providers == ("other",)

    return Operation(lambda n: room.rotate_master(namespaces=[f"a/n{n}", NS], to=["other"]), done)


ALL = (
    namespaces, settings, services, keys, revoked_keys, certificates, revoked_serials, requests, approvals,
    signing_keys, imports, rotations, pauses, disabled, wrapped,
)  # fmt: skip
ATOMIC = (
    namespaces, settings, keys, revoked_keys, certificates, revoked_serials, requests, approvals,
    signing_keys, imports,
)  # fmt: skip


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_whatever_fails_behind_a_commit_the_caller_knows_what_was_done(
    make: Callable[[Room], Operation], room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind each durable write of each in turn: it answers, or did nothing, or says what it did."""
    operation = make(room)
    operation.act(0)  # what is made once is there
    breaking = Breaking(monkeypatch)
    broke = told = 0
    for n in range(1, TURNS + 1):
        try:
            if not breaking.behind(n, lambda: operation.act(n)):  # noqa: B023
                break
            broke += 1
            assert operation.done(n), "it answered, and nothing is done"
        except StrongroomError as e:
            if operation.done(n):
                told += 1
                assert e.message.endswith(")"), f"behind write {n}: {e.message}"
    else:
        pytest.fail("more writes than turns")
    if make in ATOMIC:
        assert broke and not told, "an operation whose commit is one answers"
    room.engine.vault.keyring.refresh()
    assert room.check(read_data=True).ok


def test_what_is_made_is_known_at_once_and_entered_once(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key is refused and a new namespace is there although the registry could not be read anew."""
    info, text = room.keys_create("agent", "read-only", [NS])
    session = room.engine.authenticate(text)
    breaking = Breaking(monkeypatch)
    assert breaking.behind(1, lambda: room.keys_revoke(info.key_id))
    credential = room.engine.registry.credential(info.key_id)
    assert credential is not None and credential.revoked_at_us is not None
    with pytest.raises(UnauthenticatedError):
        session.whoami()
    before = len(room.audit(limit=500))
    made: list[Any] = []
    assert breaking.behind(2, lambda: made.append(room.create_namespace("new/one", sealed_in_memory=True)))
    assert made[0].sealed_in_memory and room.engine.registry.get("new/one") is not None
    entries = [(e.action, e.outcome, e.reason) for e in room.audit(limit=500)[before + 1 :]]
    assert entries == [("create_namespace", "ok", ""), ("administer", "ok", "create namespace")]
    room.store("found", namespace="new/one")
    assert room.stats(["new/one"]).memories == 1


def test_the_audit_entry_of_what_failed_says_what_was_done(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second namespace whose rotation cannot be begun: the entry names the one that was."""
    begin = room.engine.rotations.waves.begin

    def second_fails(ns: int, *rest: Any, **how: Any) -> int:
        if calls:
            raise StorageError
        calls.append(ns)
        return begin(ns, *rest, **how)

    calls: list[int] = []
    monkeypatch.setattr(room.engine.rotations.waves, "begin", second_fails)
    with pytest.raises(StorageError, match=r"\(rotation 1 is begun"):
        room.rotate(namespaces=["a/n1", "a/n2"], wait=False)
    (last,) = room.audit(limit=1)
    assert (last.outcome, last.count) == ("storage", 1)
    assert dict(last.details)["done"].startswith("rotation 1 is begun")


def test_a_namespace_that_could_not_be_queued_for_its_new_model_is_queued_when_it_is_next_used(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are committed, then the disk fails: it is told as done, and no memory stays without."""
    room.create_namespace("new/one", model="none")
    for n in range(3):
        room.store(f"memory {n}", namespace="new/one")
    assert Breaking(monkeypatch).behind(1, lambda: room.update_namespace("new/one", model="default"))
    (info,) = [i for i in room.namespaces() if i.name == "new/one"]
    assert (info.model, info.pending, info.embedded) == ("default", 0, 0)
    room.search("memory", namespaces=["new/one"], mode="keyword")
    assert room.stats(["new/one"]).pending == 3
