"""Waves of re-encryption over an opened store: what they keep, what they end, and who may order them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.engine.conftest import OpenRoom, save_snapshot
from tests.rotation.rotated import NOTE, NS, assert_all_there, fill, keys_in_use, ns_of, rows_under, states

from strongroom.crypto import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    ResealJob,
    SecretKey,
    _record,
    reseal_many,
    sealed_header,
)
from strongroom.engine import Room
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    InternalError,
    InvalidInputError,
    KeyMovedError,
    NotFoundError,
    StorageBusyError,
)
from strongroom.keyring import KeyState, _rotating
from strongroom.ledger import WaveState, WriteBatch
from strongroom.ledger._apply import Transaction
from strongroom.model import SYSTEM_NAME, RotationState


def test_every_record_goes_to_a_new_key_and_the_old_ones_end(room: Room) -> None:
    """After a rotation no row is under an old key; finalised, the old keys are gone but the purpose root."""
    wanted = fill(room)
    before = keys_in_use(room)
    count = rows_under(room, before)
    assert count >= 2 * len(wanted)  # a memory and its vector each
    (rotation,) = room.rotate("data", namespaces=[NS])
    assert rotation.state == RotationState.MOVED and rotation.done == 1.0
    assert rotation.moved == count
    assert not keys_in_use(room) & before
    assert {states(room)[k] for k in before} == {KeyState.DECRYPT_ONLY}
    assert_all_there(room, wanted)
    done = room.rotation_finalise(rotation.id)
    assert done.state == RotationState.FINALISED and room.rotation_status() == []
    root = room.engine.vault.keyring.key_ids_of(ns_of(room), b"")[0]
    assert {k for k in before if states(room)[k] != KeyState.DESTROYED} <= {root}
    assert_all_there(room, wanted)


@pytest.mark.parametrize("wrong", ["does not open", "opens to something else"])
def test_a_record_that_was_sealed_anew_and_does_not_open_to_what_it_was_is_not_kept(
    room: Room, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """A fault of the machine while sealing: the wave stops, no row of the batch changes, later it goes on."""
    wanted = fill(room)
    before = keys_in_use(room)
    count = rows_under(room, before)
    real = _record._sealed

    def faulty(key: SecretKey, key_id: int, bound: bytes, plaintext: bytes, suite: int, salt: bytes) -> bytes:
        if wrong == "does not open":
            made = real(key, key_id, bound, plaintext, suite, salt)
            return made[:-1] + bytes([made[-1] ^ 1])
        return real(key, key_id, bound, plaintext[:-1] + bytes([plaintext[-1] ^ 1]), suite, salt)

    def resealed(jobs: Sequence[ResealJob]) -> list[bytes | None]:
        with pytest.MonkeyPatch.context() as only_here:
            only_here.setattr(_record, "_sealed", faulty)
            return reseal_many(jobs)

    with monkeypatch.context() as patch:
        patch.setattr(_rotating, "reseal_many", resealed)
        waves = room.engine.rotations.waves
        number = waves.begin(ns_of(room), "data", NOTE)
        with pytest.raises(InternalError):
            waves.work(number, NOTE)
    assert rows_under(room, before) == count
    assert_all_there(room, wanted)
    (done,) = room.rotation_work([number])
    assert done.state == RotationState.MOVED and not keys_in_use(room) & before
    assert_all_there(room, wanted)


def test_projections_do_not_look_at_the_rows_again(room: Room) -> None:
    """A row keeps its number: the index, its watermark and the head's number are what they were."""
    fill(room)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    index = room.engine.indexes.ready(entry)
    before = (index.watermark, room.engine.ledger.head(entry.ns)[0])
    head = room.engine.ledger.head(entry.ns)[1]
    room.rotate("data", namespaces=[NS])
    assert room.engine.indexes.ready(entry) is index
    assert (index.watermark, room.engine.ledger.head(entry.ns)[0]) == before
    assert room.engine.ledger.head(entry.ns)[1] != head


