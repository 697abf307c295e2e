# Generated from _async/_audit.py by script/generate_sync.py; do not edit.
"""The methods on the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.client import _wire
from strongroom.client._sync._calls import Calls
from strongroom.model import (
    AuditEntry,
)


class AuditCalls(Calls):
    """Read and prove the audit log."""

    def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        params = {"limit": limit, "after": after}
        raw = self._send("GET", "/v1/audit", params=params, repeatable=True)
        return [entry.noun() for entry in _wire.decode(_wire.Entries, raw).entries]
