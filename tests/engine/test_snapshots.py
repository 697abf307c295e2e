"""Warm start: what comes out of a snapshot is what the ledger says, whatever was done to the file."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.engine.conftest import OpenRoom, save_snapshot, snapshot_events
from tests.engine.test_processes import spawn
from tests.engine.test_tamper import drop_row, edit, rows
from tests.support.waiting import until
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, RecallConfig
from strongroom.engine import Room, _keeper, _snapshot_file, _snapshots
from strongroom.errors import InternalError, StorageBusyError, TamperedError
from strongroom.lifecycle.noise_scan import scan_directory
from strongroom.model import Severity
from strongroom.recall import _ids, _ivf, columnar

NS = "company_a/support"
WORDS = ["price", "limit", "invoice", "contract", "renewal", "meeting", "refund", "outage", "coffee"]


def fill(room: Room, count: int = 40, seed: int = 1) -> list[UUID]:
    """Memories of every shape; some changed, some deleted, some read. Those that are left."""
    rng = random.Random(seed)
    ids = [
        room.store(
            f"{rng.choice(WORDS)} and {rng.choice(WORDS)} number {i}",
            namespace=NS,
            tags=[f"t{i % 3}", "all"] if i % 4 else [],
            subject=f"user:{i % 5}" if i % 2 else None,
            kind="fact" if i % 3 else "observation",
            metadata={"n": i, "deep": {"a": ["ü", None, 1.5]}},
            agent_id=f"agent {i % 2}",
            importance=(i % 10) / 10,
            derived_from=[UUID(int=i)] if i % 6 == 0 else (),
        ).memory_id
        for i in range(count)
    ]
    for i in range(0, count, 7):
        room.update(ids[i], namespace=NS, content=f"{rng.choice(WORDS)} rewritten {i}")
    for i in range(3, count, 7):
        room.update(ids[i], namespace=NS, importance=1.0)
    gone = {ids[i] for i in range(5, count, 9)}
    for memory_id in gone:
        room.delete(memory_id, namespace=NS)
    room.flush()
    for memory_id in ids[:4]:
        room.get(memory_id, namespace=NS)
    return [i for i in ids if i not in gone]


def answers(room: Room) -> list[Any]:
    """What a caller can see of a namespace, scores included; counters left out, because asking counts."""
    seen: list[Any] = []
    for mode, query in itertools.product(
        ("hybrid", "semantic", "keyword"), ("price limit", "coffee number 7")
    ):
        for where in (None, "importance > 0.4 AND list_contains(tags, 'all')"):
            hits = room.search(query, namespaces=[NS], mode=mode, where=where, k=20)
            seen.append([(h.memory.memory_id, h.score, h.similarity, h.keyword_score) for h in hits])
    for wanted in (
        {},
        {"tags_all": ["t1"]},
        {"subjects": ["user:3"]},
        {"kinds": ["fact"]},
        {"agent_ids": ["agent 1"]},
    ):
        page = room.list(namespaces=[NS], limit=500, **wanted)
        seen.append(
            [
                (m.memory_id, m.content, m.metadata, m.tags, m.version, m.has_embedding, m.derived_from)
                for m in page.memories
            ]
        )
    seen.append([m.memory_id for m in room.list(namespaces=[NS], where="metadata->>'n' = '8'").memories])
    stats = room.stats()
    return [*seen, stats.memories, stats.embedded]


@pytest.fixture(autouse=True)
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few memories of a test are read as a large snapshot is: columns again and later, threads ahead."""
    for module, name in ((_snapshots, "_AGAIN_ROWS_MIN"), (_ids, "AHEAD_ROWS_MIN"), (_ivf, "AHEAD_ROWS_MIN")):
        monkeypatch.setattr(module, name, 1)


def wait_verified(room: Room) -> None:
    assert room.engine.indexes.wait_verified(30)


@pytest.fixture
def saved(open_room: OpenRoom) -> tuple[list[Any], Path]:
    """A store with a snapshot, closed: what it answered, and the file."""
    room = open_room()
    fill(room)
    path = save_snapshot(room, NS)
    before = answers(room)
    room.close()
    return before, path


def cold_answers(open_room: OpenRoom, data: Path) -> list[Any]:
    shutil.rmtree(data / "snapshots", ignore_errors=True)
    room = open_room()
    found = answers(room)
    assert "loaded" not in snapshot_events(room)
    room.close()
    return found


def test_answers_after_a_warm_start_are_those_of_before(
    open_room: OpenRoom, saved: tuple[list[Any], Path]
) -> None:
    room = open_room()
    assert answers(room) == saved[0]
    assert snapshot_events(room) == {"loaded": 1}
    wait_verified(room)
    assert answers(room) == saved[0]
    assert snapshot_events(room) == {"loaded": 1}
    assert room.check(read_data=True).ok