def test_a_rollback_returns_to_the_keys_before(room: Room) -> None:
    """Rolled back, rows are under the former keys, which seal again; what came meanwhile is kept."""
    wanted = fill(room)
    before = keys_in_use(room)
    (rotation,) = room.rotate("data", namespaces=[NS])
    late = room.store("late alpha", namespace=NS, subject="user:1")
    stranger = room.store("stranger alpha", namespace=NS, subject="user:new")
    wanted |= {late.memory_id: late.content, stranger.memory_id: stranger.content}
    middle = keys_in_use(room)
    back = room.rotation_rollback(rotation.id)
    assert back.state == RotationState.RETURNED
    room.flush()
    after = keys_in_use(room)
    assert not after & middle and before <= after
    assert {states(room)[k] for k in middle} == {KeyState.DESTROYED}
    assert {states(room)[k] for k in before} == {KeyState.ACTIVE}
    assert_all_there(room, wanted)
    with pytest.raises(ConflictError):
        room.rotation_finalise(rotation.id)
    (again,) = room.rotate("data", namespaces=[NS])
    room.rotation_finalise(again.id)
    assert_all_there(room, wanted)


def test_a_change_of_suite_reaches_every_record_and_every_later_one(room: Room, open_room: OpenRoom) -> None:
    """After a change of suite all rows say so in their header, new ones too, also after a restart."""
    wanted = fill(room, 20)
    (rotation,) = room.rotate("suite", suite="ChaCha20-Poly1305", namespaces=[NS])
    assert rotation.suite == "ChaCha20-Poly1305"
    room.rotation_finalise(rotation.id)
    room.close()
    room = open_room()
    late = room.store("late alpha", namespace=NS, subject="user:fresh")
    wanted[late.memory_id] = late.content
    room.flush()
    rows = list(room.engine.ledger.iter_changes(ns_of(room)))
    assert {sealed_header(r.sealed)[0] for r in rows} == {CHACHA20_POLY1305}
    assert_all_there(room, wanted)
    other = room.store("elsewhere", namespace="b/other")
    row = room.engine.ledger.get(ns_of(room, "b/other"), other.memory_id.bytes)
    assert row is not None and sealed_header(row.sealed)[0] != CHACHA20_POLY1305


def test_one_key_alone(room: Room) -> None:
    """A rotation of one data key moves what that key has sealed and nothing else."""
    wanted = fill(room, 24)
    victim = max(keys_in_use(room))
    others, count = keys_in_use(room) - {victim}, rows_under(room, {victim})
    (rotation,) = room.rotate("data", key_id=victim)
    assert others <= keys_in_use(room) and victim not in keys_in_use(room)
    assert rotation.moved == count > 0
    room.rotation_finalise(rotation.id)
    assert states(room)[victim] == KeyState.DESTROYED
    assert {states(room)[k] for k in others} == {KeyState.ACTIVE}
    assert_all_there(room, wanted)


def test_the_stores_own_namespace_rotates_and_audit_entries_stay_readable(
    room: Room, open_room: OpenRoom
) -> None:
    """Names, API keys and old audit entries are there after the system namespace was rotated."""
    fill(room, 4)
    key, text = room.keys_create("agent", "read-only", [NS])
    count = len(room.audit(1000))
    (rotation,) = room.rotate("data", namespaces=[SYSTEM_NAME])
    room.rotation_finalise(rotation.id)
    assert len(room.audit(1000)) > count
    room.close()
    room = open_room()
    assert [k.key_id for k in room.keys_list()] == [key.key_id]
    assert room.engine.authenticate(text).search("alpha", namespaces=[NS], mode="keyword")
    assert len(room.audit(1000)) > count
    assert room.check(read_data=True).findings == ()


