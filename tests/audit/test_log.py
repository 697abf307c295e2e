"""The log of a real store: integration, proofs, and every kind of tampering in its database."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom
from tests.engine.test_processes import WRITER, spawn
from tests.support.database import ledger_file

from strongroom import audit
from strongroom.audit import verify
from strongroom.config import AuditConfig, load_config, to_toml
from strongroom.engine import Room
from strongroom.engine._audit_log import AuditLog, TreeHead
from strongroom.errors import (
    AccessDeniedError,
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TamperedError,
)
from strongroom.model import AuditEntry, NamespacePattern, Severity

NS = "company_a/support"
Keys = tuple[verify.VerifierKey, ...]


def configure(data: Path, **settings: object) -> None:
    """Change the section [audit] of a store."""
    config = load_config(data)
    changed = dataclasses.replace(config, audit=AuditConfig(**settings))  # type: ignore[arg-type]
    (data / "strongroom.toml").write_text(to_toml(changed), "utf-8")


def keys_of(room: Room) -> Keys:
    return verify.parse_keys("\n".join(room.audit_key()))


def exported(room: Room, **options: bool) -> list[bytes]:
    lines: list[str] = []
    room.audit_export(lines.append, **options)  # type: ignore[arg-type]
    return [line.encode() for line in lines]


def integrated(room: Room, seq: int) -> bool:
    """Whether entry ``seq`` was taken in by the background thread."""
    for _ in range(1000):
        if room.engine.audit_log.head().size >= seq:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def filled(open_room: OpenRoom) -> tuple[Keys, str]:
    """A closed store with some 60 entries; its public keys and a checkpoint kept elsewhere."""
    room = open_room()
    for i in range(40):
        room.store(f"memory {i}", namespace=NS)
        if i % 2:
            room.search("memory", namespaces=[NS], mode="keyword")
    keys, note = keys_of(room), room.audit_checkpoint().note
    room.close()
    return keys, note


def test_entries_are_integrated_without_being_asked_for(room: Room) -> None:
    """The background thread takes in what was committed; reads and denials are leaves like any other."""
    room.store("one", namespace=NS)
    room.search("one", namespaces=[NS], mode="keyword")
    with pytest.raises(NotFoundError):
        room.get("00000000-0000-4000-8000-000000000000", namespace=NS)
    assert integrated(room, room.engine.ledger.audit_count())


def test_every_entry_is_proven_and_every_past_is_consistent(room: Room) -> None:
    """Inclusion of each entry and consistency from each size, by the offline verifier."""
    for i in range(37):
        room.store(f"memory {i}", namespace=NS)
    keys = keys_of(room)
    past = [room.audit_checkpoint() for _ in range(20)]
    for checkpoint in past:
        proof = room.audit_consistency(checkpoint.size)
        assert proof.old_root == checkpoint.root
        verify.verify_consistency(proof.to_json().encode(), keys, checkpoint.note)
    for seq in range(1, past[-1].size + 1):
        verify.verify_proof(room.audit_proof(seq).to_json().encode(), keys)
    with pytest.raises(NotFoundError):
        room.audit_proof(10_000)
    with pytest.raises(InvalidInputError):
        room.audit_consistency(10_000)
    assert room.audit_consistency(0).hashes == ()


def test_a_restarted_store_keeps_its_signing_keys(data: Path, open_room: OpenRoom) -> None:
    """Same public keys after a restart; no seed and no public key stands in the clear in the ledger."""
    room = open_room()
    keys = room.audit_key()
    note = room.audit_checkpoint().note
    room.close()
    again = open_room()
    assert again.audit_key() == keys
    assert verify.verify_export(exported(again), keys_of(again), [note]).heads == 1
    again.close()
    raw = (data / "ledger.db").read_bytes()
    assert all(key.public not in raw for key in keys_of_text(keys))


def keys_of_text(texts: tuple[str, str]) -> Keys:
    return verify.parse_keys("\n".join(texts))


def test_an_older_store_gets_its_tree_when_it_is_opened(
    data: Path, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger of schema version 1 is migrated, and the entries of before are integrated and proven."""
    with monkeypatch.context() as old:
        old.setattr("strongroom.engine._audit_log.AuditLog.integrate", lambda log: log.head())
        room = open_room()
        for i in range(50):
            room.store(f"memory {i}", namespace=NS)
        room.close()
    later = "".join(f"DROP TABLE {name};" for name in ("audit_node", "wave_part", "wave", "closed_key"))
    edit(data, f"{later} UPDATE meta SET value = 1 WHERE key = 'schema_version'")
    room = open_room()
    verify.verify_proof(room.audit_proof(20).to_json().encode(), keys_of(room))
    assert room.check(read_data=True).ok


