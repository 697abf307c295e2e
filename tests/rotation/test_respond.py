"""The response to an exposed key, its drill and its signed report; the runbooks, each practised."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.rotation.rotated import NS, assert_all_there, fill, keys_in_use, ns_of, states

import strongroom
from strongroom.config import Config, KeysConfig, keys_directory, load_config, to_toml
from strongroom.engine import Room, _respond, _respond_master, add_recovery_key, prove_recovery
from strongroom.engine._respond_master import standing
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    KmsDeniedError,
    KmsRegionError,
    KmsUnavailableError,
    StorageBusyError,
    TamperedError,
    UnauthenticatedError,
    UnwrapError,
)
from strongroom.identity import create_local_ca
from strongroom.keyring import KeyState
from strongroom.keyring._book import Book
from strongroom.kms import LocalKeystore, RecoveryKey, create_key_file
from strongroom.lifecycle import runbooks
from strongroom.lifecycle.response import verify_report
from strongroom.model import SYSTEM_NAME


def test_an_exposed_data_key(room: Room) -> None:
    """What it sealed is sealed anew, it is destroyed, the others are as they were; the report verifies."""
    wanted = fill(room, 24)
    victim = max(keys_in_use(room))
    others = keys_in_use(room) - {victim}
    report = room.respond_key_compromise(f"data:{victim}", reason="found on a paste site")
    assert report.outcome == "done" and report.coverage["records_under_exposed_keys"] == 0
    assert report.coverage["records"] > 0 and report.coverage["keys_destroyed"] == 1
    assert states(room)[victim] == KeyState.DESTROYED
    assert {states(room)[k] for k in others} == {KeyState.ACTIVE}
    assert_all_there(room, wanted)
    verified = verify_report(report.document, room.respond_keys())
    assert verified.report["coverage"] == dict(report.coverage) and not verified.own_keys
    assert "paste site" in verified.report["reason"]
    changes = [c.change for c in room.keyring_history(f"data:{victim}")]
    assert changes == ["rotated", "destroyed"]


def test_an_exposed_namespace_key(room: Room) -> None:
    """The namespace key and every data key below are replaced; nothing is left under one of them."""
    wanted = fill(room, 24)
    before = keys_in_use(room)
    report = room.respond_key_compromise(f"namespace:{NS}")
    assert report.coverage["records_under_exposed_keys"] == 0
    assert report.coverage["records_opened"] == report.coverage["records"] >= 48
    assert not keys_in_use(room) & before
    versions = [r for r in room.engine.vault.keyring.list_namespaces() if r.ns == ns_of(room)]
    assert [r.state for r in versions] == [KeyState.DESTROYED, KeyState.ACTIVE]
    assert report.left == () and report.coverage["purpose_roots_renewed"] == 1
    assert_all_there(room, wanted)


def test_the_stores_own_keys_take_the_api_keys_with_them(room: Room, open_room: OpenRoom) -> None:
    """After an exposure of the system namespace every API key is revoked, and the store opens again."""
    wanted = fill(room, 8)
    _, text = room.keys_create("agent", "read-only", [NS])
    report = room.respond_key_compromise(f"namespace:{SYSTEM_NAME}")
    assert report.coverage["credentials_revoked"] == 1
    with pytest.raises(UnauthenticatedError):
        room.engine.authenticate(text)
    assert any("signed the audit log" in text for text in report.left)
    room.close()
    assert_all_there(open_room(), wanted)


def test_credentials_of_a_namespace_on_demand(room: Room) -> None:
    """With revoke_credentials the API keys that reach the namespace are revoked, and no other."""
    fill(room, 4)
    mine, _ = room.keys_create("mine", "read-only", [NS])
    other, _ = room.keys_create("other", "read-only", ["b/*"])
    room.respond_key_compromise(f"namespace:{NS}", revoke_credentials=True)
    assert {k.key_id: k.revoked_at is not None for k in room.keys_list()} == {
        mine.key_id: True,
        other.key_id: False,
    }


def test_an_exposed_key_file_needs_another_provider(room: Room) -> None:
    """The key file of a local keystore has no next version: the response says what to name."""
    fill(room, 4)
    (master,) = [k for k in room.keyring_list() if k.kind == "master"]
    with pytest.raises(InvalidInputError, match="no next version"):
        room.respond_key_compromise(master.id)
    with pytest.raises(InvalidInputError):
        room.respond_key_compromise(f"namespace:{NS}", to=["elsewhere"])
    assert len(room.rotation_status()) == 0


def test_a_dry_run_changes_nothing(room: Room) -> None:
    """It tells namespaces, counts and keys, and leaves every key and record as it was."""
    wanted = fill(room, 16)
    before, used = states(room), keys_in_use(room)
    report = room.respond_key_compromise(f"namespace:{NS}", dry_run=True)
    assert report.outcome == "planned" and report.seconds == 0.0
    counts = {s.what: s.count for s in report.steps}
    assert counts["records sealed anew"] >= 32 and counts["exposed data keys destroyed"] == len(used)
    assert states(room) == before and keys_in_use(room) == used
    assert_all_there(room, wanted)


def test_a_drill_happens_on_a_copy(room: Room, tmp_path: Path) -> None:
    """The copy goes through all of it and is gone; the store is untouched; the report says it was a drill."""
    wanted = fill(room, 24)
    before = states(room)
    place = tmp_path / "drill"
    place.mkdir()
    report = room.respond_drill(f"namespace:{NS}", place=place)
    assert report.drill and report.coverage["records"] >= 48
    assert report.coverage["records_under_exposed_keys"] == 0
    assert verify_report(report.document, room.respond_keys()).report["drill"] is True
    assert states(room) == before and list(place.iterdir()) == []
    assert_all_there(room, wanted)
    _, text = room.keys_create("a", "admin", ["*"])
    with pytest.raises(AccessDeniedError):
        room.engine.authenticate(text).respond_drill(f"namespace:{NS}")


def test_a_response_that_was_interrupted_goes_on(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """When sealing anew fails half-way, the same command ends what was begun."""
    wanted = fill(room, 40)
    waves = room.engine.rotations.waves
    batch, calls = waves._batch, []

    def failing(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KmsUnavailableError("no answer")
        return batch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(waves, "_batch", failing)
    with pytest.raises(KmsUnavailableError):
        room.respond_key_compromise(f"namespace:{NS}")
    assert_all_there(room, wanted)
    report = room.respond_key_compromise(f"namespace:{NS}")
    assert report.coverage["records_under_exposed_keys"] == 0
    assert room.rotation_status() == []
    assert_all_there(room, wanted)


def test_an_open_rotation_is_in_the_way_and_said_so(room: Room) -> None:
    """The response does not guess what to do with a rotation that somebody has begun."""
    fill(room, 4)
    room.rotate("data", namespaces=[NS])
    with pytest.raises(ConflictError, match="not ended"):
        room.respond_key_compromise(f"namespace:{NS}")


def test_changed_reports_are_refused(room: Room) -> None:
    """Any change of what was done, of the note or of the keys shows; so do foreign keys and nonsense."""
    fill(room, 4)
    document = room.respond_key_compromise(f"namespace:{NS}", dry_run=True).document
    keys = room.respond_keys()
    assert verify_report(document).own_keys
    whole = json.loads(document)
    forged = []
    for name, value in (("outcome", "done"), ("seconds", 1.0), ("store_id", str(__import__("uuid").uuid4()))):
        changed = json.loads(document)
        changed["report"][name] = value
        forged.append(changed)
    for text in map(json.dumps, forged):
        with pytest.raises(TamperedError):
            verify_report(text, keys)
    whole["note"] = room.audit_checkpoint().note  # a checkpoint of the audit log is no signature of a report
    with pytest.raises((TamperedError, IntegrityError)):
        verify_report(json.dumps(whole), keys)
    with pytest.raises(TamperedError):
        verify_report(document, room.audit_key())
    for nonsense in ("", "[]", "{}", '{"report": 1, "note": "", "keys": []}', "\x00"):
        with pytest.raises(IntegrityError):
            verify_report(nonsense, keys)


# -- runbooks ---------------------------------------------------------------------------------------------
def found(book: runbooks.Runbook) -> list[str]:
    return [s.state for s in book.steps]


def test_lost_key(data: Path, open_room: OpenRoom, tmp_path: Path) -> None:
    """A lost key file and keyring come back from the backup, never over what is there, and all opens."""
    room = open_room()
    wanted = fill(room, 4)
    room.close()
    keys = data.with_name("data.keys")
    assert runbooks.lost_key(data, dry_run=True).ok
    backup = tmp_path / "backup"
    shutil.copytree(keys, backup)
    for name in ("master.key", "keyring.db"):
        (keys / name).unlink()
        assert "found" in found(runbooks.lost_key(data, dry_run=False))
        assert "planned" in found(runbooks.lost_key(data, dry_run=True, source=backup))
        assert not (keys / name).exists()
        book = runbooks.lost_key(data, dry_run=False, source=backup)
        assert book.ok and (keys / name).stat().st_mode & 0o777 == 0o600
        assert "namespaces, 0 findings" in book.steps[-2].detail
    assert_all_there(open_room(), wanted)


@pytest.mark.parametrize("what", ["of another store", "damaged"])
def test_a_key_file_that_is_not_ours(data: Path, open_room: OpenRoom, tmp_path: Path, what: str) -> None:
    """One of another store, or a damaged one, is set aside, kept, and the right one comes from the backup."""
    room = open_room()
    wanted = fill(room, 4)
    room.close()
    keys, backup = data.with_name("data.keys"), tmp_path / "backup"
    shutil.copytree(keys, backup)
    strongroom.init(tmp_path / "other", config=load_config(data))
    foreign = (tmp_path / "other.keys" / "master.key").read_bytes()
    foreign = foreign if what == "of another store" else b"nothing"
    (keys / "master.key").write_bytes(foreign)
    assert "found" in found(runbooks.lost_key(data, dry_run=False))
    assert "planned" in found(runbooks.lost_key(data, dry_run=True, source=backup))
    assert (keys / "master.key").read_bytes() == foreign
    assert runbooks.lost_key(data, dry_run=False, source=backup).ok
    assert (keys / "master.key.set-aside-1").read_bytes() == foreign
    assert_all_there(open_room(), wanted)


def test_a_keyring_comes_back_with_the_log_of_its_backup(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """A backup that was taken while the store was in use has its newest keys in the log: they come too."""
    room = open_room()
    fill(room, 1)
    keys, backup = data.with_name("data.keys"), tmp_path / "backup"
    older = tmp_path / "older"
    shutil.copytree(keys, older)
    wanted = fill(room, 16, "a/late")
    shutil.copytree(keys, backup)
    assert (backup / "keyring.db-wal").stat().st_size
    room.close()
    (keys / "keyring.db").unlink()
    (keys / "keyring.db-wal").write_bytes((backup / "keyring.db-wal").read_bytes())
    book = runbooks.lost_key(data, dry_run=False, source=backup)
    assert not book.ok and "still there" in book.steps[-1].detail
    assert not (keys / "keyring.db").exists()
    (keys / "keyring.db-wal").unlink()
    assert runbooks.lost_key(data, dry_run=False, source=backup).ok
    assert [p.name for p in keys.glob("*keyring*")] == ["keyring.db"]
    assert_all_there(open_room(), wanted, "a/late")


def test_a_keyring_that_is_older_than_the_data(data: Path, open_room: OpenRoom, tmp_path: Path) -> None:
    """It is told, and no number is given twice: the newer backup that is found later opens all of it."""
    room = open_room()
    first = room.store("first", namespace="a/late")
    before = states(room)
    room.close()
    keys, older = data.with_name("data.keys"), tmp_path / "older"
    shutil.copytree(keys, older)
    room = open_room()
    wanted = fill(room, 16, "a/late") | {first.memory_id: first.content}
    fill(room, 1, "b/lost")
    high, lost = max(states(room)), ns_of(room, "b/lost")
    room.close()
    newest = (keys / "keyring.db").read_bytes()
    (keys / "keyring.db").unlink()
    book = runbooks.lost_key(data, dry_run=False, source=older)
    assert not book.ok and book.steps[-1].state == "found"
    assert "keys are not in it" in book.steps[-1].detail
    room = open_room()
    late = room.store("late", namespace="a/late", subject="user:late")
    assert room.get(late.memory_id, namespace="a/late").content == "late"
    assert min(n for n in states(room) if n not in before) > high
    room.store("another", namespace="b/new")
    assert ns_of(room, "b/new") == lost + 1
    (rotation,) = room.rotate("data", namespaces=["a/late"])
    assert rotation.state == "moved" and not rotation.error, "what does not open stays where it is"
    room.rotation_rollback(rotation.id)
    room.delete(late.memory_id, namespace="a/late")
    room.close()
    (keys / "keyring.db").write_bytes(newest)
    room = open_room()
    for memory_id, content in wanted.items():
        assert room.get(memory_id, namespace="a/late").content == content


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Lets the key management service refuse."""
    now: list[Exception | None] = [None]
    for name in ("wrap", "unwrap"):
        original = getattr(LocalKeystore, name)

        def call(kms: LocalKeystore, *args: object, original: Callable[..., object] = original) -> object:
            if now[0] is not None:
                raise now[0]
            return original(kms, *args)

        monkeypatch.setattr(LocalKeystore, name, call)
    return lambda error: now.__setitem__(0, error)


