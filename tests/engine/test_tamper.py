"""Somebody writes into the database: every change of the truth is noticed, and gives one typed error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from tests.engine.conftest import OpenRoom, save_snapshot
from tests.support.database import ledger_file

import strongroom
from strongroom.errors import (
    DecryptionError,
    IntegrityError,
    KeyManagementError,
    KeyringMismatchError,
    KeyringMissingError,
    KeystoreMissingError,
    StorageError,
    StrongroomError,
    TamperedError,
)
from strongroom.model import Severity

NS = "company_a/support"


@pytest.fixture(params=["cold", "warm"])
def filled(request: pytest.FixtureRequest, open_room: OpenRoom) -> list[bytes]:
    """Ids of five embedded memories; the store is closed. Warm: a snapshot of the index is there."""
    room = open_room()
    ids = [room.store(f"memory number {i}", namespace=NS).memory_id.bytes for i in range(5)]
    room.flush()
    if request.param == "warm":
        save_snapshot(room, NS)
    room.close()
    return ids


def edit(data: Path, sql: str, *args: object) -> None:
    db = ledger_file(data)
    db.execute(sql, args)  # type: ignore[arg-type]
    db.close()


def rows(data: Path, memory_id: bytes, field: int = 0) -> tuple[object, ...]:
    db = ledger_file(data)
    found = db.execute("SELECT * FROM record WHERE memory_id=? AND field=?", (memory_id, field)).fetchone()
    db.close()
    return found  # type: ignore[return-value]


def flip_content(data: Path, i: list[bytes]) -> None:
    sealed = bytearray(rows(data, i[0])[-1])  # type: ignore[arg-type]
    sealed[70] ^= 1
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=0", bytes(sealed), i[0])


def drop_row(data: Path, i: list[bytes]) -> None:
    edit(data, "DELETE FROM record WHERE memory_id=? AND field=0", i[0])


def swap_rows(data: Path, i: list[bytes]) -> None:
    a, b = rows(data, i[0])[-1], rows(data, i[1])[-1]
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=0", b, i[0])
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=0", a, i[1])


def make_tombstone(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE record SET state=2, sealed=x'' WHERE memory_id=? AND field=0", i[0])


def move_to_other_id(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE record SET memory_id=? WHERE memory_id=? AND field=0", os.urandom(16), i[0])


def raise_version(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE record SET version=7 WHERE memory_id=? AND field=0", i[0])


def change_key(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE record SET key_id=1 WHERE memory_id=? AND field=0", i[0])


def wipe_head(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE namespace SET head=x'' WHERE ns>0")


def old_seq_in_head(data: Path, i: list[bytes]) -> None:
    edit(data, "UPDATE namespace SET seq=seq-1 WHERE ns>0")


def drop_namespace_name(data: Path, i: list[bytes]) -> None:
    edit(data, "DELETE FROM record WHERE ns=0 AND field=16")


TAMPERING: list[Callable[[Path, list[bytes]], None]] = [
    flip_content,
    drop_row,
    swap_rows,
    make_tombstone,
    move_to_other_id,
    raise_version,
    change_key,
    wipe_head,
    old_seq_in_head,
    drop_namespace_name,
]


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda f: f.__name__)
def test_a_changed_row_never_comes_back_as_if_it_were_true(
    data: Path, open_room: OpenRoom, filled: list[bytes], tamper: Callable[[Path, list[bytes]], None]
) -> None:
    tamper(data, filled)
    with pytest.raises(IntegrityError):
        room = open_room()
        room.search("memory number", namespaces=[NS], k=10)
        room.get(UUID(bytes=filled[0]), namespace=NS)


def test_a_row_dropped_under_a_running_process_is_not_said_to_be_missing(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    room = open_room()
    room.search("memory", namespaces=[NS])
    drop_row(data, filled)
    with pytest.raises(TamperedError):
        room.get(UUID(bytes=filled[0]), namespace=NS)


@pytest.mark.parametrize("tamper", TAMPERING[:-1], ids=lambda f: f.__name__)
def test_check_finds_every_change(
    data: Path, open_room: OpenRoom, filled: list[bytes], tamper: Callable[[Path, list[bytes]], None]
) -> None:
    room = open_room()
    assert room.check(read_data=True).ok
    room.close()
    tamper(data, filled)
    room = open_room()
    report = room.check(read_data=True)
    assert any(f.severity == Severity.ERROR for f in report.findings)
    assert "memory number" not in str(report)


def test_a_row_that_does_not_open_does_not_count_as_opened(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    """The figures of a check say what was opened, not what was tried."""
    before = open_room().check(read_data=True)
    flip_content(data, filled)
    after = open_room().check(read_data=True)
    assert (after.rows, after.opened) == (before.rows, before.opened - 1)


def test_an_old_version_put_back_is_noticed(data: Path, open_room: OpenRoom) -> None:
    room = open_room()
    m = room.store("the limit is 100", namespace=NS)
    old = rows(data, m.memory_id.bytes)
    room.update(m.memory_id, namespace=NS, content="the limit is 500")
    room.flush()
    edit(data, "DELETE FROM record WHERE memory_id=? AND field=0", m.memory_id.bytes)
    edit(data, f"INSERT INTO record VALUES ({','.join('?' * len(old))})", *old)
    with pytest.raises(TamperedError):
        room.search("limit", namespaces=[NS])
    room.close()
    room = open_room()
    with pytest.raises(TamperedError):
        room.search("limit", namespaces=[NS])


def test_a_lost_vector_is_noticed_and_made_again_without_anyone_asking(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    edit(data, "DELETE FROM record WHERE memory_id=? AND field=1", filled[0])
    sealed = bytearray(rows(data, filled[1], 1)[-1])  # type: ignore[arg-type]
    sealed[100] ^= 1
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=1", bytes(sealed), filled[1])
    room = open_room()
    assert len(room.search("memory number", namespaces=[NS], mode="keyword", k=10)) == 5
    room.flush()
    hits = room.search("memory number", namespaces=[NS], mode="semantic", k=10)
    assert len(hits) == 5 and all(h.memory.has_embedding for h in hits)
    assert room.check(read_data=True).ok


def test_repair_accepts_a_loss_only_when_told_to(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    drop_row(data, filled)
    room = open_room()
    room.repair()
    with pytest.raises(TamperedError):
        room.search("memory", namespaces=[NS])
    room.repair(accept_loss=True)
    assert len(room.search("memory number", namespaces=[NS], k=10)) == 4
    assert [e.reason for e in room.audit() if e.action == "repair"][-1] == "repair, accepting loss"


def test_every_flipped_byte_of_a_row_is_refused(data: Path, open_room: OpenRoom, filled: list[bytes]) -> None:
    room = open_room()
    entry = room.engine.registry.get(NS)
    assert entry is not None
    row = room.engine.ledger.get(entry.ns, filled[0])
    assert row is not None
    for at in range(len(row.sealed)):
        bad = bytearray(row.sealed)
        bad[at] ^= 0x40
        with pytest.raises(StrongroomError) as caught:
            room.engine.vault.open(entry.tenant, row._replace(sealed=bytes(bad)))
        assert type(caught.value) is DecryptionError
    for length in range(len(row.sealed)):
        with pytest.raises(DecryptionError):
            room.engine.vault.open(entry.tenant, row._replace(sealed=row.sealed[:length]))


def test_without_the_keyring_nothing_opens_and_the_error_says_what_is_missing(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    keys = data.with_name("data.keys")
    (keys / "keyring.db").rename(keys / "elsewhere.db")
    with pytest.raises(KeyringMissingError) as caught:
        open_room()
    assert caught.value.hint


def test_the_keyring_of_another_store_is_refused(
    data: Path, tmp_path: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    strongroom.init(tmp_path / "other")
    shutil.copy(tmp_path / "other.keys" / "keyring.db", data.with_name("data.keys") / "keyring.db")
    with pytest.raises((KeyringMismatchError, KeyManagementError)):
        open_room()


def test_the_key_file_deleted_while_running_stops_new_namespaces_and_nothing_else(
    data: Path, open_room: OpenRoom
) -> None:
    room = open_room()
    m = room.store("before", namespace=NS)
    key_file = data.with_name("data.keys") / "master.key"
    kept = key_file.read_bytes()
    key_file.unlink()
    assert room.get(m.memory_id, namespace=NS).content == "before"
    after = room.store("after", namespace=NS)
    with pytest.raises(KeystoreMissingError):
        room.store("x", namespace="company_new/a")
    room.close()
    with pytest.raises(KeystoreMissingError):
        open_room()
    key_file.write_bytes(kept)
    key_file.chmod(0o600)
    room = open_room()
    assert room.get(after.memory_id, namespace=NS).content == "after"


def test_a_damaged_database_file_is_a_typed_error(
    data: Path, open_room: OpenRoom, filled: list[bytes]
) -> None:
    path = data / "ledger.db"
    raw = bytearray(path.read_bytes())
    raw[0:16] = b"not a database!!"
    path.write_bytes(bytes(raw))
    with pytest.raises(StorageError):
        open_room()
