"""New keys for the audit log: announced, handed over; what was signed before still verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.engine.conftest import OpenRoom
from tests.rotation.rotated import fill

from strongroom.audit import verify as offline
from strongroom.audit.verify import parse_keys, verify_consistency, verify_export, verify_key_change
from strongroom.cli._main import cli
from strongroom.engine import Room
from strongroom.errors import AccessDeniedError, IntegrityError, InvalidInputError, TamperedError
from strongroom.lifecycle.response import verify_report
from strongroom.model import SYSTEM_NAME


def keys_of(room: Room) -> tuple[offline.VerifierKey, ...]:
    return parse_keys("\n".join(room.audit_key()))


def exported(room: Room) -> list[bytes]:
    lines: list[str] = []
    room.audit_export(lines.append)
    return "".join(lines).encode().splitlines(keepends=True)


def compromise(room: Room) -> None:
    report = room.respond_key_compromise(f"namespace:{SYSTEM_NAME}")
    assert report.coverage["signing_keys_renewed"] == 2
    verify_report(report.document, room.respond_keys())


def test_the_keys_are_others_and_what_was_signed_before_still_verifies(room: Room) -> None:
    """Heads kept from before fit the log under the keys of then, its present end under those of now alone."""
    fill(room, 4)
    before, head = keys_of(room), room.audit_checkpoint()
    compromise(room)
    now = keys_of(room)
    assert not set(now) & set(before)
    export = exported(room)
    assert verify_export(export, now, [head.note], [before]).heads == 1
    proof = json.dumps(_document(room, head.size)).encode()
    assert verify_consistency(proof, now, head.note, [before]).heads == 1
    for keys, former in ((now, ()), (before, ()), (before, (now,))):
        with pytest.raises(TamperedError):
            verify_export(export, keys, [head.note], former)


def _document(room: Room, size: int) -> dict[str, object]:
    import base64

    from strongroom.audit import as_json  # noqa: F401 - the same form as the command writes

    found = room.audit_consistency(size)
    encode = lambda raw: base64.b64encode(raw).decode()  # noqa: E731
    return {
        "format": offline.CONSISTENCY_FORMAT,
        "old_size": size,
        "old_root": encode(found.old_root),
        "hashes": [encode(h) for h in found.hashes],
        "checkpoint": found.checkpoint.note,
    }


def test_a_change_is_signed_by_both_and_announced_in_the_log(room: Room) -> None:
    """The document verifies with the keys before, says that they were exposed, and its hash is in the log."""
    import hashlib

    before = keys_of(room)
    assert room.audit_key_changes() == ()
    compromise(room)
    (document,) = room.audit_key_changes()
    change = verify_key_change(document.encode(), before)
    assert change.after == room.audit_key() and change.compromised
    digest = hashlib.sha256(document.encode()).hexdigest()
    assert any(digest in e.reason for e in room.audit(limit=1000))
    with pytest.raises(TamperedError):
        verify_key_change(document.encode(), keys_of(room))
    for name, value in (("size", 1), ("compromised", False), ("after", list(room.respond_keys()))):
        forged = {**json.loads(document), name: value}
        with pytest.raises(TamperedError):
            verify_key_change(json.dumps(forged).encode(), before)
    for nonsense in ({"notes": []}, {"before": "x"}, {"size": True}, {"format": "x"}):
        with pytest.raises(IntegrityError):
            verify_key_change(json.dumps({**json.loads(document), **nonsense}).encode(), before)


def test_a_chain_of_changes_survives_a_restart(room: Room, open_room: OpenRoom) -> None:
    """Each change verifies with the keys that the one before it brought."""
    keys = keys_of(room)
    for _ in range(2):
        compromise(room)
    room.close()
    room = open_room()
    documents = room.audit_key_changes()
    assert len(documents) == 2
    for document in documents:
        keys = parse_keys("\n".join(verify_key_change(document.encode(), keys).after))
    assert keys == keys_of(room)


def test_another_process_signs_with_the_new_keys_at_once(room: Room, open_room: OpenRoom) -> None:
    """A signer that was made before the change is not used after it."""
    other = open_room()
    before = keys_of(other)
    compromise(room)
    assert keys_of(other) == keys_of(room) != before
    offline.open_checkpoint(other.audit_checkpoint().note, keys_of(room))
    other.close()


def test_a_file_of_heads_from_before_is_still_evidence(room: Room, tmp_path: Path) -> None:
    """A head that former keys have signed is compared with the log, and a log that differs is found."""
    log = room.engine.audit_log
    fill(room, 4)
    note = room.audit_checkpoint().note
    compromise(room)
    assert log._is_beginning(note)
    log.root = lambda size: bytes(32)  # type: ignore[method-assign]
    assert not log._is_beginning(note)


def test_on_the_command_line(data: Path, open_room: OpenRoom, tmp_path: Path) -> None:
    """Keys before, changes, keys after: each is printed and verified by the commands."""
    runner = CliRunner()
    run = lambda *a: runner.invoke(cli, [str(x) for x in a])  # noqa: E731
    before, change, after = tmp_path / "before", tmp_path / "change", tmp_path / "after"
    before.write_text(run("--data", data, "audit", "key").stdout)
    head = tmp_path / "head"
    head.write_text(run("--data", data, "audit", "checkpoint").stdout)
    room = open_room()
    compromise(room)
    room.close()
    change.write_text(run("--data", data, "audit", "key", "--changes").stdout)
    shown = run("audit", "verify", change, "--key", before)
    assert shown.exit_code == 0 and "exposed" in shown.stderr
    for extra in ("--head", "--former-key"):
        refused = run(
            "audit", "verify", change, "--key", before, extra, head if extra == "--head" else before
        )
        assert refused.exit_code == 2 and "go with an export" in refused.stderr
    after.write_text(shown.stdout)
    assert after.read_text() == run("--data", data, "audit", "key").stdout
    export = tmp_path / "export"
    assert run("--data", data, "audit", "export", export).exit_code == 0
    assert run("audit", "verify", export, "--key", after, "--head", head).exit_code == 8
    found = run("audit", "verify", export, "--key", after, "--head", head, "--former-key", before)
    assert found.exit_code == 0


def test_keys_change_without_a_compromise(room: Room, open_room: OpenRoom) -> None:
    """It says that nothing was exposed, one entry names it, and API keys and heads stay valid."""
    import hashlib

    fill(room, 2)
    _, text = room.keys_create("agent", "read-only", ["*"])
    before, head, size = keys_of(room), room.audit_checkpoint(), len(room.audit(limit=1000))
    document = room.rotate_audit(reason="yearly")
    assert room.audit_key_changes() == (document,)
    change = verify_key_change(document.encode(), before)
    assert change.after == room.audit_key() and not change.compromised
    said = [e for e in room.audit(limit=1000)[size:] if e.action == "rotate"]
    assert len(said) == 1 and said[0].outcome == "ok"
    digest = hashlib.sha256(document.encode()).hexdigest()
    assert said[0].reason.startswith("rotate audit: yearly; ") and digest in said[0].reason
    assert verify_export(exported(room), keys_of(room), [head.note], [before]).heads == 1
    reader = room.engine.authenticate(text)
    assert reader.list(namespaces=["*"]).memories
    with pytest.raises(AccessDeniedError):
        reader.rotate_audit()
    with pytest.raises(InvalidInputError):
        room.rotate_audit(reason="x" * 513)
    assert room.audit_key_changes() == (document,)


def test_two_processes_change_the_keys_one_after_the_other(room: Room, open_room: OpenRoom) -> None:
    """Whoever comes second hands over from the keys of the first: one chain, whoever asks."""
    other, keys = open_room(), keys_of(room)
    other.audit_key()
    made = [room.rotate_audit(), other.rotate_audit(), room.rotate_audit()]
    assert list(other.audit_key_changes()) == made
    for document in made:
        keys = parse_keys("\n".join(verify_key_change(document.encode(), keys).after))
    assert keys == keys_of(room) == keys_of(other)


def test_a_planned_change_on_the_command_line(data: Path, open_room: OpenRoom, tmp_path: Path) -> None:
    """As in the manual: the document, verified with the keys before, gives those that verify the log."""
    open_room().close()
    runner = CliRunner()
    run = lambda *a: runner.invoke(cli, [str(x) for x in a])  # noqa: E731
    before, changes, after, export = (tmp_path / n for n in ("before", "changes", "after", "export"))
    before.write_text(run("--data", data, "audit", "key").stdout)
    lines = [run("--data", data, "rotate", "audit", "--reason", "yearly").stdout for _ in range(2)]
    changes.write_text("".join(lines))
    assert changes.read_text() == run("--data", data, "audit", "key", "--changes").stdout
    shown = run("audit", "verify", changes, "--key", before)
    assert shown.exit_code == 0 and "exposed" not in shown.stderr
    after.write_text(shown.stdout)
    assert run("--data", data, "audit", "export", export).exit_code == 0
    assert run("audit", "verify", export, "--key", after).exit_code == 0
    assert run("audit", "verify", export, "--key", before).exit_code == 8