def test_kms_denied(data: Path, refusing: Callable[[Exception | None], None]) -> None:
    """While it refuses, the runbook shows the policy needed; afterwards it proves that all is reached."""
    refusing(KmsDeniedError("not allowed"))
    book = runbooks.kms_denied(data, dry_run=False)
    assert not book.ok and "kms_denied" in book.steps[0].detail and book.steps[-1].state == "planned"
    refusing(None)
    assert runbooks.kms_denied(data, dry_run=False).ok


def test_kms_outage(data: Path, refusing: Callable[[Exception | None], None]) -> None:
    """Without an answer it says how long processes go on and who else unwraps; with one it proves it."""
    refusing(KmsUnavailableError("no answer"))
    book = runbooks.kms_outage(data, dry_run=False)
    assert not book.ok and any("7200 s" in s.detail for s in book.steps)
    assert book.steps[-1].hint
    refusing(None)
    assert runbooks.kms_outage(data, dry_run=False).ok


@pytest.mark.parametrize("runbook", [runbooks.kms_denied, runbooks.kms_outage])
def test_a_dry_run_of_a_runbook_opens_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, runbook: Callable[..., runbooks.Runbook]
) -> None:
    """It looks and stops there; without it every namespace key is unwrapped."""
    opened: list[object] = []
    monkeypatch.setattr(runbooks, "_open_everything", lambda *args: opened.append(args))
    assert runbook(data, dry_run=True).dry_run and opened == []
    runbook(data, dry_run=False)
    assert len(opened) == 1


