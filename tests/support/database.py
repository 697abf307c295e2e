"""The ledger's file, as a test reads and damages it."""

from __future__ import annotations

from pathlib import Path

import apsw

_BUSY_MS = 10_000


def ledger_file(directory: Path) -> apsw.Connection:
    """A connection that waits: an open store writes by itself too, for example when it integrates the log."""
    connection = apsw.Connection(str(directory / "ledger.db"))
    connection.set_busy_timeout(_BUSY_MS)
    return connection
