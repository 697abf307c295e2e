"""Each kind of damage that the structure shows is found, and named."""

from __future__ import annotations

import uuid
from pathlib import Path

import apsw
import pytest
from tests.ledger.ledger_hooks import SumHooks, memory, tombstone, vector

from strongroom.ledger import QueueItem, SqliteLedger, WriteBatch
from strongroom.model import Severity

ID, OTHER = b"a" * 16, b"b" * 16


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("DELETE FROM audit WHERE seq = 2", "audit_gap"),
        ("DELETE FROM audit WHERE seq = 1", "audit_gap"),
        ("DELETE FROM namespace WHERE ns = 1", "row_without_namespace"),
        ("UPDATE namespace SET seq = 1 WHERE ns = 1", "seq_beyond_head"),
        ("UPDATE record SET seq = 0 WHERE ns = 1 AND seq = 1", "seq_invalid"),
        ("UPDATE record SET memory_id = x'00' WHERE ns = 1 AND field = 1", "seq_invalid"),
        ("UPDATE record SET sealed = x'00' WHERE state = 2", "tombstone_with_content"),
        ("DELETE FROM record WHERE field = 0 AND state = 1", "vector_without_memory"),
        ("UPDATE record SET state = 2, sealed = x'' WHERE field = 0", "vector_without_memory"),
        ("UPDATE record SET content_version = 9 WHERE field = 1", "vector_ahead_of_memory"),
        ("DELETE FROM record WHERE field = 0 AND state = 1", "queue_without_memory"),
        ("UPDATE embedding_queue SET content_version = 9", "queue_without_memory"),
    ],
)
def test_damage_is_found(tmp_path: Path, sql: str, code: str) -> None:
    """A clean ledger has no finding; after the damage there is one of the expected kind with a hint."""
    with SqliteLedger.create(tmp_path, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(
            WriteBatch(
                new_namespaces=[1],
                puts=[memory(1, ID), vector(1, ID), memory(1, OTHER), tombstone(1, OTHER)],
                enqueue=[QueueItem(1, ID, 1)],
                audit=[b"1", b"2", b"3"],
            )
        )
        assert ledger.check() == []
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(sql)
    connection.close()
    with SqliteLedger.open(tmp_path, SumHooks()) as ledger:
        findings = {f.code: f for f in ledger.check()}
        assert code in findings
        assert findings[code].hint
        assert findings[code].where
        assert findings[code].severity in (Severity.ERROR, Severity.WARNING)