def test_several_processes_write_one_log(data: Path, open_room: OpenRoom) -> None:
    """Three processes write and integrate at once: one gapless log, each entry once, and check is clean."""
    room = open_room()
    children = [spawn(WRITER, data, name, 40) for name in ("one", "two")]
    for i in range(40):
        room.store(f"parent {i}", namespace=NS)
        if i % 10 == 0:
            room.audit_checkpoint()
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    checkpoint = room.audit_checkpoint()
    found = verify.verify_export(exported(room), keys_of(room), [checkpoint.note])
    assert found.size >= 120
    report = room.check(read_data=True)
    assert report.ok, report.findings


def test_a_big_backlog_is_integrated_in_steps(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than one transaction takes: the steps join without a seam."""
    monkeypatch.setattr("strongroom.engine._audit_log.CHUNK", 7)
    room = open_room()
    for i in range(50):
        room.store(f"memory {i}", namespace=NS)
    assert verify.verify_export(exported(room), keys_of(room)).size > 50
    assert room.check(read_data=True).ok


def test_integration_ends_beside_a_writer_that_goes_on(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes in what was there when it began; beside a busy writer it once made a transaction for each."""
    log, steps = room.engine.audit_log, 0
    grow = log._grow
    for i in range(5):
        room.store(f"memory {i}", namespace=NS)
    log.integrate()
    room.store("one more", namespace=NS)
    before = room.engine.ledger.audit_count()

    def one_more(head: TreeHead) -> TreeHead | None:
        nonlocal steps
        steps += 1
        grown = grow(head)
        if steps < 50:
            room.store(f"meanwhile {steps}", namespace=NS)
        return grown

    monkeypatch.setattr(log, "_grow", one_more)
    assert log.integrate().size == before
    assert steps == 1
    assert log.integrate().size == before + 1


def test_only_administrators_may_look(room: Room) -> None:
    """Each operation on the log is denied to a reader's key and to an admin of one namespace."""
    from datetime import UTC, datetime, timedelta

    later = datetime.now(UTC) + timedelta(hours=1)
    room.create_namespace(NS)
    for scope, grant in (("read-only", "*"), ("admin", NS)):
        session = room.engine.authenticate(room.keys_create("k", scope, [grant], later)[1])
        for ask in (
            session.audit_key, session.audit_checkpoint, lambda s=session: s.audit_proof(1),
            lambda s=session: s.audit_consistency(1), session.audit_query,
            lambda s=session: s.audit_follow(print), lambda s=session: s.audit_export(print),
        ):  # fmt: skip
            with pytest.raises(AccessDeniedError):
                ask()
    denied = audit.AuditFilter(outcomes=("denied",))
    assert len(room.audit_query(denied)) == 14


# -- tampering in the database ------------------------------------------------------------------------
def edit(data: Path, sql: str, *args: object) -> None:
    db = ledger_file(data)
    db.execute(sql, args or None)  # type: ignore[arg-type]
    db.close()


def sealed_of(data: Path, seq: int) -> bytes:
    db = ledger_file(data)
    found: bytes = db.execute("SELECT sealed FROM audit WHERE seq = ?", (seq,)).get
    db.close()
    return found


def size_of(data: Path) -> int:
    db = ledger_file(data)
    found: int = db.execute("SELECT max(seq) FROM audit").get
    db.close()
    return found


def flip(data: Path, dice: random.Random) -> None:
    seq = dice.randint(1, size_of(data))
    raw = bytearray(sealed_of(data, seq))
    raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
    edit(data, "UPDATE audit SET sealed = ? WHERE seq = ?", bytes(raw), seq)


def drop(data: Path, dice: random.Random) -> None:
    edit(data, "DELETE FROM audit WHERE seq = ?", dice.randint(1, size_of(data)))


def drop_and_close_the_gap(data: Path, dice: random.Random) -> None:
    seq = dice.randint(1, size_of(data) - 1)
    edit(data, "DELETE FROM audit WHERE seq = ?", seq)
    edit(data, "UPDATE audit SET seq = -seq WHERE seq > ?", seq)
    edit(data, "UPDATE audit SET seq = -seq - 1 WHERE seq < 0")


def reorder(data: Path, dice: random.Random) -> None:
    a, b = dice.sample(range(1, size_of(data) + 1), 2)
    first, second = sealed_of(data, a), sealed_of(data, b)
    edit(data, "UPDATE audit SET sealed = ? WHERE seq = ?", second, a)
    edit(data, "UPDATE audit SET sealed = ? WHERE seq = ?", first, b)


def copy_over(data: Path, dice: random.Random) -> None:
    a, b = dice.sample(range(1, size_of(data) + 1), 2)
    edit(data, "UPDATE audit SET sealed = ? WHERE seq = ?", sealed_of(data, a), b)


def truncate(data: Path, dice: random.Random) -> None:
    edit(data, "DELETE FROM audit WHERE seq > ?", dice.randint(0, size_of(data) - 1))


def truncate_tree_and_all(data: Path, dice: random.Random) -> None:
    """The tree too; only the sealed head row says how long the log was."""
    size = dice.randint(0, size_of(data) - 1)
    edit(data, "DELETE FROM audit WHERE seq > ?", size)
    edit(data, "DELETE FROM audit_node WHERE (position + 1) << level > ?", size)


ATTACKS = [flip, drop, drop_and_close_the_gap, reorder, copy_over, truncate, truncate_tree_and_all]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_tampering_with_the_entries_shows_in_the_export_and_in_check(
    data: Path, open_room: OpenRoom, filled: tuple[Keys, str],
    attack: Callable[[Path, random.Random], None], seed: int,
) -> None:  # fmt: skip
    """Whatever is done to the entries: the export does not verify, without any head kept elsewhere, not even
    after the store has gone on writing; and check says so."""
    attack(data, random.Random(f"{attack.__name__} {seed}"))
    room = open_room()
    for i in range(5):
        room.store(f"later {i}", namespace=NS)
    codes = {f.code for f in room.check().findings if f.severity == Severity.ERROR}
    assert codes & {"audit_tree_differs", "audit_entries_missing", "audit_tree_damaged", "audit_gap"}
    with pytest.raises(IntegrityError):
        verify.verify_export(exported(room), filled[0])
    room.close()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM audit_node",
        "UPDATE audit_node SET hash = zeroblob(32) WHERE level = 5",
        "DELETE FROM audit_node WHERE level = 4 AND position = 1",
    ],
)
def test_a_damaged_tree_is_found_and_mended(
    data: Path, open_room: OpenRoom, filled: tuple[Keys, str], sql: str
) -> None:
    """The stored tree is not trusted: check compares it with the entries, and what it proves is refused.

    The entries are whole and the sealed root says so: the export verifies, and repair makes the tree anew.
    """
    edit(data, sql)
    room = open_room()
    assert "audit_tree_damaged" in {f.code for f in room.check().findings}
    with pytest.raises(IntegrityError):
        for seq in range(1, 61):
            verify.verify_proof(room.audit_proof(seq).to_json().encode(), filled[0])
    assert verify.verify_export(exported(room), filled[0], [filled[1]]).heads == 1
    assert "audit_tree_made_anew" in {f.code for f in room.repair()}
    for seq in range(1, 61):
        verify.verify_proof(room.audit_proof(seq).to_json().encode(), filled[0])
    assert room.check().ok


