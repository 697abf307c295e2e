"""What a batch does, and what it refuses."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.ledger_hooks import DEAD, LIVE, A, M, SumHooks, V, assert_whole, memory, tombstone, vector

from strongroom.errors import (
    ClosedError,
    ConflictError,
    DuplicateMemoryError,
    InvalidInputError,
    NamespaceNotFoundError,
    StrongroomError,
    VersionConflictError,
)
from strongroom.ledger import OutdatedError, Put, QueueItem, SqliteLedger, WriteBatch, element, element_of
from strongroom.ledger._apply import Transaction
from strongroom.model import QueueStats

ID = b"a" * 16
OTHER = b"b" * 16


def stored(ledger: SqliteLedger, memory_id: bytes = ID, ns: int = 1) -> QueueItem:
    item = QueueItem(ns, memory_id, 1)
    ledger.commit(WriteBatch(puts=[memory(ns, memory_id, expect=0)], enqueue=[item]))
    return item


def test_seqs_are_counted_per_namespace_and_reported_in_order(ledger: SqliteLedger) -> None:
    """Puts of two namespaces in one batch get the next number of their own namespace."""
    puts = [memory(1, ID), memory(2, ID), vector(1, ID), memory(2, OTHER)]
    assert ledger.commit(WriteBatch(puts=puts)) == [1, 1, 2, 2]
    assert ledger.head(1)[0] == ledger.head(2)[0] == 2
    assert [r.seq for r in ledger.changes(1, 0, 10)] == [1, 2]
    assert [r.seq for r in ledger.changes(1, 1, 10)] == [2]
    assert_whole(ledger)


def test_a_batch_is_refused_when_what_it_relies_on_has_changed(ledger: SqliteLedger) -> None:
    """A later row of namespace 0 counts, of the same transaction too; one of the audit log does not."""
    log = [Put(0, bytes([f]) * 16, f, 1, 1, 1, LIVE, 0, bytes(80)) for f in (19, 20)]
    ledger.commit(WriteBatch(puts=[Put(0, ID, 16, 1, 1, 1, LIVE, 0, bytes(80)), *log]))
    ledger.commit(WriteBatch(puts=[memory(1, ID)], relies_on=1))
    ledger.commit(WriteBatch(puts=[memory(1, OTHER)], relies_on=3))
    ledger.commit(WriteBatch(puts=[Put(0, OTHER, 17, 1, 1, 1, LIVE, 0, bytes(80))]))
    for stale in (0, 1, 3):
        with pytest.raises(OutdatedError):
            ledger.commit(WriteBatch(puts=[memory(1, b"c" * 16)], relies_on=stale, audit=[b"entry"]))
    assert ledger.get(1, b"c" * 16) is None and ledger.audit_count() == 0
    ledger.commit(WriteBatch(puts=[memory(1, b"c" * 16)], relies_on=4))
    assert_whole(ledger)


def test_a_setting_that_changes_between_two_batches_of_one_transaction_is_noticed(
    ledger: SqliteLedger,
) -> None:
    """What one batch of a group found to stand is looked at again once another has changed namespace 0."""
    ledger.commit(WriteBatch(puts=[Put(0, ID, 16, 1, 1, 1, LIVE, 0, bytes(80))]))
    connection = ledger._writer_connection()
    connection.execute("BEGIN IMMEDIATE")
    transaction = Transaction(connection, ledger._hooks)
    transaction.run(WriteBatch(puts=[memory(1, ID)], settings={1}))
    transaction.run(WriteBatch(puts=[memory(1, OTHER)], settings={1}))
    transaction.run(WriteBatch(puts=[Put(0, ID, 16, 2, 2, 1, LIVE, 0, bytes(80), 1)]))
    with pytest.raises(OutdatedError):
        transaction.run(WriteBatch(puts=[memory(1, b"c" * 16)], settings={1}))
    transaction.run(WriteBatch(puts=[memory(1, b"d" * 16)], settings={2}))
    transaction.finish()
    connection.execute("COMMIT")
    assert_whole(ledger)


def test_work_that_fails_half_way_for_any_reason_leaves_nothing_and_spoils_no_neighbour(
    ledger: SqliteLedger,
) -> None:
    """A fault that nobody foresaw, after a row was written: the row is not there, others' are."""

    def job(connection: Any) -> int:
        connection.execute("UPDATE record SET version = 99 WHERE ns = 1")
        raise ZeroDivisionError

    stored(ledger)
    barrier, errors = threading.Barrier(9), []

    def neighbour(n: int) -> None:
        barrier.wait()
        ledger.commit(WriteBatch(puts=[memory(1, bytes([n]) * 16)]))

    def faulty() -> None:
        barrier.wait()
        for _ in range(20):
            try:
                ledger._group.submit(job)
            except ZeroDivisionError as e:
                errors.append(e)

    threads = [threading.Thread(target=neighbour, args=(n,)) for n in range(1, 9)]
    threads.append(threading.Thread(target=faulty))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 20
    assert len(ledger.changes(1, 0, 100)) == 9
    assert all(row.version != 99 for row in ledger.changes(1, 0, 100))
    assert_whole(ledger)