def test_a_search_does_not_wait_for_the_columns_and_a_filter_does(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are read when the first answers are out, or as soon as somebody needs them."""
    read, let = threading.Event(), threading.Event()
    reading = _snapshots._Again._reading

    @contextmanager
    def held(self: Any, position: int) -> Iterator[Any]:
        read.set()
        assert let.wait(30)
        with reading(self, position) as stream:
            yield stream

    monkeypatch.setattr(_snapshots._Again, "_reading", held)
    monkeypatch.setattr(columnar, "_PATIENCE_S", 60.0)
    room = open_room()
    assert len(room.search("price limit", namespaces=[NS], k=5)) == 5
    assert not read.is_set()
    threading.Thread(target=lambda: (read.wait(30), let.set())).start()
    assert answers(room) == saved[0] and read.is_set()


def test_columns_that_cannot_be_read_for_the_second_time_are_made_anew(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails in between costs the waiting question an error, and the next one builds the index."""
    failing = True
    reading = _snapshots._Again._reading

    @contextmanager
    def broken(self: Any, position: int) -> Iterator[Any]:
        with reading(self, position) as stream:
            if failing:
                raise OSError(errno.EIO, "input/output error")
            yield stream

    monkeypatch.setattr(_snapshots._Again, "_reading", broken)
    room = open_room()
    assert len(room.search("price limit", namespaces=[NS], k=5)) == 5
    with pytest.raises(InternalError):
        room.list(namespaces=[NS], tags_all=["t1"], where="importance > 0.1")
    failing = False
    assert answers(room) == saved[0]


def test_counters_of_reads_survive_a_warm_start(open_room: OpenRoom) -> None:
    room = open_room()
    ids = fill(room)
    room.engine.access_stats.flush()
    save_snapshot(room, NS)
    counted = {m.memory_id: m.access_count for m in room.list(namespaces=[NS], limit=100).memories}
    assert counted[ids[0]] == 1
    room.close()
    room = open_room()
    read = room.list(namespaces=[NS], where="access_count > 0 AND last_accessed_at IS NOT NULL").memories
    assert {m.memory_id for m in read} == {i for i, n in counted.items() if n}
    assert snapshot_events(room) == {"loaded": 1}


def test_what_was_changed_after_the_snapshot_is_read_from_the_ledger(
    data: Path, open_room: OpenRoom, saved: tuple[list[Any], Path]
) -> None:
    room = open_room(worker=False)
    some = [m.memory_id for m in room.list(namespaces=[NS], limit=10).memories]
    room.update(some[0], namespace=NS, content="a new price for coffee")
    room.delete(some[1], namespace=NS)
    room.store("price limit of the newest invoice", namespace=NS, tags=["all"], importance=0.9)
    room.close()
    room = open_room()
    room.flush()
    warm = answers(room)
    assert snapshot_events(room) == {"loaded": 1}
    wait_verified(room)
    room.close()
    assert warm == cold_answers(open_room, data)
    assert warm != saved[0]


def test_an_old_snapshot_put_back_changes_no_answer(data: Path, open_room: OpenRoom) -> None:
    room = open_room()
    ids = fill(room)
    old = save_snapshot(room, NS)
    kept = old.read_bytes()
    for memory_id in ids[:6]:
        room.delete(memory_id, namespace=NS)
    room.update(ids[7], namespace=NS, content="refund of a coffee")
    room.flush()
    new = save_snapshot(room, NS)
    before = answers(room)
    room.close()
    assert not old.exists()
    new.unlink()
    old.write_bytes(kept)
    room = open_room()
    assert answers(room) == before
    wait_verified(room)
    assert snapshot_events(room) == {"loaded": 1}
    assert room.check(read_data=True).ok


def restored(room: Room) -> bool:
    """Whether the snapshot that is there can be loaded."""
    entry = room.engine.registry.get(NS)
    assert entry is not None
    indexes = room.engine.indexes
    found = indexes._restore(entry)
    if found is not None:
        found.index.close()
        found.index.table.drop()
    return found is not None


def test_no_flipped_byte_and_no_cut_of_a_snapshot_gets_through(
    open_room: OpenRoom, saved: tuple[list[Any], Path]
) -> None:
    path = saved[1]
    good = path.read_bytes()
    room = open_room()
    assert restored(room)
    rng = random.Random(7)
    sampled = rng.sample(range(210, len(good)), 120)
    for at in [*range(210), *sampled, len(good) - 1]:
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :])
        assert not restored(room), at
        assert not path.exists()
    for length in [*range(0, 300, 7), *rng.sample(range(300, len(good)), 60), len(good) - 1]:
        path.write_bytes(good[:length])
        assert not restored(room), length
    path.write_bytes(good + b"\0")
    assert not restored(room)
    path.write_bytes(good)
    assert restored(room)


@pytest.mark.parametrize("at", [9, 100, 180, 5000, -1])
def test_a_damaged_snapshot_costs_time_and_no_answer(
    open_room: OpenRoom, saved: tuple[list[Any], Path], at: int
) -> None:
    before, path = saved
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(bytes(raw))
    room = open_room()
    assert answers(room) == before
    assert snapshot_events(room) == {"rejected": 1}
    assert not path.exists()