def test_repair_does_not_cover_up_changed_entries(
    data: Path, open_room: OpenRoom, filled: tuple[Keys, str]
) -> None:
    """Entries that do not give the sealed root get no tree, not even with accepted loss."""
    flip(data, random.Random(1))
    room = open_room()
    assert "audit_tree_made_anew" not in {f.code for f in room.repair(accept_loss=True)}
    with pytest.raises(IntegrityError):
        verify.verify_export(exported(room), filled[0])
    assert not room.check().ok


def test_an_old_head_row_put_back_is_refused(data: Path, open_room: OpenRoom) -> None:
    """Log, tree and head row cut together: the head of the system namespace does not fit them."""
    room = open_room()
    room.store("one", namespace=NS)
    room.close()
    db = ledger_file(data)
    row = db.execute("SELECT version, seq, sealed FROM record WHERE ns = 0 AND field = 20").fetchone()
    db.close()
    assert row is not None
    size = size_of(data)
    room = open_room()
    for i in range(30):
        room.store(f"later {i}", namespace=NS)
    room.close()
    truncated = f"DELETE FROM audit WHERE seq > {size}; DELETE FROM audit_node"
    edit(data, truncated)
    edit(data, "UPDATE record SET version = ?, seq = ?, sealed = ? WHERE ns = 0 AND field = 20", *row)
    with pytest.raises(TamperedError):
        open_room()