def test_a_row_comes_back_as_it_was_put(ledger: SqliteLedger) -> None:
    """Every column survives, the largest numbers and a large payload included."""
    sealed = bytes(range(256)) * 40_000
    put = Put(1, ID, M, 2**62, 2**61, 2**63 - 1, LIVE, 5, sealed)
    ledger.commit(WriteBatch(puts=[put]))
    row = ledger.get(1, ID)
    assert row is not None
    assert (row.version, row.content_version, row.key_id, row.model) == (2**62, 2**61, 2**63 - 1, 5)
    assert row.sealed == sealed
    assert sealed[:4].hex() not in repr(row)


def test_what_is_not_there(ledger: SqliteLedger) -> None:
    """A missing row is None, a missing namespace an error."""
    assert ledger.get(1, ID) is None
    assert ledger.get(7, ID) is None
    assert ledger.changes(7, 0, 5) == []
    with pytest.raises(NamespaceNotFoundError):
        ledger.head(7)


@pytest.mark.parametrize(
    ("put", "error"),
    [
        (memory(1, ID, expect=0), DuplicateMemoryError),
        (memory(1, ID, version=9, expect=2), VersionConflictError),
        (memory(1, OTHER, expect=1), VersionConflictError),
        (memory(1, ID), VersionConflictError),
        (memory(9, OTHER), NamespaceNotFoundError),
        (memory(1, b"short"), InvalidInputError),
        (memory(1, OTHER, key_id=1 << 70), InvalidInputError),
        (memory(1, OTHER, sealed="text"), InvalidInputError),
    ],
)
def test_a_refused_batch_leaves_nothing(ledger: SqliteLedger, put: Put, error: type[StrongroomError]) -> None:
    """Nothing of the batch is written: no row, no audit entry, no queue item, no number used up."""
    stored(ledger)
    before = (ledger.head(1), ledger.head(2), ledger.audit_count(), ledger.queue())
    good = b"g" * 16
    batch = WriteBatch(
        puts=[memory(2, good), memory(1, good), put],
        enqueue=[QueueItem(2, good, 1)],
        new_namespaces=[5],
        audit=[b"x"],
    )
    with pytest.raises(error):
        ledger.commit(batch)
    assert (ledger.head(1), ledger.head(2), ledger.audit_count(), ledger.queue()) == before
    assert ledger.get(2, good) is None
    assert ledger.namespaces() == [0, 1, 2]
    assert_whole(ledger)


def test_a_tombstone_is_a_row(ledger: SqliteLedger) -> None:
    """A deleted id cannot be stored as new; it can be brought back under its next version."""
    stored(ledger)
    ledger.commit(WriteBatch(puts=[tombstone(1, ID, 2, expect=1)]))
    row = ledger.get(1, ID)
    assert row is not None
    assert (row.state, row.sealed) == (DEAD, b"")
    with pytest.raises(DuplicateMemoryError):
        ledger.commit(WriteBatch(puts=[memory(1, ID, expect=0)]))
    ledger.commit(WriteBatch(puts=[memory(1, ID, version=3, expect=2)]))
    assert_whole(ledger)