def test_live_traffic_goes_on_while_rows_move(room: Room, open_room: OpenRoom) -> None:
    """Two opened stores store, update, delete and search during rotations: nothing fails or is lost."""
    wanted = fill(room, 40)
    other = open_room(worker=False)
    stop, problems = threading.Event(), []

    def traffic(mine: Room, name: str, kept: dict[object, str]) -> None:
        n = 0
        try:
            while not stop.is_set():
                n += 1
                m = mine.store(f"{name} live{n} alpha", namespace=NS, subject=f"user:{n % 9}")
                if n % 3 == 0:
                    mine.update(m.memory_id, namespace=NS, importance=0.9)
                if n % 4 == 0:
                    assert mine.delete(m.memory_id, namespace=NS)
                else:
                    kept[m.memory_id] = m.content
                found = mine.search("alpha", namespaces=[NS], mode="keyword", k=1000)
                assert len(found) >= 40
        except BaseException as e:
            problems.append(e)

    kept: list[dict[object, str]] = [{}, {}]
    threads = [
        threading.Thread(target=traffic, args=(r, f"t{i}", kept[i])) for i, r in enumerate((room, other))
    ]
    for t in threads:
        t.start()
    for _ in range(3):
        (rotation,) = room.rotate("data", namespaces=[NS])
        room.rotation_finalise(rotation.id)
    stop.set()
    for t in threads:
        t.join()
    assert problems == []
    room.flush(timeout_s=60)
    assert_all_there(room, {**wanted, **kept[0], **kept[1]})  # type: ignore[dict-item]


def test_a_row_sealed_with_a_key_that_was_left_is_not_taken(room: Room, open_room: OpenRoom) -> None:
    """The ledger refuses a row under a key that was left; the writer repeats it with the next one."""
    fill(room, 8)
    stale = open_room(worker=False)
    stale.engine.vault.keyring._cache._recheck_s = 3600  # a process that looks at the keyring much too seldom
    key = stale.engine.vault.data_key(ns_of(room), "user:1")
    (rotation,) = room.rotate("data", namespaces=[NS])
    row = stale.engine.ledger.changes(ns_of(room), 0, 1)[0]
    with pytest.raises(KeyMovedError):
        from strongroom.ledger import Put, WriteBatch

        put = Put(row.ns, b"x" * 16, 0, 1, 1, key.key_id, 1, 0, row.sealed)
        stale.engine.ledger.commit(WriteBatch(puts=[put]))
    m = stale.store("from a stale process alpha", namespace=NS, subject="user:1")
    sealed = room.engine.ledger.get(ns_of(room), m.memory_id.bytes)
    assert sealed is not None and sealed.key_id > key.key_id
    many = stale.store_many({"content": f"many{i}", "namespace": NS, "subject": "user:2"} for i in range(3))
    assert len(many) == 3
    room.rotation_finalise(rotation.id)
    assert room.check(read_data=True).findings == ()


