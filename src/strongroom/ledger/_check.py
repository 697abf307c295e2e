"""Structure of the whole ledger: what can be seen without opening a single sealed byte."""

from __future__ import annotations

import apsw

from strongroom.errors import StorageError
from strongroom.ledger._connect import translate
from strongroom.model import Finding, Severity

_DETAILS_MAX = 20  # findings of one kind that are listed one by one
_REPAIR = "restore the last backup"
_REQUEUE = "run the queue's requeue command; it will be embedded again"

# (code, severity, message, hint, statement giving: ns, detail)
_RULES: tuple[tuple[str, Severity, str, str, str], ...] = (
    (
        "audit_gap",
        Severity.ERROR,
        "audit entries are missing before this one",
        _REPAIR,
        "SELECT 'audit', seq FROM (SELECT seq, lag(seq, 1, 0) OVER (ORDER BY seq) AS prior FROM audit)"
        " WHERE seq <> prior + 1",
    ),
    (
        "row_without_namespace",
        Severity.ERROR,
        "rows belong to a namespace that does not exist",
        _REPAIR,
        "SELECT ns, count(*) FROM record WHERE ns NOT IN (SELECT ns FROM namespace) GROUP BY ns",
    ),
    (
        "seq_beyond_head",
        Severity.ERROR,
        "a row is newer than the head of its namespace",
        _REPAIR,
        "SELECT r.ns, r.seq FROM namespace n JOIN record r ON r.ns = n.ns AND r.seq > n.seq",
    ),
    (
        "seq_invalid",
        Severity.ERROR,
        "a row has no valid sequence number or memory id",
        _REPAIR,
        "SELECT ns, seq FROM record WHERE seq < 1 OR length(memory_id) <> 16 OR state NOT IN (1, 2)",
    ),
    (
        "tombstone_with_content",
        Severity.ERROR,
        "a deleted memory still has sealed bytes",
        "delete the memory again",
        "SELECT ns, seq FROM record WHERE field = 0 AND state = 2 AND length(sealed) > 0",
    ),
    (
        "vector_without_memory",
        Severity.ERROR,
        "a vector or counter belongs to no live memory",
        _REPAIR,
        "SELECT v.ns, v.seq FROM record v WHERE v.field IN (1, 2) AND NOT EXISTS (SELECT 1 FROM record m"
        " WHERE m.ns = v.ns AND m.memory_id = v.memory_id AND m.field = 0 AND m.state = 1)",
    ),
    (
        "vector_ahead_of_memory",
        Severity.ERROR,
        "a vector was made from content that the memory never had",
        _REQUEUE,
        "SELECT v.ns, v.seq FROM record v JOIN record m ON m.ns = v.ns AND m.memory_id = v.memory_id"
        " AND m.field = 0 WHERE v.field = 1 AND v.content_version > m.content_version",
    ),
    (
        "queue_without_memory",
        Severity.WARNING,
        "a queued embedding belongs to no live memory with that content",
        _REQUEUE,
        "SELECT q.ns, q.id FROM embedding_queue q WHERE NOT EXISTS (SELECT 1 FROM record m WHERE m.ns = q.ns"
        " AND m.memory_id = q.memory_id AND m.field = 0 AND m.state = 1"
        " AND m.content_version = q.content_version)",
    ),
)


def check_ledger(connection: apsw.Connection) -> list[Finding]:
    """All that is wrong, the file itself first. An unreadable file is a finding, not an error."""
    findings: list[Finding] = []
    try:
        for (text,) in connection.execute(f"PRAGMA integrity_check({_DETAILS_MAX})").fetchall():
            if text != "ok":
                findings.append(_file_finding())
        connection.execute("BEGIN")
        for rule in _RULES:
            findings += _apply(connection, rule)
        connection.execute("ROLLBACK")
    except apsw.Error as e:
        findings.append(_unreadable(translate(e, connection)))
    return findings


def _file_finding() -> Finding:
    return Finding(
        Severity.ERROR, "file_damaged", "the database file fails its integrity check", "file", _REPAIR
    )


def _unreadable(error: Exception) -> Finding:
    code = error.code if isinstance(error, StorageError) else "storage"
    return Finding(Severity.ERROR, "file_unreadable", f"reading stopped: {code}", "file", _REPAIR)


def _apply(connection: apsw.Connection, rule: tuple[str, Severity, str, str, str]) -> list[Finding]:
    code, severity, message, hint, sql = rule
    findings = []
    for ns, detail in connection.execute(f"{sql} LIMIT {_DETAILS_MAX}"):
        place = f"audit {detail}" if ns == "audit" else f"namespace {ns}, {_word(code)} {detail}"
        findings.append(Finding(severity, code, message, place, hint))
    return findings


def _word(code: str) -> str:
    return {"row_without_namespace": "rows", "queue_without_memory": "queue item"}.get(code, "seq")
