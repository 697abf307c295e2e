"""The table ``audit``: the caller's own entries, complete within the limit, whatever others do."""

from __future__ import annotations

import pytest
from tests.sql.conftest import OpenRoom

from strongroom.config import LimitsConfig
from strongroom.engine._own_audit import OwnEntries
from strongroom.errors import OperationTimeoutError
from strongroom.model import SqlCancel

MINE = 'SELECT action, seq FROM audit ORDER BY "at"'


def test_own_entries_are_complete_however_many_others_write(open_room: OpenRoom) -> None:
    room = open_room(LimitsConfig(sql_audit_entries_max=8))
    room.store("one", namespace="company_a/x")
    _, key = room.keys_create("reader", "read-only", ["company_a/*"])
    caller = room.engine.authenticate(key)
    for _ in range(4):
        caller.sql("SELECT 1")
    for _ in range(40):
        room.sql("SELECT 2")
    found = list(caller.sql(MINE).rows())
    assert [action for action, _ in found].count("sql") >= 4 and len(found) <= 8
    assert all(seq is None for _, seq in found)
    for _ in range(20):
        caller.sql("SELECT 3")
        room.sql("SELECT 4")
    newest = list(caller.sql(MINE).rows())
    assert [action for action, _ in newest] == ["sql"] * 8
    assert room.sql("SELECT count(*), count(DISTINCT principal) FROM audit").fetch() == [(8, 2)]


def test_each_caller_sees_its_own(open_room: OpenRoom) -> None:
    room = open_room()
    room.store("one", namespace="company_a/x")
    callers = [
        room.engine.authenticate(room.keys_create(f"k{i}", "read-only", ["company_a/*"])[1]) for i in range(2)
    ]
    for i, caller in enumerate(callers):
        for _ in range(3 + i):
            caller.sql("SELECT 1")
    for i, caller in enumerate(callers):
        counted = "SELECT count(*) FILTER (WHERE action = 'sql'), count(DISTINCT principal) FROM audit"
        assert caller.sql(counted).fetch() == [(3 + i, 1)]


def test_reading_a_long_log_is_stopped_in_time_and_goes_on(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.engine._own_audit._PAGE", 5)
    room = open_room()
    for _ in range(30):
        room.sql("SELECT 1")
    entries, cancel = OwnEntries(room.engine), SqlCancel()
    cancel.cancel()
    with pytest.raises(OperationTimeoutError):
        entries.newest("owner", 100, cancel)
    assert entries._read == 5
    assert len([e for e in entries.newest("owner", 100, SqlCancel()) if e.action == "sql"]) == 30