def test_a_row_that_was_written_in_the_transaction_that_closes_its_key_moves_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Group commit puts a store under the key before and the closing of that key into one transaction."""
    wanted = fill(room, 8)
    held: list[WriteBatch] = []
    run = Transaction.run

    def hold(batch: WriteBatch) -> object:
        if batch.filling is not None:
            assert batch.filling.fill([batch]) == [None]
            batch.filling = None
        held.append(batch)
        raise StorageBusyError

    with monkeypatch.context() as patch:
        patch.setattr(room.engine.ledger, "commit", hold)
        with pytest.raises(StorageBusyError):
            room.store("late alpha", namespace=NS, subject="user:1")
    (batch,) = [b for b in held if b.puts]

    def together(self: Transaction, work: Any) -> Any:
        if "begin_moving" in getattr(getattr(work, "work", work), "__qualname__", "") and held:
            held.clear()
            run(self, batch)
        return run(self, work)

    monkeypatch.setattr(Transaction, "run", together)
    (rotation,) = room.rotate("data", namespaces=[NS])
    assert not held
    assert room.rotation_finalise(rotation.id).state == RotationState.FINALISED
    found = room.search("late", namespaces=[NS], mode="keyword", k=5)
    late = [h.memory for h in found if h.memory.content == "late alpha"]
    room.flush()
    assert len(late) == 1
    assert_all_there(room, wanted | {late[0].memory_id: late[0].content})


def test_pause_and_resume(room: Room) -> None:
    """A paused rotation stays where it is and says so; resumed it ends; an ended one cannot be paused."""
    wanted = fill(room, 30)
    (rotation,) = room.rotate("data", namespaces=[NS], wait=False)
    assert room.rotation_pause(rotation.id).paused
    (same,) = room.rotation_work([rotation.id])
    assert same.paused and same.state == RotationState.PREPARING
    with pytest.raises(ConflictError):
        room.rotate("data", namespaces=[NS])
    assert_all_there(room, wanted)
    assert not room.rotation_resume(rotation.id).paused
    (done,) = room.rotation_work([rotation.id])
    assert done.state == RotationState.MOVED
    with pytest.raises(ConflictError):
        room.rotation_pause(rotation.id)


def test_finalising_waits_until_all_has_moved(room: Room) -> None:
    """While rows are to be moved, or under a disabled key, nothing is destroyed."""
    wanted = fill(room, 16)
    keyring = room.engine.vault.keyring
    (rotation,) = room.rotate("data", namespaces=[NS], wait=False)
    with pytest.raises(ConflictError):
        room.rotation_finalise(rotation.id)
    waves = room.engine.rotations.waves
    waves.work(rotation.id, NOTE, once=True)  # the next keys are made
    victim = min(keys_in_use(room) - set(keyring.key_ids_of(ns_of(room), b"")))
    keyring.disable_data_key(victim)
    waves.work(rotation.id, NOTE)
    with pytest.raises(ConflictError, match="still sealed"):
        room.rotation_finalise(rotation.id)
    assert KeyState.DESTROYED not in states(room).values()
    keyring.enable_data_key(victim)
    assert len(wanted) == 16
    back = room.rotation_rollback(rotation.id)
    assert back.state == RotationState.RETURNED
    assert_all_there(room, wanted)


def test_a_snapshot_of_before_is_thrown_away(room: Room, open_room: OpenRoom) -> None:
    """Snapshots go with the rows that they were made of; the next start builds from the ledger."""
    wanted = fill(room, 30)
    file = save_snapshot(room, NS)
    assert file.exists()
    room.rotate("data", namespaces=[NS])
    assert not file.exists()
    room.close()
    assert_all_there(open_room(), wanted)


def test_several_workers_do_nothing_twice(room: Room, open_room: OpenRoom) -> None:
    """Four workers over two opened stores move each row once."""
    wanted = fill(room, 120)
    other = open_room(worker=False)
    from strongroom.ledger import _waves

    parts = _waves.PART_ROWS
    _waves.PART_ROWS = 20  # type: ignore[misc]
    try:
        count = rows_under(room, keys_in_use(room))
        (rotation,) = room.rotate("data", namespaces=[NS], wait=False)
        threads = [threading.Thread(target=r.rotation_work, args=([rotation.id],)) for r in (room, other) * 2]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        _waves.PART_ROWS = parts  # type: ignore[misc]
    (done,) = room.rotation_status()
    assert done.state == RotationState.MOVED and done.moved == count
    assert_all_there(room, wanted)


def test_what_was_done_is_in_the_audit_log_and_in_the_history_of_the_keys(room: Room) -> None:
    """Who rotated, why, how much, and that keys were destroyed."""
    fill(room, 8)
    (rotation,) = room.rotate("data", namespaces=[NS], reason="yearly")
    room.rotation_finalise(rotation.id)
    told = [e.reason for e in room.audit(100) if e.action == "rotate"]
    assert any("yearly" in r for r in told) and any("records are moved" in r for r in told)
    assert any("finalised" in r for r in told)
    events = [e.event for e in room.engine.vault.keyring.history("data", ns_of(room))]
    assert [e.change for e in events] == ["begun", "rotated", "destroyed"]
    assert events[0].reason == "yearly"


def test_who_may_rotate(room: Room, data: Path) -> None:
    """A read-write key may not; an admin of one namespace may there, and not the store's own."""
    fill(room, 4)
    room.store("elsewhere", namespace="b/x")
    _, writer = room.keys_create("w", "read-write", [NS])
    _, admin = room.keys_create("a", "admin", [NS])
    session = room.engine.authenticate(writer)
    with pytest.raises(AccessDeniedError):
        session.rotate("data", namespaces=[NS])
    with pytest.raises(AccessDeniedError):
        session.rotation_status()
    session = room.engine.authenticate(admin)
    for denied in ("b/x", SYSTEM_NAME, "*"):
        with pytest.raises(AccessDeniedError):
            session.rotate("data", namespaces=[denied])
    (rotation,) = session.rotate("data", namespaces=[NS])
    (mine,) = room.rotate("data", namespaces=["b/x"])
    assert [r.id for r in session.rotation_status()] == [rotation.id]
    with pytest.raises(AccessDeniedError):
        session.rotation_finalise(mine.id)