def test_an_old_head_row_under_a_running_process_signs_nothing(data: Path, room: Room) -> None:
    """The process remembers the version that it has seen."""
    room.store("one", namespace=NS)
    room.audit_checkpoint()
    find = "SELECT version, seq, sealed FROM record WHERE ns = 0 AND field = 20"
    db = ledger_file(data)
    old = db.execute(find).fetchone()
    db.close()
    assert old is not None
    room.audit_checkpoint()
    edit(data, "UPDATE record SET version = ?, seq = ?, sealed = ? WHERE ns = 0 AND field = 20", *old)
    with pytest.raises(TamperedError):
        room.audit_checkpoint()


def test_only_a_head_kept_elsewhere_shows_a_whole_store_put_back(
    data: Path, open_room: OpenRoom, filled: tuple[Keys, str], tmp_path: Path
) -> None:
    """An earlier copy goes on by itself: the fork verifies alone, and not beside the head."""
    saved = tmp_path / "saved"
    shutil.copytree(data, saved)
    room = open_room()
    room.store("what really happened", namespace=NS)
    kept = room.audit_checkpoint().note
    room.close()
    shutil.rmtree(data)
    shutil.copytree(saved, data)
    room = open_room()
    for i in range(10):
        room.store(f"what is said to have happened {i}", namespace=NS)
    lines = exported(room)
    assert room.check(read_data=True).ok
    assert verify.verify_export(lines, filled[0], [filled[1]]).size > 40
    with pytest.raises(TamperedError, match="not that of a head"):
        verify.verify_export(lines, filled[0], [kept])


# -- heads kept outside -------------------------------------------------------------------------------
def heads_in(file: Path) -> list[str]:
    return verify.parse_heads(file.read_text("utf-8"))


def wait_for_head(file: Path) -> None:
    for _ in range(1000):
        if file.exists() and file.read_bytes().endswith(b"\n"):
            break
        time.sleep(0.01)