def test_a_deleted_memory_takes_everything_along(ledger: SqliteLedger) -> None:
    """Vector, counters, and queue item vanish with the memory; the head knows."""
    stored(ledger)
    counters = memory(1, ID, field=A)
    assert ledger.commit(WriteBatch(puts=[vector(1, ID), counters])) == [2, 3]
    ledger.commit(WriteBatch(puts=[tombstone(1, ID)]))
    assert ledger.get(1, ID, V) is None
    assert ledger.get(1, ID, A) is None
    assert ledger.queue() == []
    assert [r.field for r in ledger.changes(1, 0, 10)] == [M]
    assert_whole(ledger)


def test_vectors_and_counters_never_outlive_their_memory(ledger: SqliteLedger) -> None:
    """Put after the delete, or for a memory that never was, or for old content: left out with seq 0."""
    item = stored(ledger)
    assert ledger.commit(WriteBatch(puts=[vector(1, OTHER), memory(1, OTHER, field=A)])) == [0, 0]
    ledger.commit(WriteBatch(puts=[memory(1, ID, version=2, content_version=2, expect=1)]))
    assert ledger.commit(WriteBatch(puts=[vector(1, ID)])) == [0]
    assert ledger.commit(WriteBatch(puts=[vector(1, ID, content_version=2)])) == [3]
    ledger.commit(WriteBatch(puts=[tombstone(1, ID, 3)]))
    assert ledger.commit(WriteBatch(puts=[vector(1, ID, content_version=2)], dequeue=[item])) == [0]
    assert_whole(ledger)


def test_embedding_lands_once_and_only_while_it_is_awaited(ledger: SqliteLedger) -> None:
    """The first completion writes the vector and empties the queue; a second one is left out."""
    item = stored(ledger)
    done = WriteBatch(puts=[vector(1, ID, requires_queue_item=True)], dequeue=[item])
    assert ledger.commit(done) == [2]
    assert ledger.queue() == []
    assert ledger.commit(done) == [0]
    assert ledger.head(1)[0] == 2


def test_new_content_replaces_the_queue_item(ledger: SqliteLedger) -> None:
    """After an update nothing of the old version is queued or completed; other changes keep the item."""
    item = stored(ledger)
    ledger.queue_mark([item], error_code="timeout", dead=True)
    ledger.commit(WriteBatch(puts=[memory(1, ID, version=2, expect=1)]))
    assert [row.item for row in ledger.queue(dead=True)] == [item]
    newer = QueueItem(1, ID, 2)
    ledger.commit(WriteBatch(puts=[memory(1, ID, version=3, content_version=2)], enqueue=[newer]))
    (row,) = ledger.queue()
    assert (row.item, row.attempts, row.dead, row.error_code) == (newer, 0, False, None)
    late = WriteBatch(puts=[vector(1, ID, requires_queue_item=True)], dequeue=[item])
    assert ledger.commit(late) == [0]
    assert [r.item for r in ledger.queue()] == [newer]
    ledger.commit(WriteBatch(puts=[memory(1, ID, version=4, content_version=3)]))
    assert ledger.queue() == []
    assert_whole(ledger)


def test_enqueue_needs_a_live_memory_with_that_content(ledger: SqliteLedger) -> None:
    """An orphan's requeue that races with a delete or an update leaves no item behind."""
    stored(ledger)
    ledger.commit(WriteBatch(puts=[tombstone(1, ID)]))
    ledger.commit(WriteBatch(enqueue=[QueueItem(1, ID, 1), QueueItem(1, OTHER, 1)]))
    assert ledger.queue() == []


