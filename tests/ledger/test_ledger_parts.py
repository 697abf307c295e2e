"""Reading several fields of several memories by one statement, on the connection that writes too."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, memory, vector

from strongroom.errors import ClosedError, StorageError
from strongroom.ledger import SqliteLedger, WriteBatch
from strongroom.ledger import _read as reads
from strongroom.model import Field, SealedRecord


def ids(count: int) -> list[bytes]:
    return [uuid.uuid4().bytes for _ in range(count)]


def by_key(rows: list[SealedRecord]) -> list[SealedRecord]:
    return sorted(rows, key=lambda row: (row.memory_id, row.field))


@pytest.mark.parametrize("count", [0, 1, 2, 10, 11, 100, 101, 230])
def test_parts_are_the_rows_that_single_reads_give(ledger: SqliteLedger, count: int) -> None:
    """Of any number of memories, those without one of the fields and those that are not there included."""
    known = ids(count)
    ledger.commit(WriteBatch(puts=[memory(1, m) for m in known]))
    ledger.commit(WriteBatch(puts=[vector(1, m) for m in known[::2]]))
    ledger.commit(WriteBatch(puts=[memory(2, m) for m in known[:3]]))
    asked = [*known, *ids(count and 1)]
    wanted = [r for m in asked for f in (Field.MEMORY, Field.VECTOR) if (r := ledger.get(1, m, f))]
    assert by_key(ledger.get_parts(1, asked, (Field.MEMORY, Field.VECTOR))) == by_key(wanted)
    one = [r for r in wanted if r.field == Field.VECTOR]
    assert by_key(ledger.get_parts(1, asked, (Field.VECTOR,))) == by_key(one)
    with ledger.snapshot() as state:
        assert by_key(state.get_parts(1, asked, (Field.MEMORY, Field.VECTOR))) == by_key(wanted)


def test_who_wrote_last_reads_on_the_connection_that_wrote(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are still right. Others, and a reader beside a writer, have connections of their own."""
    used: list[apsw.Connection] = []
    read_head = reads.read_head

    def watched(connection: apsw.Connection, ns: int) -> tuple[int, bytes]:
        used.append(connection)
        return read_head(connection, ns)

    monkeypatch.setattr(reads, "read_head", watched)
    ledger.commit(WriteBatch(audit=[b"one"]))
    ledger.head(1)
    assert used.pop() is ledger._writer
    other = threading.Thread(target=ledger.head, args=(1,))
    other.start()
    other.join()
    assert used.pop() is not ledger._writer
    assert ledger._group.try_alone(lambda: ledger.head(1) and None)
    assert used.pop() is not ledger._writer
    ledger.head(1)
    assert used.pop() is ledger._writer


def test_commits_of_others_are_seen_there(ledger: SqliteLedger, tmp_path: Path) -> None:
    """The pages of the connection that writes are not older than the newest commit of another process."""
    (one,) = ids(1)
    ledger.commit(WriteBatch(audit=[b"mine"]))
    assert ledger.get_parts(1, [one], (Field.MEMORY,)) == []
    with SqliteLedger.open(tmp_path, SumHooks()) as second:
        second.commit(WriteBatch(puts=[memory(1, one)]))
    assert [r.memory_id for r in ledger.get_parts(1, [one], (Field.MEMORY,))] == [one]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, lambda: apsw.IOError("device")])
def test_a_read_that_ends_badly_takes_the_connection_along(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], BaseException]
) -> None:
    """An interrupt or a failing disk: the next write and the next read begin on a connection opened anew."""
    (one,) = ids(1)
    ledger.commit(WriteBatch(puts=[memory(1, one)]))
    before, read_head = ledger._writer, reads.read_head

    def failing(connection: apsw.Connection, ns: int) -> tuple[int, bytes]:
        connection.execute("SELECT seq FROM namespace")  # a cursor that is not read to its end
        raise failure()

    monkeypatch.setattr(reads, "read_head", failing)
    with pytest.raises((KeyboardInterrupt, StorageError)):
        ledger.head(1)
    monkeypatch.setattr(reads, "read_head", read_head)
    assert ledger.head(1)[0] == 1
    ledger.commit(WriteBatch(puts=[vector(1, one)]))
    assert ledger._writer is not before
    assert ledger.head(1)[0] == 2


def test_writers_in_line_go_on_after_a_read(ledger: SqliteLedger) -> None:
    """Who comes to write while somebody reads there is served as soon as the read has ended."""
    (one,) = ids(1)
    waiting = threading.Thread(target=ledger.commit, args=(WriteBatch(puts=[memory(1, one)]),))

    def read() -> None:
        waiting.start()
        while not ledger._group._line:
            pass

    assert ledger._group.try_alone(read)
    waiting.join(30)
    assert ledger.head(1)[0] == 1
    assert ledger._group.try_alone(lambda: None)


def test_a_closed_ledger_answers_no_such_read(tmp_path: Path) -> None:
    """Closed is closed, for the thread that wrote last too."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1]))
    with pytest.raises(ClosedError):
        ledger.head(1)
