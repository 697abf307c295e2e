"""The methods on the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.client import _wire
from strongroom.client._async._calls import AsyncCalls
from strongroom.model import (
    AuditEntry,
)


class AsyncAuditCalls(AsyncCalls):
    """Read and prove the audit log."""

    async def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        params = {"limit": limit, "after": after}
        raw = await self._send("GET", "/v1/audit", params=params, repeatable=True)
        return [entry.noun() for entry in _wire.decode(_wire.Entries, raw).entries]