def test_queue_pages_counts_marks_and_revives(ledger: SqliteLedger) -> None:
    """Paging by id, counts per namespace, attempts, dead letters and their return."""
    items = [stored(ledger, bytes([n]) * 16, 1 + n % 2) for n in range(7)]
    first = ledger.queue(limit=3)
    rest = ledger.queue(after=first[-1].id)
    assert [r.item for r in first + rest] == items
    assert (
        ledger.queue_mark([*items[:2], QueueItem(1, items[2].memory_id, 9)], error_code="x", dead=True) == 2
    )
    assert ledger.queue_mark([items[2]], error_code="y", dead=False) == 1
    assert ledger.queue_stats() == QueueStats(pending=5, dead=2)
    assert ledger.queue_stats(1) == QueueStats(pending=3, dead=1)
    assert [(r.item, r.attempts, r.error_code) for r in ledger.queue(dead=True, ns=2)] == [(items[1], 1, "x")]
    assert [r.attempts for r in ledger.queue(dead=False, ns=1)] == [1, 0, 0]
    assert ledger.requeue([1]) == 1
    assert ledger.requeue() == 1
    assert ledger.queue_stats() == QueueStats(pending=7, dead=0)


def test_unembedded_finds_what_the_queue_forgot(ledger: SqliteLedger) -> None:
    """Only a live memory without a vector of its content and without a queue item is listed."""
    queued, done, stale, lost, gone = (bytes([n]) * 16 for n in range(5))
    stored(ledger, queued)
    for memory_id in (done, stale, lost, gone):
        ledger.commit(WriteBatch(puts=[memory(1, memory_id)]))
    ledger.commit(WriteBatch(puts=[vector(1, done), vector(1, stale), tombstone(1, gone)]))
    ledger.commit(WriteBatch(puts=[memory(1, stale, version=2, content_version=2)]))
    found = ledger.unembedded(1)
    assert [item for _, item in found] == [QueueItem(1, lost, 1), QueueItem(1, stale, 2)]
    assert ledger.unembedded(1, after=found[0][0]) == found[1:]
    assert ledger.unembedded(1, limit=1) == found[:1]


def test_audit_entries_are_numbered_sealed_and_without_gap(ledger: SqliteLedger) -> None:
    """Entries of reads (audit alone) and writes share one line of numbers, known to the seal."""
    ledger.commit(WriteBatch(audit=[b"a", b"b"]))
    ledger.commit(WriteBatch(audit=[b"c"], puts=[memory(1, ID)]))
    assert ledger.audit_entries(0, 10) == [(1, b"1:a"), (2, b"2:b"), (3, b"3:c")]
    assert ledger.audit_entries(2, 10) == [(3, b"3:c")]
    assert ledger.audit_count() == 3
    assert ledger.head(2)[0] == 0


def test_namespaces_are_made_once_and_usable_in_the_same_batch(ledger: SqliteLedger) -> None:
    """A new namespace takes rows at once; making it again is a conflict."""
    assert ledger.commit(WriteBatch(new_namespaces=[4], puts=[memory(4, ID)])) == [1]
    assert ledger.namespaces() == [0, 1, 2, 4]
    for again in ([4], [5, 5]):
        with pytest.raises(ConflictError):
            ledger.commit(WriteBatch(new_namespaces=again))
    assert_whole(ledger)


def test_the_same_row_twice_in_one_batch(ledger: SqliteLedger) -> None:
    """The later put wins, both numbers are used, and the head matches."""
    puts = [memory(1, ID), memory(1, ID, version=2, expect=1), memory(1, OTHER), tombstone(1, OTHER)]
    assert ledger.commit(WriteBatch(puts=puts)) == [1, 2, 3, 4]
    assert_whole(ledger)
    with pytest.raises(DuplicateMemoryError):
        ledger.commit(WriteBatch(puts=[memory(2, ID, expect=0), memory(2, ID, expect=0)]))
    revived = [tombstone(1, ID, 3), memory(1, ID, version=4), vector(1, ID)]
    assert ledger.commit(WriteBatch(puts=revived)) == [5, 6, 7]
    assert ledger.get(1, ID, V) is not None
    assert_whole(ledger)


