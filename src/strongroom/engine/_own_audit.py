"""Which entries of the audit log are whose: numbers by principal, so that a caller's own can be found.

The first question reads the log from its beginning, later ones what has come since; the numbers stay in
memory (eight bytes an entry), no content does. A question that runs into its time limit leaves what it has
read, and the next one goes on from there.
"""

from __future__ import annotations

import threading
from array import array
from time import monotonic
from typing import TYPE_CHECKING

from strongroom import audit
from strongroom.errors import OperationTimeoutError
from strongroom.model import AuditEntry, SqlCancel

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

__all__ = ["OwnEntries"]

_PAGE = 1000


class OwnEntries:
    """The index of a process. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers: dict[str, array[int]] = {}
        self._read = 0
        self._lock = threading.Lock()

    def newest(self, caller: str, count: int, cancel: SqlCancel) -> list[AuditEntry]:
        """The newest ``count`` entries of ``caller``, ascending, of the whole log up to now.

        Raises:
            OperationTimeoutError: reading the log takes longer than a statement may, or was cancelled.
        """
        with self._lock:
            self._catch_up(cancel)
            mine = self._numbers.get(caller, array("q"))[-count:]
        found: list[AuditEntry] = []
        at = 0
        while at < len(mine):
            run = 1
            while at + run < len(mine) and run < _PAGE and mine[at + run] == mine[at] + run:
                run += 1
            for seq, sealed in self._engine.ledger.audit_entries(mine[at] - 1, run):
                found.append(audit.decode(self._engine.vault.open_audit(seq, sealed), seq))
            at += run
        return found

    def _catch_up(self, cancel: SqlCancel) -> None:
        limit_s = self._engine.config.limits.sql_timeout_ms / 1000
        end = monotonic() + limit_s if limit_s else None
        while page := self._engine.ledger.audit_entries(self._read, _PAGE):
            for seq, sealed in page:
                entry = audit.decode(self._engine.vault.open_audit(seq, sealed), seq)
                self._numbers.setdefault(entry.principal, array("q")).append(seq)
            self._read = page[-1][0]
            if cancel.cancelled or (end is not None and monotonic() > end):
                raise OperationTimeoutError(
                    "the audit log is read for the first time: ask again",
                    hint="the next statement goes on where this one was stopped",
                )