def test_bad_orders(room: Room) -> None:
    """Orders that mean nothing are refused with a typed error."""
    fill(room, 4)
    for what, options in (
        ("everything", {}),
        ("suite", {}),
        ("suite", {"suite": "ROT13"}),
        ("data", {"suite": "AES-256-GCM"}),
        ("data", {"namespaces": []}),
        ("data", {"key_id": 10_000}),
    ):
        with pytest.raises(InvalidInputError):
            room.rotate(what, **options)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        room.rotate("data", namespaces=["no/such"])
    with pytest.raises(NotFoundError):
        room.rotation_pause(99)
    with pytest.raises(InvalidInputError):
        room.rotation_pause(0)
    assert room.rotation_status() == []


def test_finalising_loses_against_a_rollback_that_comes_between(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rolled back while every record is opened once more, it destroys no key, of neither epoch."""
    wanted = fill(room, 16)
    before = keys_in_use(room)
    (rotation,) = room.rotate("data", namespaces=[NS])
    host = room.engine.rotations.host
    opens = host.opens

    def meanwhile(ns: int) -> int:
        room.rotation_rollback(rotation.id, wait=False)
        return opens(ns)

    with monkeypatch.context() as patch:
        patch.setattr(host, "opens", meanwhile)
        with pytest.raises(ConflictError, match="rolled back"):
            room.rotation_finalise(rotation.id)
    assert KeyState.DESTROYED not in states(room).values()
    (done,) = room.rotation_work([rotation.id])
    assert done.state == RotationState.RETURNED and keys_in_use(room) == before
    assert_all_there(room, wanted)


def test_destroyed_keys_leave_the_log_also_when_the_first_attempt_came_no_further(room: Room) -> None:
    """A reader kept the log; the repetition, which has no key left to destroy, cuts it all the same."""
    fill(room, 16)
    path = room.engine.vault.keyring._book.path
    (rotation,) = room.rotate("data", namespaces=[NS])
    db = apsw.Connection(str(path))
    sql = "SELECT wrapped FROM data_keys WHERE ns = ? AND subject <> x'' AND state = 3"
    wrapped = [w for (w,) in db.execute(sql, (ns_of(room),))]
    room.engine.vault.keyring._book.db.set_busy_timeout(50)
    db.execute("BEGIN")
    assert db.execute("SELECT count(*) FROM data_keys").get
    with pytest.raises(StorageBusyError):
        room.rotation_finalise(rotation.id)
    db.execute("ROLLBACK")
    db.close()
    assert room.rotation_finalise(rotation.id).state == RotationState.FINALISED
    raw = b"".join(p.read_bytes() for p in path.parent.glob("keyring.db*"))
    assert len(wrapped) == 7 and not [w for w in wrapped if w in raw]


def test_a_clock_that_was_set_back_does_not_keep_the_work_of_a_dead_worker(room: Room) -> None:
    """A claim that ends hours ahead was made by another clock: somebody else takes the part at once."""
    wanted = fill(room, 16)
    (rotation,) = room.rotate("data", namespaces=[NS], wait=False)
    waves, ledger = room.engine.rotations.waves, room.engine.ledger
    waves.work(rotation.id, NOTE, once=True)
    hours = 3 * 3600 * 1_000_000
    assert ledger.claim_part(rotation.id, b"deadbeef", room.engine.now_us() + hours, 300_000) == 0
    stop = threading.Event()
    guard = threading.Timer(30, stop.set)
    guard.start()
    assert waves.work(rotation.id, NOTE, stop=stop).state == WaveState.MOVED
    guard.cancel()
    assert_all_there(room, wanted)


def test_a_change_of_suite_that_came_second_changes_no_suite(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused because another process was a moment faster, it leaves no trace in the keys of that one."""
    fill(room, 8)
    waves, ledger = room.engine.rotations.waves, room.engine.ledger
    ns = ns_of(room)
    looks = [ledger.waves]

    def nothing_yet(*args: object, **options: object) -> list[object]:
        monkeypatch.setattr(ledger, "waves", looks[0])
        room.rotate("data", namespaces=[NS], wait=False)
        return []

    monkeypatch.setattr(ledger, "waves", nothing_yet)
    with pytest.raises(ConflictError):
        waves.begin(ns, "suite", NOTE, suite=CHACHA20_POLY1305)
    (rotation,) = room.rotation_work()
    assert rotation.suite == "AES-256-GCM"
    assert {room.engine.vault.keyring.suite_of_key(ns, k) for k in keys_in_use(room)} == {AES_256_GCM}


def test_a_change_of_suite_that_was_killed_before_its_wave_can_be_rolled_back_later(room: Room) -> None:
    """The suite to return to is that of the keys that there are, not that of an epoch that never came."""
    wanted = fill(room, 8)
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    keyring.begin_epoch(ns, CHACHA20_POLY1305, NOTE)  # and killed
    (rotation,) = room.rotate("suite", suite="ChaCha20-Poly1305", namespaces=[NS])
    room.rotation_rollback(rotation.id)
    late = room.store("late alpha", namespace=NS, subject="user:late")
    wanted[late.memory_id] = late.content
    assert {keyring.suite_of_key(ns, k) for k in keys_in_use(room)} == {AES_256_GCM}
    room.flush()
    assert_all_there(room, wanted)


def test_a_wave_that_prepares_can_be_rolled_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped amid its new keys it turns back: keys, suite and records are those of before."""
    monkeypatch.setattr(_rotating, "KEYS_PER_STEP", 3)
    wanted = fill(room, 24)
    before = {k for k, state in states(room).items() if state == KeyState.ACTIVE}
    (rotation,) = room.rotate("suite", suite="AES-256-GCM-SIV", namespaces=[NS], wait=False)
    stop = threading.Event()
    stop.set()
    wave = room.engine.rotations.waves
    wave._prepare(room.engine.ledger.wave(rotation.id), NOTE, stop)
    active = {k for k, state in states(room).items() if state == KeyState.ACTIVE}
    assert len(active - before) == 3  # some subjects, and not all, have a key of the next epoch
    late = room.store("late alpha", namespace=NS, subject="user:1")
    wanted[late.memory_id] = late.content
    back = room.rotation_rollback(rotation.id)
    assert back.state == RotationState.RETURNED
    assert {k for k, state in states(room).items() if state == KeyState.ACTIVE} == before
    room.flush()
    assert_all_there(room, wanted)
    assert room.engine.vault.keyring.suite(ns_of(room)) == AES_256_GCM
    (rotation,) = room.rotate("data", namespaces=[NS])
    room.rotation_finalise(rotation.id)
    assert_all_there(room, wanted)
