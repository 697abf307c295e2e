"""Changes of the embedding queue other than those of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw

from strongroom.ledger._types import QueueItem

_MARK = (
    "UPDATE embedding_queue SET attempts = attempts + 1, dead = ?, error_code = ?"
    " WHERE ns = ? AND memory_id = ? AND content_version = ?"
)
_REQUEUE = "UPDATE embedding_queue SET attempts = 0, dead = 0, error_code = NULL WHERE dead = 1"


def mark(items: Sequence[QueueItem], error_code: str, dead: bool) -> Callable[[apsw.Connection], int]:
    """A job that counts one more failed attempt."""
    rows = [(int(dead), error_code, *item) for item in items]

    def job(connection: apsw.Connection) -> int:
        before = connection.total_changes()
        connection.executemany(_MARK, rows)
        return connection.total_changes() - before

    return job


def requeue(namespaces: Sequence[int] | None) -> Callable[[apsw.Connection], int]:
    """A job that brings dead items back; None: those of every namespace."""

    def job(connection: apsw.Connection) -> int:
        before = connection.total_changes()
        if namespaces is None:
            connection.execute(_REQUEUE)
        else:
            connection.executemany(f"{_REQUEUE} AND ns = ?", [(ns,) for ns in namespaces])
        return connection.total_changes() - before

    return job