def test_heads_go_into_files_outside_and_show_a_store_put_back(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """Each close leaves a head; after a roll-back check and the log say so, and the file is left alone."""
    file = tmp_path / "elsewhere.jsonl"
    configure(data, head_files=(str(file),))
    room = open_room()
    room.store("one", namespace=NS)
    keys = keys_of(room)
    room.close()
    saved = tmp_path / "saved"
    shutil.copytree(data, saved)
    room = open_room()
    room.store("two", namespace=NS)
    room.close()
    assert len(heads_in(file)) == 2
    room = open_room()
    assert verify.verify_export(exported(room), keys, heads_in(file)).heads == 2
    assert room.check().ok
    room.close()
    before = file.read_bytes()
    shutil.rmtree(data)
    shutil.copytree(saved, data)
    room = open_room()
    for i in range(10):
        room.store(f"other {i}", namespace=NS)
    report = room.check()
    assert [f.code for f in report.findings if f.severity == Severity.ERROR] == ["audit_rolled_back"]
    with pytest.raises(TamperedError):
        verify.verify_export(exported(room), keys, heads_in(file))
    room.close()
    assert file.read_bytes() == before


def test_a_running_store_leaves_a_head_in_every_interval(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """Without being closed; and not twice for the same size."""
    file = tmp_path / "elsewhere.jsonl"
    configure(data, head_files=(str(file),), head_interval_s=1, integrate_ms=20)
    room = open_room()
    room.store("one", namespace=NS)
    wait_for_head(file)
    keys = keys_of(room)
    sizes = [verify.open_checkpoint(note, keys).size for note in heads_in(file)]
    assert sizes and len(set(sizes)) == len(sizes)


def test_heads_that_cannot_be_compared_are_told_of_and_kept_all_the_same(
    data: Path, open_room: OpenRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that nobody foresaw in the comparison at the start does not end the keeping of heads."""
    file = tmp_path / "elsewhere.jsonl"
    configure(data, head_files=(str(file),), head_interval_s=1, integrate_ms=20)

    def fault(self: AuditLog) -> None:
        raise ZeroDivisionError("canary-51")

    monkeypatch.setattr(AuditLog, "compare_heads", fault)
    room = open_room()
    room.store("one", namespace=NS)
    wait_for_head(file)
    assert heads_in(file)
    text = room.engine.metrics.text().decode()
    assert 'strongroom_audit_heads_total{outcome="failed",place="compare"} 1.0' in text


def test_a_head_that_a_place_did_not_take_goes_there_later(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """Without a newer head; the place that took it does not get it again, and the late one not twice."""
    late, early = tmp_path / "mounted-later" / "heads.jsonl", tmp_path / "heads.jsonl"
    configure(data, head_files=(str(late), str(early)), head_interval_s=3600, integrate_ms=3_600_000)
    room = open_room()
    room.store("one", namespace=NS)
    log = room.engine.audit_log
    size = log.integrate().size
    for _ in range(2):
        log._push_heads(log._sinks.files)
    assert len(heads_in(early)) == 1
    late.parent.mkdir()
    for _ in range(2):
        log._push_heads(log._sinks.files)
    assert log.head().size == size
    keys = keys_of(room)
    for file in (late, early):
        assert [verify.open_checkpoint(note, keys).size for note in heads_in(file)] == [size]
    text = room.engine.metrics.text().decode()
    assert 'strongroom_audit_heads_total{outcome="failed",place="file"} 2.0' in text
    assert 'strongroom_audit_heads_total{outcome="ok",place="file"} 2.0' in text


def test_a_place_for_heads_that_fails_stops_nothing(data: Path, open_room: OpenRoom, tmp_path: Path) -> None:
    """A directory in place of the file: operations go on, the failure is counted, the store closes."""
    configure(data, head_files=(str(tmp_path),))
    room = open_room()
    room.store("one", namespace=NS)
    room.close()
    text = room.engine.metrics.text().decode()
    assert 'strongroom_audit_heads_total{outcome="failed",place="file"} 1.0' in text


@pytest.mark.parametrize(
    "settings",
    [
        {"head_files": ("relative.jsonl",)},
        {"head_files": ("DATA/heads.jsonl",)},
        {"head_webhook": "http://example.com/"},
        {"head_webhook": "https://user:secret@example.com/"},
        {"head_bucket": "bucket"},
        {"head_bucket": "s3://bucket/x", "head_endpoint": "http://127.0.0.1"},
    ],
)
def test_a_place_inside_the_store_or_without_tls_is_refused(
    data: Path, open_room: OpenRoom, settings: dict[str, object]
) -> None:
    """The store does not open, and says which setting is wrong."""
    if "head_files" in settings:
        settings = {"head_files": tuple(f.replace("DATA", str(data)) for f in settings["head_files"])}  # type: ignore[attr-defined]
    configure(data, **settings)
    with pytest.raises(ConfigurationError, match=r"audit\.head_"):
        open_room()


# -- looking ------------------------------------------------------------------------------------------
def test_queries_filter_by_time_principal_action_outcome_and_namespace(room: Room) -> None:
    """Each filter alone and two together; a limit and a starting point."""
    for name in ("company_a/support", "company_a/sales", "company_b"):
        room.store("text", namespace=name)
    with pytest.raises(NotFoundError):
        room.get("00000000-0000-4000-8000-000000000000", namespace=NS)
    stored = room.audit_query(audit.AuditFilter(actions=("store",)))
    assert [e.namespaces for e in stored] == [("company_a/support",), ("company_a/sales",), ("company_b",)]
    below = audit.AuditFilter(actions=("store",), namespaces=(NamespacePattern.parse("company_a/*"),))
    assert len(room.audit_query(below)) == 2
    assert [e.action for e in room.audit_query(audit.AuditFilter(outcomes=("memory_not_found",)))] == ["read"]
    assert not room.audit_query(audit.AuditFilter(principals=("nobody",)))
    middle = stored[1].at_us
    assert stored[0] not in room.audit_query(audit.AuditFilter(since_us=middle))
    assert [e for e in room.audit_query(audit.AuditFilter(until_us=middle)) if e.action == "store"] == [
        stored[0]
    ]
    assert room.audit_query(limit=1, after=stored[1].seq)[0].seq == stored[1].seq + 1


def test_following_gives_each_entry_once_and_leaves_one_entry(room: Room) -> None:
    """The last ones first, then those that come; the follower does not see itself over and over."""
    room.store("before", namespace=NS)
    seen: list[AuditEntry] = []

    def emit(entry: AuditEntry) -> None:
        seen.append(entry)
        if len(seen) == 2:
            room.store("meanwhile", namespace=NS)

    room.audit_follow(emit, last=2, stop=lambda: len(seen) >= 3)
    assert [e.action for e in seen] == ["store", "administer", "store"]
    assert [e.seq for e in seen] == sorted({e.seq for e in seen})
    assert [e.reason for e in room.audit_query()].count("follow the audit log") == 1


def test_an_export_holds_its_own_entry_and_what_entries_say_when_asked(room: Room) -> None:
    """The entry of the export is in the log before the first line leaves; sealed bytes stand for all."""
    room.store("text", namespace=NS)
    plain = exported(room)
    assert all(b'"entry"' not in line for line in plain) and NS.encode() not in b"".join(plain)
    opened = [json.loads(line) for line in exported(room, opened=True)]
    assert [d["entry"]["action"] for d in opened[1:-1]][-1] == "administer"
    assert opened[-2]["entry"]["reason"] == "export the audit log"
    with pytest.raises(InvalidInputError):
        room.audit_export(print, wanted=audit.AuditFilter(actions=("store",)))
    with pytest.raises(InvalidInputError):
        room.audit_export(print, format="xml")


READER = """
import os, sys, strongroom
from tests.support.word_model import WordModel
directory, memory_id, key = sys.argv[1:4]
with strongroom.open(directory, provider=WordModel()) as room:
    ns, n = "company_a/support", 0
    while True:
        n += 1
        name = f"{os.getpid()}-{n}"
        session = room.engine.authenticate(key, request_id=name)
        count = [
            lambda: session.get(memory_id, namespace=ns) and 1,
            lambda: len(session.search("read", namespaces=[ns], k=3)),
            lambda: len(session.list(namespaces=["*"], limit=3).memories),
            lambda: session.sql("SELECT content FROM memories LIMIT 3").row_count,
        ][n % 4]()
        print(name, ("read", "search", "list", "sql")[n % 4], count, flush=True)
"""


@pytest.mark.slow
def test_no_answered_read_is_without_its_entry_when_readers_are_killed(
    data: Path, open_room: OpenRoom
) -> None:
    """12 of four readers at a time are killed: every answer that one of them had has its own entry.

    By request id, with the action and how many memories; and the log verifies. Killed writers:
    tests/engine/test_processes.py. A full disk: tests/ledger/test_ledger_faults.py."""
    room = open_room()
    memory_id, *_ = [room.store(f"read me {n}", namespace=NS).memory_id for n in range(5)]
    room.flush()
    key = room.keys_create("reader", "read-only", ["company_a/*"])[1]
    keys, answered = keys_of(room), []
    for number in range(3):
        readers = [spawn(READER, data, memory_id, key) for _ in range(4)]
        for reader in readers:
            assert reader.stdout is not None
            answered += [reader.stdout.readline().rstrip("\n") for _ in range(8)]
        time.sleep(0.01 * number)
        for reader in readers:
            reader.kill()
        for reader in readers:
            out, _ = reader.communicate(timeout=30)
            answered += out.split("\n")[:-1]  # what stands after the last end of line was not told whole
    entries: dict[str, str] = {}
    after = 0
    reads = audit.AuditFilter(actions=("read", "search", "list", "sql"), outcomes=("ok",))
    while page := room.audit_query(reads, after=after):
        entries |= {e.request_id: f"{e.request_id} {e.action} {e.count}" for e in page}
        after = page[-1].seq
    assert [a for a in answered if entries.get(a.partition(" ")[0]) != a] == []
    assert len(set(answered)) == len(answered) >= 96
    assert verify.verify_export(exported(room), keys).size >= len(answered)
    assert room.check().ok


def test_a_forgotten_store_needs_no_engine(data: Path, open_room: OpenRoom, filled: tuple[Keys, str]) -> None:
    """The export verifies after the store and its keys are gone."""
    room = open_room()
    lines = exported(room)
    room.close()
    shutil.rmtree(data)
    shutil.rmtree(data.with_name("data.keys"))
    assert verify.verify_export(lines, filled[0], [filled[1]]).heads == 1