def test_element_layout() -> None:
    """field(2) | memory_id(16) | seq(8) | version(8) | state(1) | sealed[:62], big-endian."""
    sealed = bytes(range(100))
    fixed = bytes.fromhex("0001") + ID + (3).to_bytes(8, "big") + (4).to_bytes(8, "big")
    assert element(1, ID, 3, 4, LIVE, sealed) == fixed + b"\x01" + sealed[:62]
    assert element(1, ID, 3, 4, DEAD, sealed) == fixed + b"\x02"


def test_a_snapshot_does_not_move(ledger: SqliteLedger) -> None:
    """Reads inside a snapshot see one state while a writer goes on."""
    stored(ledger)
    with ledger.snapshot() as snapshot:
        stored(ledger, OTHER)
        assert snapshot.head(1)[0] == 1
        assert snapshot.get(1, OTHER) is None
        assert [r.memory_id for r in snapshot.iter_changes(1, page=1)] == [ID]
        assert snapshot.get_many(1, [OTHER, ID]) == [ledger.get(1, ID)]
    assert [r.memory_id for r in ledger.get_many(1, [OTHER, ID, b"z" * 16])] == [OTHER, ID]
    assert [r.seq for r in ledger.iter_changes(1, page=1)] == [1, 2]


def test_reopened_it_is_the_same(tmp_path: Path) -> None:
    """Rows, heads, queue and the store's id are there after close and open; closed means closed."""
    store_id = uuid.uuid4()
    with SqliteLedger.create(tmp_path, store_id, SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1]))
        item = stored(ledger)
        row = ledger.get(1, ID)
        ledger.checkpoint()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.db"]
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600
    for call in (ledger.namespaces, ledger.checkpoint, lambda: ledger.commit(WriteBatch(audit=[b"x"]))):
        with pytest.raises(ClosedError):
            call()
    ledger.close()
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        assert ledger.store_id == store_id
        assert ledger.get(1, ID) == row
        assert row is not None
        assert element_of(row) == element(M, ID, 1, 1, LIVE, row.sealed)
        assert [r.item for r in ledger.queue()] == [item]
        assert_whole(ledger)


@pytest.mark.parametrize("count", [1, 24, 25, 26, 249, 250, 251, 531])
def test_many_rows_in_one_statement_are_the_rows_that_were_put(ledger: SqliteLedger, count: int) -> None:
    """However many rows a batch has, each stands there with its own values, in order, under one head."""
    puts = []
    for n in range(count):
        memory_id = n.to_bytes(16)
        puts += [memory(1, memory_id, expect=0), vector(1, memory_id)]
    ledger.commit(WriteBatch(puts=[memory(1, ID)]))
    assert ledger.commit(WriteBatch(puts=puts)) == list(range(2, 2 * count + 2))
    found = ledger.changes(1, 1, 2 * count + 1)
    assert [
        (r.memory_id, r.field, r.version, r.content_version, r.key_id, r.state, r.sealed) for r in found
    ] == [(p.memory_id, p.field, p.version, p.content_version, p.key_id, p.state, p.sealed) for p in puts]
    assert_whole(ledger)


@pytest.mark.parametrize("place", [0, 130, 249, 250, 270, 299])
def test_one_id_that_is_taken_refuses_a_large_batch_whole(ledger: SqliteLedger, place: int) -> None:
    """Rows that go in with one statement are all refused when one of them is there already."""
    ledger.commit(WriteBatch(puts=[memory(1, ID)]))
    puts = [memory(1, n.to_bytes(16), expect=0) for n in range(300)]
    puts[place] = memory(1, ID, expect=0)
    with pytest.raises(DuplicateMemoryError):
        ledger.commit(WriteBatch(puts=puts, audit=[b"entry"]))
    assert [r.memory_id for r in ledger.changes(1, 0, 500)] == [ID]
    assert ledger.audit_count() == 0
    assert_whole(ledger)