def test_wrong_region(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that works is tried, then written down; the file before is kept; dry runs write nothing."""
    assert runbooks.wrong_region(data, dry_run=False).ok  # a key file has no region
    aws = KeysConfig(provider="aws", key="alias/strongroom", region="eu-west-1")
    before = load_config(data)
    from dataclasses import replace

    runbooks._write_config(data, replace(before, keys=aws))

    class InFrankfurt:
        def __init__(self, config: KeysConfig) -> None:
            self.region = config.region

        def findings(self) -> list[object]:
            return [] if self.region == "eu-central-1" else [self]

    from strongroom.model import Finding, Severity

    def proof(directory: Path, config: Config) -> tuple[Finding, ...]:
        if config.keys.region == "eu-central-1":
            return ()
        return (Finding(Severity.ERROR, KmsRegionError.code, "another region", "wrap", None),)

    monkeypatch.setattr(runbooks, "_proof", proof)
    opened: list[Config] = []
    monkeypatch.setattr(runbooks, "_open_everything", lambda book, directory, config: opened.append(config))
    assert not runbooks.wrong_region(data, dry_run=False).ok
    assert not runbooks.wrong_region(data, dry_run=False, region="us-east-1").ok
    assert "planned" in found(runbooks.wrong_region(data, dry_run=True, region="eu-central-1"))
    assert load_config(data).keys.region == "eu-west-1"
    assert runbooks.wrong_region(data, dry_run=False, region="eu-central-1").ok
    assert load_config(data).keys.region == "eu-central-1" and len(opened) == 1
    assert 'region = "eu-west-1"' in (data / "strongroom.toml.before").read_text()


def test_expired_certificate(data: Path) -> None:
    """An expired server certificate is made anew for the same hosts; a good one is left alone."""
    tls = data.with_name("data.keys") / "tls"
    long_ago = datetime.now(UTC) - timedelta(days=3000)
    shutil.rmtree(tls, ignore_errors=True)
    create_local_ca(tls, ["memory.example"])
    assert runbooks.expired_certificate(data, dry_run=False).ok
    later = datetime.now(UTC) + timedelta(days=390)
    before = (tls / "server.pem").read_bytes()
    book = runbooks.expired_certificate(data, dry_run=True, now=later)
    assert not book.ok and (tls / "server.pem").read_bytes() == before
    book = runbooks.expired_certificate(data, dry_run=False, now=later)
    assert book.ok and (tls / "server.pem").read_bytes() != before
    from strongroom.identity import certificate_info

    info = certificate_info(tls / "server.pem")
    assert "memory.example" in info.hosts and info.not_after > later
    assert long_ago < info.not_before
    (tls / "ca.key").unlink()
    (tls / "server.pem").unlink()
    assert not runbooks.expired_certificate(data, dry_run=False).ok


def with_two_key_files(room: Room, open_room: OpenRoom) -> tuple[Room, str]:
    """The store again, with a second key file that nothing is under yet; and the address of the first one."""
    directory = room.engine.directory
    (master,) = [k for k in room.keyring_list() if k.kind == "master"]
    room.close()
    config = load_config(directory)
    providers = {"fresh": KeysConfig(provider="local", key_file="fresh.key")}
    config = dataclasses.replace(config, key_providers=providers)
    (directory / "strongroom.toml").write_text(to_toml(config))
    room = open_room()
    create_key_file(config, "fresh", keys_directory(directory, config), room.engine.ledger.store_id)
    return room, master.id


STOPS = ("rewrap_namespace", "renew_version", "rewrap_data_keys", "rotate_keys", "destroy_keys", "revoke")


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_response_to_a_master_key_goes_on_wherever_it_was_interrupted(
    stop: str, nth: int, room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing is under the exposed key any more: no old key is left, API keys are revoked."""
    wanted, others = fill(room, 8), fill(room, 8, "b/other")
    _, text = room.keys_create("agent", "read-only", [NS])
    room, exposed = with_two_key_files(room, open_room)
    keyring = room.engine.vault.keyring
    before, calls = states(room), []
    place, name = (room.engine.registry, "write_credential") if stop == "revoke" else (keyring, stop)
    real = getattr(place, name)

    def failing(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == (1 if stop == "revoke" else nth):
            raise KmsUnavailableError("killed here")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, failing)
        with pytest.raises(KmsUnavailableError):
            room.respond_key_compromise(exposed, to=["fresh"])
    room.close()
    room = open_room()
    report = room.respond_key_compromise(exposed, to=["fresh"])
    assert report.outcome == "done" and report.coverage["records_under_exposed_keys"] == 0
    assert room.rotation_status() == []
    roles = {k.id: k.role for k in room.keyring_list()}
    alive = {n for n in before if states(room)[n] != KeyState.DESTROYED}
    assert all(roles[f"data:{n}"] for n in alive), "an exposed data key is left that nothing has to keep"
    with pytest.raises(UnauthenticatedError):
        room.engine.authenticate(text)
    assert any("still names the exposed key" in t for t in report.left)
    assert_all_there(room, wanted)
    assert_all_there(room, others, "b/other")
    with pytest.raises(InvalidInputError, match="wraps nothing any more"):
        room.respond_key_compromise(exposed, to=["fresh"])


def test_keys_that_were_destroyed_before_a_failure_are_not_in_the_log_of_the_keyring(
    room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One namespace of many that fails, perhaps each time, does not leave those of the others in it."""
    fill(room, 2)
    fill(room, 2, "b/other")
    room, exposed = with_two_key_files(room, open_room)
    keyring, ends = room.engine.vault.keyring, []
    end_roots = keyring.end_roots

    def failing(*args: Any, **options: Any) -> int:
        if ends:
            raise KmsUnavailableError("killed here")
        ends.append(1)
        return end_roots(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(keyring, "end_roots", failing)
        with pytest.raises(KmsUnavailableError, match="killed here"):
            room.respond_key_compromise(exposed, to=["fresh"])
    log = room.engine.directory.with_name("data.keys") / "keyring.db-wal"
    assert KeyState.DESTROYED in states(room).values() and log.stat().st_size == 0


def test_a_report_that_could_not_be_made_is_made_by_a_repetition(
    room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is done, and the store cannot be read any more: that is not the end of the response."""
    wanted = fill(room, 4)
    room, exposed = with_two_key_files(room, open_room)

    def unreadable(*_: object) -> None:
        raise StorageBusyError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(_respond, "_signer", unreadable)
        with pytest.raises(StorageBusyError):
            room.respond_key_compromise(exposed, to=["fresh"])
    report = room.respond_key_compromise(exposed, to=["fresh"])
    assert report.outcome == "done" and "namespaces" not in report.coverage
    assert verify_report(report.document, room.respond_keys()).report["key"] == exposed
    assert_all_there(room, wanted)


def test_a_response_that_revokes_its_own_callers_key_ends_with_its_report(
    room: Room, open_room: OpenRoom
) -> None:
    """An admin responds to the master key: every API key goes, its own with them, and the report comes."""
    fill(room, 4)
    room, exposed = with_two_key_files(room, open_room)
    admin = room.engine.authenticate(room.keys_create("admin", "admin", ["*"])[1])
    report = admin.respond_key_compromise(exposed, to=["fresh"])
    assert report.outcome == "done" and report.coverage["credentials_revoked"] == 1
    with pytest.raises(UnauthenticatedError):
        admin.whoami()
    last = [e for e in room.audit(limit=20) if e.action == "respond" and e.outcome == "ok"][-1]
    assert last.count == report.coverage["records"]


@pytest.mark.parametrize("stop", ["rewrap_data_keys", "compact", "renew_root", "end_roots"])
def test_a_response_to_many_namespaces_writes_the_keyring_once_and_goes_on_behind_what_is_done(
    stop: str, room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed among the keys or among the records: what has its new key or is done is not done again."""
    names = [f"team/{n}" for n in range(6)]
    wanted = {name: fill(room, 2, name) for name in names}
    room, exposed = with_two_key_files(room, open_room)
    before, calls = states(room), dict.fromkeys(("renew_version", "renew_root", stop), 0)
    spaces = len(names) + 1 + (room.engine.registry.get(NS) is not None)

    def counting(keyring: object, name: str, dies_at: int) -> None:
        place = Book if name == "compact" else keyring
        real = getattr(place, name)

        def act(*args: object, **options: object) -> object:
            calls[name] += 1
            if calls[name] == dies_at:
                raise StorageBusyError("killed here")
            return real(*args, **options)

        monkeypatch.setattr(place, name, act)

    for name in calls:
        nth = 1 if name == "compact" else 4
        counting(room.engine.vault.keyring, name, dies_at=nth if name == stop else 0)
    told: list[str] = []
    with pytest.raises(StorageBusyError):
        room.respond_key_compromise(exposed, to=["fresh"], progress=told.append)
    first = dict(calls)
    room.close()
    monkeypatch.undo()
    room = open_room()
    calls.update(dict.fromkeys(calls, 0), compact=0)
    for name in calls:
        counting(room.engine.vault.keyring, name, dies_at=0)
    report = room.respond_key_compromise(exposed, to=["fresh"])
    monkeypatch.undo()
    among_keys = stop == "rewrap_data_keys"
    assert first["renew_version"] + calls["renew_version"] == spaces
    done = 3 if stop in ("renew_root", "end_roots") else 0
    assert first["renew_root"] + calls["renew_root"] == spaces + (1 if done else 0)
    assert calls["compact"] <= 1 and (calls["compact"] == 1) is (among_keys or stop == "compact")
    assert report.coverage.get("namespaces_done_before", 0) == done
    assert report.coverage["namespaces"] == spaces - done
    assert report.coverage["records_under_exposed_keys"] == 0 and room.rotation_status() == []
    roles = {k.id: k.role for k in room.keyring_list()}
    assert all(roles[f"data:{n}"] for n in before if states(room)[n] != KeyState.DESTROYED)
    assert all(not room.engine.vault.keyring.versions_left(n) for n in room.engine.ledger.namespaces())
    for name in names:
        assert_all_there(room, wanted[name], name)


def test_a_response_that_was_begun_long_ago_is_not_gone_on_with(
    room: Room, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key may have been exposed once more since: after a day everything is replaced again."""
    fill(room, 2)
    room, exposed = with_two_key_files(room, open_room)
    keyring = room.engine.vault.keyring
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "note_each", _failing_at(keyring.note_each, "replaced"))
        with pytest.raises(StorageBusyError):
            room.respond_key_compromise(exposed, to=["fresh"])
    uri = exposed.partition(":")[2]
    assert len(standing(room.engine, uri).done) == len(standing(room.engine, uri).spaces)
    monkeypatch.setattr(_respond_master, "_GOES_ON", timedelta(0))
    report = room.respond_key_compromise(exposed, to=["fresh"])
    assert "namespaces_done_before" not in report.coverage and report.coverage["namespaces"] >= 2


def _failing_at(real: Callable[..., None], change: str) -> Callable[..., None]:
    def note_each(kind: str, what: str, *rest: Any) -> None:
        if what == change:
            raise StorageBusyError("killed here")
        real(kind, what, *rest)

    return note_each


def test_an_exposed_key_does_not_take_its_own_place(room: Room, open_room: OpenRoom) -> None:
    """A response that would put everything under the exposed key file again is refused before it begins."""
    fill(room, 4)
    room, exposed = with_two_key_files(room, open_room)
    for to in (["default"], ["fresh", "default"]):
        with pytest.raises(InvalidInputError, match="exposed key itself"):
            room.respond_key_compromise(exposed, to=to)
        with pytest.raises(InvalidInputError, match="exposed key itself"):
            room.respond_key_compromise(exposed, to=to, dry_run=True)
    assert [k.id for k in room.keyring_list() if k.kind == "master"] == [exposed]


def test_an_exposed_recovery_key_is_taken_out_of_the_configuration_first(
    room: Room, open_room: OpenRoom
) -> None:
    """While new keys would be wrapped to it the response is refused; afterwards nothing is under it."""
    wanted = fill(room, 8)
    directory = room.engine.directory
    room.close()
    recovery = RecoveryKey.generate()
    without = (directory / "strongroom.toml").read_text()
    add_recovery_key(directory, recovery.recipient.text)
    room = open_room()
    room.escrow_add()
    exposed = f"master:{recovery.describe().key_uri}"
    with pytest.raises(InvalidInputError, match="wrapped to this recovery key"):
        room.respond_key_compromise(exposed)
    room.close()
    (directory / "strongroom.toml").write_text(without)
    room = open_room()
    before = keys_in_use(room)
    report = room.respond_key_compromise(exposed)
    assert report.outcome == "done" and not keys_in_use(room) & before
    assert exposed not in {k.id for k in room.keyring_list() if k.kind == "master"}
    assert_all_there(room, wanted)
    room.close()
    with pytest.raises(UnwrapError):
        prove_recovery(directory, recovery)


def test_a_drill_does_what_the_response_would(room: Room, tmp_path: Path) -> None:
    """Its reason and the revocation of credentials go into the practice, and nowhere else."""
    fill(room, 4)
    room.keys_create("mine", "read-only", [NS])
    report = room.respond_drill(
        f"namespace:{NS}", reason="a lost laptop", revoke_credentials=True, place=tmp_path
    )
    assert report.coverage["credentials_revoked"] == 1
    assert "a lost laptop" in verify_report(report.document).report["reason"]
    assert [k.revoked_at for k in room.keys_list()] == [None]
