"""The rows of an answer: read and opened together, with what opens and fails told apart; counted in bulk."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.support.database import ledger_file

from strongroom.engine import Room
from strongroom.engine._access_stats import AccessStats
from strongroom.engine._metrics import Metrics
from strongroom.errors import DecryptionError, KeyStateError
from strongroom.model import Field, SealedRecord

NS = "company_a/support"


def rows_of(room: Room, count: int) -> tuple[str, list[SealedRecord]]:
    """So many memories of three subjects; their tenant and rows."""
    for i in range(count):
        room.store(f"harbour number {i}", namespace=NS, subject=f"user:{i % 3}")
    entry = room.engine.registry.get(NS)
    assert entry is not None
    rows = [r for r in room.engine.ledger.iter_changes(entry.ns) if r.field == Field.MEMORY]
    return entry.tenant, rows


def test_many_rows_open_to_what_each_opens_to(room: Room) -> None:
    """With one look at each of several keys."""
    tenant, rows = rows_of(room, 7)
    opened: list[bytes] = []
    room.engine.vault.open_rows(tenant, rows, opened)
    assert opened == [room.engine.vault.open(tenant, row) for row in rows]


@pytest.mark.parametrize("at", [0, 3, 6])
def test_the_row_that_does_not_open_is_known(room: Room, at: int) -> None:
    """Damaged, moved from elsewhere, or under a key that was disabled: what opened before it is there."""
    tenant, rows = rows_of(room, 7)
    vault = room.engine.vault
    bad = bytearray(rows[at].sealed)
    bad[-1] ^= 1
    elsewhere = rows[(at + 1) % 7]
    for forged in (
        rows[at]._replace(sealed=bytes(bad)),
        rows[at]._replace(memory_id=elsewhere.memory_id),
        rows[at]._replace(ns=rows[at].ns + 1),
        rows[at]._replace(version=9),
    ):
        opened: list[bytes] = []
        with pytest.raises(DecryptionError):
            vault.open_rows(tenant, [*rows[:at], forged, *rows[at + 1 :]], opened)
        assert opened == [vault.open(tenant, row) for row in rows[:at]]
    vault.keyring.rotate_data_key(rows[at].ns, vault.blinded_subject(rows[at].ns, f"user:{at % 3}"))
    vault.keyring.disable_data_key(rows[at].key_id)
    opened = []
    with pytest.raises(KeyStateError):
        vault.open_rows(tenant, rows, opened)
    assert len(opened) == at % 3  # the first row of that subject


def test_a_memory_that_is_damaged_while_it_is_looked_for_is_left_out(room: Room) -> None:
    """The others answer, with a notice; the one that does not open is in the middle of them."""
    _, rows = rows_of(room, 5)
    room.flush()
    assert len(room.search("harbour", namespaces=[NS])) == 5
    db = ledger_file(room.engine.directory)
    db.execute(
        "UPDATE record SET sealed = CAST(substr(sealed, 1, length(sealed) - 1) || x'7f' AS BLOB)"
        " WHERE field = 0 AND memory_id = ?",
        (rows[2].memory_id,),
    )
    db.close()
    hits = room.search("harbour", namespaces=[NS])
    assert {h.memory.memory_id.bytes for h in hits} == {r.memory_id for r in rows} - {rows[2].memory_id}
    assert [n.code for n in hits.notices] == ["unreadable_memories"]


def test_a_search_and_a_look_tell_the_same_counts(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pending, flushed, counted by another process, and after opening the store again."""
    flush = AccessStats.flush
    monkeypatch.setattr(AccessStats, "flush", lambda self: 0)  # of the housekeeping
    room = open_room()
    m = room.store("counted", namespace=NS)

    def counts(of: Room) -> tuple[int, int, Any]:
        found = of.search("counted", namespaces=[NS], mode="keyword")[0].memory
        listed = of.list(namespaces=[NS]).memories[0]
        assert listed.last_accessed_at is not None
        return found.access_count, listed.access_count, found.last_accessed_at

    assert counts(room) == (0, 1, None)
    assert counts(room)[:2] == (1, 2)
    flush(room.engine.access_stats)
    assert counts(room)[:2] == (2, 3)
    other = open_room(worker=False)
    assert counts(other)[:2] == (2, 3)
    flush(other.engine.access_stats)
    assert counts(room)[:2] == (4, 5)
    assert room.get(m.memory_id, namespace=NS).access_count == 5
    flush(room.engine.access_stats)
    assert counts(other)[:2] == (6, 7)
    flush(other.engine.access_stats)
    room.update(m.memory_id, namespace=NS, content="counted once more")
    assert counts(room)[:2] == (7, 8)
    assert counts(other)[:2] == (7, 8)


def test_durations_are_told_as_the_format_says() -> None:
    """Buckets are cumulative with their upper bound included; the last one, count and sum are of all."""
    metrics = Metrics()
    for seconds in (0.0001, 0.0002, 0.00021, 0.3, 99.0):
        metrics.step("embed_query", seconds)
    metrics.step("filter", 0.5)
    metrics.step("embed_query", 10.0)
    metrics.operation("search", "ok", 0.002)
    text = metrics.text().decode()
    name = 'strongroom_step_seconds_{}{{{}step="embed_query"}} {}'
    for kind, bound, value in (
        ("bucket", 'le="0.0002",', "2.0"),
        ("bucket", 'le="0.0005",', "3.0"),
        ("bucket", 'le="0.5",', "4.0"),
        ("bucket", 'le="10.0",', "5.0"),
        ("bucket", 'le="+Inf",', "6.0"),
        ("count", "", "6.0"),
    ):
        assert name.format(kind, bound, value) in text
    total = next(s for s in text.splitlines() if s.startswith(name.format("sum", "", "")))
    assert float(total.split()[1]) == pytest.approx(109.30051)
    assert 'strongroom_operation_seconds_count{operation="search",outcome="ok"} 1.0' in text
    assert "# TYPE strongroom_step_seconds histogram" in text