def foreign_namespace(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


def renamed_seq(path: Path, other: Path) -> None:
    path.rename(path.with_name("1-3.snap"))


def newer_version(path: Path, other: Path) -> None:
    path.write_bytes(b"SRSNAP\0\2" + path.read_bytes()[8:])


def link(path: Path, other: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def directory(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil", [foreign_namespace, renamed_seq, newer_version, link, directory], ids=lambda f: f.__name__
)
def test_a_snapshot_from_elsewhere_is_not_believed(
    open_room: OpenRoom, saved: tuple[list[Any], Path], spoil: Callable[[Path, Path], None]
) -> None:
    before, path = saved
    room = open_room()
    room.store("the secret of company b", namespace="company_b/x")
    room.flush()
    other = save_snapshot(room, "company_b/x")
    room.close()
    spoil(path, other)
    room = open_room()
    assert answers(room)[:-2] == before[:-2]
    assert "loaded" not in snapshot_events(room) or snapshot_events(room).get("rejected")
    assert not any("company b" in m.content for m in room.list(namespaces=[NS], limit=100).memories)


def test_a_snapshot_of_another_store_is_not_believed(
    tmp_path: Path, open_room: OpenRoom, saved: tuple[list[Any], Path], model: WordModel
) -> None:
    strongroom.init(tmp_path / "other", config=Config(embedding=EmbeddingConfig(dimensions=64)))
    with strongroom.open(tmp_path / "other", provider=model) as other:
        fill(other, seed=2)
        theirs = save_snapshot(other, NS)
    saved[1].write_bytes(theirs.read_bytes())
    room = open_room()
    assert answers(room) == saved[0]
    assert snapshot_events(room) == {"rejected": 1}


def test_a_ledger_put_back_makes_the_snapshot_of_its_future_void(data: Path, open_room: OpenRoom) -> None:
    room = open_room()
    fill(room, 10)
    before = answers(room)
    room.close()
    shutil.copy(data / "ledger.db", data / "kept")
    room = open_room()
    room.store("a memory that will never have been", namespace=NS)
    room.flush()
    save_snapshot(room, NS)
    room.close()
    shutil.move(data / "kept", data / "ledger.db")
    room = open_room()
    assert answers(room) == before
    assert snapshot_events(room) == {"rejected": 1}


@pytest.mark.parametrize("extra", [0, 3], ids=["same number", "further on"])
def test_a_snapshot_of_another_history_is_found_out(data: Path, open_room: OpenRoom, extra: int) -> None:
    """The ledger was put back and went on otherwise; the snapshot of the first history stayed."""
    room = open_room(worker=False)
    memory_id = fill_plain(room)
    room.close()
    shutil.copy(data / "ledger.db", data / "kept")
    room = open_room(worker=False)
    room.update(memory_id, namespace=NS, content="the first history")
    path = save_snapshot(room, NS)
    room.close()
    shutil.move(data / "kept", data / "ledger.db")
    snapshot = path.read_bytes()
    path.unlink()
    room = open_room(worker=False)
    room.update(memory_id, namespace=NS, content="the second history")
    for i in range(extra):
        room.store(f"and {i}", namespace=NS)
    room.close()
    path.write_bytes(snapshot)
    room = open_room(worker=False)
    room.search("anything", namespaces=[NS], mode="keyword")
    wait_verified(room)
    assert snapshot_events(room).get("rejected" if not extra else "refuted") == 1
    assert room.search("first", namespaces=[NS], mode="keyword") == []
    (hit,) = room.search("second", namespaces=[NS], mode="keyword")
    assert hit.memory.memory_id == memory_id
    assert not path.exists()


def fill_plain(room: Room) -> UUID:
    made = [room.store(f"plain number {i}", namespace=NS) for i in range(5)]
    return made[2].memory_id


# -- verification ---------------------------------------------------------------------------------------
def lower_seq(data: Path, old: tuple[object, ...], memory_id: bytes) -> None:
    edit(data, "DELETE FROM record WHERE memory_id=? AND field=0", memory_id)
    edit(data, f"INSERT INTO record VALUES ({','.join('?' * len(old))})", *old)


@pytest.mark.parametrize("how", ["dropped", "older", "added", "older than its head"])
def test_tampering_under_a_snapshot_is_found_in_the_background_and_every_question_refused(
    data: Path, open_room: OpenRoom, how: str
) -> None:
    """The row is in no answer, so that only the comparison of all rows can find it."""
    room = open_room(worker=False)
    ids = [room.store(f"memory number {i}", namespace=NS).memory_id for i in range(5)]
    old = rows(data, ids[4].bytes)
    room.update(ids[4], namespace=NS, content="quite another text")
    path = save_snapshot(room, NS)
    room.close()
    if how == "dropped":
        drop_row(data, [ids[4].bytes])
    elif how == "older":
        lower_seq(data, old, ids[4].bytes)
    elif how == "added":
        copy = list(rows(data, ids[0].bytes))
        copy[0], copy[2], copy[4] = None, os.urandom(16), 5  # the number that the update has left unused
        edit(data, f"INSERT INTO record VALUES ({','.join('?' * len(copy))})", *copy)
    else:
        edit(data, "UPDATE record SET version=9 WHERE memory_id=? AND field=0", ids[4].bytes)
    room = open_room(worker=False)
    assert room.search("number 1", namespaces=[NS], mode="keyword", k=1)
    wait_verified(room)
    assert snapshot_events(room) == {"loaded": 1}
    for _ in range(2):
        with pytest.raises(TamperedError):
            room.search("number 1", namespaces=[NS], mode="keyword", k=1)
        with pytest.raises(TamperedError):
            room.list(namespaces=[NS])
    room.close()
    assert path.exists()
    room = open_room(worker=False)
    room.repair(accept_loss=True)
    assert not path.exists()
    assert room.list(namespaces=[NS])


def test_a_snapshot_is_never_written_over_tampered_rows(data: Path, open_room: OpenRoom) -> None:
    room = open_room(worker=False)
    ids = [room.store(f"memory number {i}", namespace=NS).memory_id.bytes for i in range(5)]
    room.search("memory", namespaces=[NS])
    drop_row(data, ids)
    with pytest.raises(TamperedError):
        save_snapshot(room, NS)
    assert list((data / "snapshots").glob("*.snap")) == []


def test_an_index_without_unreadable_rows_is_not_made_a_snapshot_of(data: Path, open_room: OpenRoom) -> None:
    room = open_room(worker=False)
    m = room.store("memory number one", namespace=NS).memory_id.bytes
    room.store("memory number two", namespace=NS)
    room.close()
    sealed = bytearray(rows(data, m)[-1])  # type: ignore[arg-type]
    sealed[80] ^= 1
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=0", bytes(sealed), m)
    room = open_room(worker=False)
    assert len(room.search("memory", namespaces=[NS], mode="keyword")) == 1
    entry = room.engine.registry.get(NS)
    assert entry is not None
    indexes = room.engine.indexes
    assert indexes.snapshots.write(entry, indexes.ready(entry), lambda s: None) is None


def test_a_row_that_no_longer_opens_is_found_after_a_warm_start(data: Path, open_room: OpenRoom) -> None:
    room = open_room(worker=False)
    m = room.store("memory number one", namespace=NS).memory_id.bytes
    room.store("memory number two", namespace=NS)
    save_snapshot(room, NS)
    room.close()
    sealed = bytearray(rows(data, m)[-1])  # type: ignore[arg-type]
    sealed[80] ^= 1
    edit(data, "UPDATE record SET sealed=? WHERE memory_id=? AND field=0", bytes(sealed), m)
    room = open_room(worker=False)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    assert room.engine.indexes.ready(entry).memories == 2
    wait_verified(room)
    assert len(room.search("memory", namespaces=[NS], mode="keyword")) == 1
    assert snapshot_events(room)["refuted"] == 1


# -- settings -------------------------------------------------------------------------------------------
def test_a_new_language_or_model_throws_the_snapshot_away(data: Path, open_room: OpenRoom) -> None:
    room = open_room()
    room.store("the contracts were renewed", namespace=NS)
    room.flush()
    path = save_snapshot(room, NS)
    room.update_namespace(NS, language="none")
    assert not path.exists()
    path = save_snapshot(room, NS)
    room.close()
    room = open_room(provider=WordModel(64, name="another model"))
    room.search("contracts", namespaces=[NS])
    room.flush()
    assert not path.exists()
    assert room.search("contract", namespaces=[NS], mode="keyword") == []
    assert len(room.search("contracts", namespaces=[NS], mode="semantic")) == 1


@pytest.mark.parametrize("name", ["LAYOUT_VERSION", "analysis_id"])
def test_a_snapshot_of_another_program_version_is_built_anew(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changed: Any = 99 if name == "LAYOUT_VERSION" else (lambda language: "another stemmer")
    monkeypatch.setattr(f"strongroom.engine._snapshots.{name}", changed)
    room = open_room()
    assert answers(room) == saved[0]
    assert snapshot_events(room) == {"rejected": 1}


# -- what stands on disk -------------------------------------------------------------------------------
def test_a_snapshot_is_noise(data: Path, open_room: OpenRoom, model: WordModel) -> None:
    room = open_room()
    texts = [f"canary phrase {i} {os.urandom(8).hex()} of the vault" for i in range(30)]
    for text in texts:
        room.store(text, namespace=NS, subject="canary subject " + text[:20], metadata={"k": text})
    room.flush()
    path = save_snapshot(room, NS)
    room.close()
    vectors = list(model.embed(texts))
    stems = ["canary phrase", NS + "/padding", "canary subject"]
    report = scan_directory(data, [*texts, *stems], vectors)
    assert report.clean, report.findings
    (figure,) = [f for f in report.files if f.path.endswith(path.name)]
    assert figure.entropy_bits > 7.9
    assert path.name == f"1-{path.name.split('-')[1]}" and "support" not in path.name
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_two_snapshots_of_one_state_share_no_key(open_room: OpenRoom) -> None:
    room = open_room()
    fill(room, 5)
    first = save_snapshot(room, NS).read_bytes()
    second = save_snapshot(room, NS).read_bytes()
    assert len(first) == len(second)
    same = sum(a == b for a, b in zip(first[48:], second[48:], strict=True))
    assert same < len(first) / 100


def test_discarding_takes_the_file_and_its_wrapped_key(
    open_room: OpenRoom, saved: tuple[list[Any], Path]
) -> None:
    path = saved[1]
    with path.open("rb") as held:  # a reader that has the file open still sees its bytes
        room = open_room()
        entry = room.engine.registry.get(NS)
        assert entry is not None
        assert room.engine.indexes.discard_snapshots(entry.ns) == 1
        assert held.read(154) == bytes(154)
    assert not path.exists()
    assert room.engine.indexes.discard_snapshots(entry.ns) == 0
    assert answers(room) == saved[0]


def test_check_warns_of_a_bad_snapshot_and_says_what_to_do(
    open_room: OpenRoom, saved: tuple[list[Any], Path]
) -> None:
    room = open_room()
    assert room.check(read_data=True).ok
    raw = bytearray(saved[1].read_bytes())
    raw[-3] ^= 1
    saved[1].write_bytes(bytes(raw))
    assert not [f for f in room.check().findings if f.code == "snapshot_unreadable"]
    (finding,) = [f for f in room.check(read_data=True).findings if f.code == "snapshot_unreadable"]
    assert finding.severity == Severity.WARNING and finding.hint and saved[1].name in finding.where
    raw[60] ^= 1
    saved[1].write_bytes(bytes(raw))
    assert [f for f in room.check().findings if f.code == "snapshot_unreadable"]


# -- writing --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_a_full_disk_while_writing_leaves_store_and_old_snapshot_whole(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    path = saved[1]
    kept = path.read_bytes()
    room = open_room()
    room.store("written when the disk was nearly full", namespace=NS)
    write = _snapshot_file.SnapshotSink.write
    written = 0

    def full(self: _snapshot_file.SnapshotSink, piece: bytes | memoryview) -> int:
        nonlocal written
        written += len(piece)
        if written > share * len(kept):
            raise OSError(errno.ENOSPC, "no space")
        return write(self, piece)

    monkeypatch.setattr(_snapshot_file.SnapshotSink, "write", full)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    indexes = room.engine.indexes
    assert indexes.snapshots.write(entry, indexes.ready(entry), lambda s: None) is None
    monkeypatch.undo()
    assert snapshot_events(room)["failed"] == 1
    assert path.read_bytes() == kept
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".lock"] == [path.name]
    room.store("and afterwards", namespace=NS)
    assert len(room.search("nearly afterwards", namespaces=[NS], mode="keyword")) == 2


def test_a_snapshot_leaves_room_to_the_ledger(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60 << 20))
    room = open_room()
    entry = room.engine.registry.get(NS)
    assert entry is not None
    indexes = room.engine.indexes
    assert indexes.snapshots.write(entry, indexes.ready(entry), lambda s: None) is None
    assert saved[1].exists()


def test_only_one_process_writes_and_a_second_does_not_wait(open_room: OpenRoom) -> None:
    first, second = open_room(), open_room(worker=False)
    fill(first, 10)
    second.list(namespaces=[NS])
    entry = second.engine.registry.get(NS)
    assert entry is not None
    with first.engine.indexes.snapshots._locked(0.0):
        other = second.engine.indexes
        assert other.snapshots.write(entry, other.ready(entry), lambda s: None) is None
    save_snapshot(second, NS)
    before = answers(first)
    second.close()
    third = open_room(worker=False)
    assert answers(third) == before
    assert snapshot_events(third) == {"loaded": 1}


def test_a_snapshot_taken_while_others_write_is_one_consistent_state(data: Path, open_room: OpenRoom) -> None:
    room = open_room(worker=False)
    fill_plain(room)
    stop = threading.Event()

    def write() -> None:
        for i in itertools.count():
            m = room.store(f"written meanwhile {i}", namespace=NS)
            if i % 3 == 0:
                room.update(m.memory_id, namespace=NS, content=f"changed meanwhile {i}")
            if i % 5 == 0:
                room.delete(m.memory_id, namespace=NS)
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    kept = []
    for _ in range(6):
        path = save_snapshot(room, NS)
        kept.append((path, path.read_bytes()))
        time.sleep(0.02)
    stop.set()
    writer.join()
    room.close()
    expected = cold_answers(lambda **o: open_room(worker=False, **o), data)
    for path, raw in kept:
        shutil.rmtree(data / "snapshots", ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(raw)
        room = open_room(worker=False)
        assert answers(room) == expected
        wait_verified(room)
        assert snapshot_events(room) == {"loaded": 1}
        room.close()


@pytest.mark.parametrize("seed", range(4))
def test_random_histories_come_back_the_same(data: Path, open_room: OpenRoom, seed: int) -> None:
    rng = random.Random(seed)
    room = open_room()
    ids = fill(room, 12, seed)
    for _ in range(3):
        for _ in range(15):
            kind = rng.randrange(4)
            if kind == 0 or not ids:
                ids.append(
                    room.store(f"{rng.choice(WORDS)} {rng.random()}", namespace=NS, tags=["all"]).memory_id
                )
            elif kind == 1:
                room.update(rng.choice(ids), namespace=NS, content=f"{rng.choice(WORDS)} {rng.choice(WORDS)}")
            elif kind == 2:
                room.update(rng.choice(ids), namespace=NS, importance=rng.random())
            else:
                room.delete(ids.pop(rng.randrange(len(ids))), namespace=NS)
            if rng.random() < 0.1:
                save_snapshot(room, NS)
        room.flush()
        before = answers(room)
        room.close()
        room = open_room()
        assert answers(room) == before
        wait_verified(room)
        assert snapshot_events(room).get("refuted") is None
    room.close()
    assert cold_answers(open_room, data) == before


# -- when -----------------------------------------------------------------------------------------------
def store_with(tmp_path: Path, **recall: Any) -> Path:
    directory = tmp_path / "other"
    config = Config(embedding=EmbeddingConfig(dimensions=64), recall=RecallConfig(**recall))
    strongroom.init(directory, config=config)
    return directory


def tended(room: Room) -> list[Path]:
    """The snapshots after what is due was done."""
    indexes = room.engine.indexes
    indexes.tend()
    writer = indexes._keeper._writer
    if writer is not None:
        writer.join(30)
    return [f.path for f in indexes.snapshots.files()]


def test_a_snapshot_is_written_when_a_namespace_is_large_and_again_when_it_has_grown(
    tmp_path: Path, model: WordModel
) -> None:
    path = store_with(
        tmp_path,
        snapshot_rows_min=10,
        snapshot_changes_min=5,
        snapshot_changes_share=0.1,
        snapshot_interval_ms_min=0,
    )
    with strongroom.open(path, provider=model, worker=False) as room:
        room.store_many([{"content": f"number {i}", "namespace": NS} for i in range(9)])
        room.list(namespaces=[NS])
        assert tended(room) == []
        room.store("number 10", namespace=NS)
        room.list(namespaces=[NS])
        (first,) = tended(room)
        for i in range(4):
            room.store(f"more {i}", namespace=NS)
        room.list(namespaces=[NS])
        room.engine.indexes._keeper._of(1).not_before_s = 0.0
        assert tended(room) == [first]
        room.store_many([{"content": f"grown {i}", "namespace": NS} for i in range(4)])
        room.list(namespaces=[NS])
        room.engine.indexes._keeper._of(1).not_before_s = 0.0
        (second,) = tended(room)
        assert second != first


def test_what_verifying_and_writing_took_goes_back_to_the_system(
    tmp_path: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a thread of the keeper has ended its memory is given back; not before, and once."""
    calls: list[bool] = []
    path = store_with(tmp_path, snapshot_rows_min=10, snapshot_changes_min=5, snapshot_interval_ms_min=0)
    with strongroom.open(path, provider=model, worker=False) as room:
        room.store_many([{"content": f"number {i}", "namespace": NS} for i in range(20)])
        room.list(namespaces=[NS])
        keeper = room.engine.indexes._keeper
        monkeypatch.setattr(_keeper, "give_back", lambda: calls.append(keeper.is_busy(1)))
        assert len(tended(room)) == 1
        for _ in range(2):
            room.engine.indexes.tend()
        until(lambda: calls == [False])  # the housekeeping may be at it
    with strongroom.open(path, provider=model, worker=False) as room:
        room.list(namespaces=[NS])
        wait_verified(room)
        keeper = room.engine.indexes._keeper
        for _ in range(2):
            room.engine.indexes.tend()
        until(lambda: calls == [False, False])


def test_many_memories_do_not_let_the_changes_grow_that_a_start_reads_again(
    tmp_path: Path, model: WordModel
) -> None:
    """However many memories there are, a snapshot is due after so many changes."""
    path = store_with(
        tmp_path, snapshot_rows_min=10, snapshot_changes_min=5, snapshot_changes_share=0.9,
        snapshot_changes_max=20, snapshot_interval_ms_min=0,
    )  # fmt: skip
    with strongroom.open(path, provider=model, worker=False) as room:
        room.store_many([{"content": f"number {i}", "namespace": NS} for i in range(100)])
        room.list(namespaces=[NS])
        (first,) = tended(room)
        room.store_many([{"content": f"more {i}", "namespace": NS} for i in range(15)])
        room.list(namespaces=[NS])
        room.engine.indexes._keeper._of(1).not_before_s = 0.0
        assert tended(room) == [first]
        room.store_many([{"content": f"yet more {i}", "namespace": NS} for i in range(15)])
        room.list(namespaces=[NS])
        room.engine.indexes._keeper._of(1).not_before_s = 0.0
        assert tended(room) != [first]


def test_a_snapshot_is_written_again_when_lists_were_made(
    tmp_path: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot is written while vector lists are being made; one that was written before is written again
    for them, and the process after it has the lists at once. The key of the old file is gone."""
    path = store_with(tmp_path, snapshot_rows_min=10, snapshot_interval_ms_min=0)
    with strongroom.open(path, provider=model, worker=False) as room:
        texts = [f"n {i}" for i in range(200)]
        room.store_many({"content": t, "namespace": NS, "embedding": model.vector(t)} for t in texts)
        room.list(namespaces=[NS])
        (first,) = tended(room)
    toml = path / "strongroom.toml"
    toml.write_text(toml.read_text().replace("exact_rows_max = 20000", "exact_rows_max = 100"))
    with strongroom.open(path, provider=model, worker=False) as room, first.open("rb", buffering=0) as old:
        header = old.read(_snapshot_file.HEADER_BYTES)
        room.search("n 7", namespaces=[NS])
        ((_, index),) = room.engine.indexes.loaded_entries()
        assert index.wait_idle(30) and index.vectors is not None and not index.vectors.is_exact
        wait_verified(room)
        monkeypatch.setattr(type(index.vectors), "is_building", True)
        assert tended(room) == [first] and first.read_bytes().startswith(header)
        monkeypatch.undo()
        assert tended(room) == [first] and not first.read_bytes().startswith(header)
        old.seek(0)
        assert not any(old.read(_snapshot_file.HEADER_BYTES + 50))
    with strongroom.open(path, provider=model) as room:
        room.list(namespaces=[NS])
        ((_, index),) = room.engine.indexes.loaded_entries()
        assert index.vectors is not None and not index.vectors.is_exact
        wait_verified(room)
        before = first.read_bytes()
        assert tended(room) == [first] and first.read_bytes() == before


@pytest.mark.parametrize(("read_s", "written"), [(0.0, 0), (60.0, 1)])
def test_closing_takes_longer_where_reading_the_rows_did(
    tmp_path: Path, model: WordModel, read_s: float, written: int
) -> None:
    """A process that took long to read the rows writes a snapshot when it is closed, though the configured
    time is too short: otherwise every process would read them all."""
    path = store_with(tmp_path, snapshot_rows_min=3, snapshot_close_ms_max=0)
    with strongroom.open(path, provider=model) as room:
        room.store_many([{"content": f"number {i}", "namespace": NS} for i in range(4)])
        room.list(namespaces=[NS])
        room.engine.indexes._keeper._of(1).read_s = read_s
    assert len(list((path / "snapshots").glob("*.snap"))) == written


def test_the_namespace_is_loaded_beside_the_model(data: Path, open_room: OpenRoom) -> None:
    """In a new process the first search loads the namespace on another thread before its model is there; it
    gives the same answer, also when that thread failed, and closing waits for it."""
    room = open_room()
    fill(room)
    asked = [h.memory.memory_id for h in room.search("price", namespaces=[NS], k=5)]
    room.close()
    for broken in (False, True):
        room = open_room()
        engine = room.engine
        entry = engine.registry.get(NS)
        assert entry is not None
        model = engine.models._providers.pop("default")
        loaded = threading.Event()
        ready = engine.indexes.ready

        def slow(entry: Any, broken: bool = broken, ready: Any = ready, loaded: Any = loaded) -> Any:
            if threading.current_thread().name == "strongroom-ahead":
                loaded.set()
                if broken:
                    raise StorageBusyError("broken on purpose")
            return ready(entry)

        def provider(name: str, loaded: Any = loaded, model: Any = model) -> Any:
            assert loaded.wait(20)  # the model comes after the namespace was begun
            return model

        engine.indexes.ready = slow  # type: ignore[method-assign]
        engine.models.provider = provider  # type: ignore[method-assign]
        assert [h.memory.memory_id for h in room.search("price", namespaces=[NS], k=5)] == asked
        room.close()
        assert not [t for t in threading.enumerate() if t.name == "strongroom-ahead"]


def test_closing_writes_what_is_worth_it(tmp_path: Path, model: WordModel) -> None:
    path = store_with(tmp_path, snapshot_rows_min=3)
    with strongroom.open(path, provider=model) as room:
        ids = [room.store(f"number {i}", namespace=NS).memory_id for i in range(4)]
        room.list(namespaces=[NS])
    assert len(list((path / "snapshots").glob("*.snap"))) == 1
    with strongroom.open(path, provider=model) as room:
        assert {m.memory_id for m in room.list(namespaces=[NS]).memories} == set(ids)
        assert snapshot_events(room) == {"loaded": 1}


def test_without_the_setting_no_snapshot_is_written_or_read(tmp_path: Path, model: WordModel) -> None:
    path = store_with(tmp_path, snapshots=False, snapshot_rows_min=1)
    with strongroom.open(path, provider=model) as room:
        room.store("number one", namespace=NS)
        room.list(namespaces=[NS])
        save_snapshot(room, NS)
        (file,) = room.engine.indexes.snapshots.files()
        file.path.rename(file.path.with_name("kept"))
        assert tended(room) == []
    assert not list((path / "snapshots").glob("*.snap"))
    (path / "snapshots" / "kept").rename(file.path)
    with strongroom.open(path, provider=model) as room:
        assert len(room.list(namespaces=[NS]).memories) == 1
        assert snapshot_events(room) == {}


@pytest.mark.parametrize("loaded", [True, False])
def test_a_deleted_text_leaves_the_snapshots_within_the_bound(
    tmp_path: Path, model: WordModel, loaded: bool
) -> None:
    """A process that has the namespace loaded writes a new one; any other throws the old one away."""
    now = [time.time_ns() // 1000]
    path = store_with(tmp_path, snapshot_rows_min=1, snapshot_stale_ms_max=1000, snapshot_interval_ms_min=0)
    with strongroom.open(path, provider=model, worker=False, clock_us=lambda: now[0]) as room:
        ids = [room.store(f"number {i}", namespace=NS).memory_id for i in range(3)]
        room.list(namespaces=[NS])
        (first,) = tended(room)
    now[0] += 5_000_000
    with strongroom.open(path, provider=model, worker=False, clock_us=lambda: now[0]) as room:
        assert tended(room) == [first]  # old, but it holds nothing that was deleted
        if loaded:
            room.list(namespaces=[NS])
            wait_verified(room)
            now[0] += -5_000_000 + 600_000
        room.delete(ids[0], namespace=NS)
        if loaded:
            room.list(namespaces=[NS])
        room.engine.indexes._keeper._sweep_at_s = 0.0
        left = tended(room)
        assert first not in left
        assert len(left) == (1 if loaded else 0)


def test_discarding_ends_the_writing_that_is_under_way(
    tmp_path: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store_with(tmp_path, snapshot_rows_min=1)
    begun, go_on = threading.Event(), threading.Event()
    begin = _snapshot_file.begin

    def slow(*args: Any) -> Any:
        begun.set()
        go_on.wait(20)
        return begin(*args)

    monkeypatch.setattr(_snapshot_file, "begin", slow)
    monkeypatch.setattr(_snapshot_file, "_SYNC_BYTES", 1)
    with strongroom.open(path, provider=model, worker=False) as room:
        room.store("number one", namespace=NS)
        room.list(namespaces=[NS])
        room.engine.indexes.tend()
        assert begun.wait(20)
        threading.Timer(0.2, go_on.set).start()
        room.engine.indexes.discard_snapshots(1)
        assert room.engine.indexes.snapshots.files() == []
        assert list((path / "snapshots").glob(".*.draft")) == []
        assert len(room.list(namespaces=[NS]).memories) == 1


def test_discarding_waits_for_another_process_and_says_when_it_was_in_vain(
    open_room: OpenRoom, saved: tuple[list[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.engine._snapshots._LOCK_WAIT_S", 0.1)
    first, second = open_room(), open_room(worker=False)
    with first.engine.indexes.snapshots._locked(0.0):
        with pytest.raises(StorageBusyError):
            second.engine.indexes.discard_snapshots(1)
        assert not saved[1].exists()


WRITER = """
import sys, strongroom
from tests.support.word_model import WordModel
from tests.engine.conftest import save_snapshot
with strongroom.open(sys.argv[1], provider=WordModel(64), worker=False) as room:
    i = 0
    while True:
        room.store(f"written while {i}", namespace="company_a/support")
        save_snapshot(room, "company_a/support")
        print(i, flush=True)
        i += 1
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_snapshot_or_none(
    data: Path, open_room: OpenRoom
) -> None:
    room = open_room()
    fill(room, 20)
    room.close()
    loaded = 0
    for round_no in range(6):
        child = spawn(WRITER, data)
        assert child.stdout is not None
        seen = child.stdout.readline()
        assert seen, "the writer did not start"
        time.sleep(0.013 * round_no)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=30)
        room = open_room(worker=False)
        warm = answers(room)
        events = snapshot_events(room)
        assert set(events) <= {"loaded"}, events
        loaded += bool(events)
        wait_verified(room)
        assert set(snapshot_events(room)) <= {"loaded"}
        assert room.check(read_data=True).ok
        save_snapshot(room, NS)
        assert not list((data / "snapshots").glob(".*.draft"))
        assert len(list((data / "snapshots").glob("*.snap"))) == 1
        room.close()
    assert loaded >= 5
    assert warm == cold_answers(lambda **o: open_room(worker=False, **o), data)
