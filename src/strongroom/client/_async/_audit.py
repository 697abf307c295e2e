"""The methods on the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strongroom.client import _wire, _wire_audit
from strongroom.client._async._calls import AsyncCalls
from strongroom.model import (
    EVERYTHING,
    AuditEntry,
    AuditFilter,
    Checkpoint,
    ConsistencyProof,
    InclusionProof,
)


class AsyncAuditCalls(AsyncCalls):
    """Read and prove the audit log."""

    async def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        params = {"limit": limit, "after": after}
        raw = await self._send("GET", "/v1/audit", params=params, repeatable=True)
        return [entry.noun() for entry in _wire.decode(_wire.Entries, raw).entries]

    async def audit_key(self) -> tuple[str, str]:
        """The public keys of the audit log, as C2SP verifier keys: Ed25519, ML-DSA-44."""
        raw = await self._send("GET", "/v1/audit/keys", repeatable=True)
        first, second = _wire.decode(_wire_audit.AuditKeys, raw).keys
        return first, second

    async def audit_key_changes(self) -> tuple[str, ...]:
        """The signed documents by which keys of the audit log handed over to others, oldest first.

        ``strongroom.audit.verify.verify_key_change`` verifies one with the keys before.
        """
        raw = await self._send("GET", "/v1/audit/key-changes", repeatable=True)
        return tuple(_wire.decode(_wire_audit.AuditKeyChanges, raw).changes)

    async def audit_checkpoint(self) -> Checkpoint:
        """Take in what was committed and sign it: size, root, and the signed note.

        Raises:
            TamperedError: integrated entries are gone or are others now.
        """
        return _wire_audit.checkpoint(await self._send("GET", "/v1/audit/checkpoint", repeatable=True))

    async def audit_proof(self, seq: int) -> InclusionProof:
        """That entry ``seq`` is in the log of a checkpoint; ``strongroom.audit.verify`` checks it.

        Raises:
            NotFoundError: there is no such entry. TamperedError: as ``audit_checkpoint``.
        """
        return _wire_audit.inclusion(await self._send("GET", f"/v1/audit/proofs/{int(seq)}", repeatable=True))

    async def audit_consistency(self, old_size: int) -> ConsistencyProof:
        """That the log, when it had ``old_size`` entries, was the beginning of what it is now.

        Raises:
            InvalidInputError: it never had so many. TamperedError: as ``audit_checkpoint``.
        """
        raw = await self._send("GET", f"/v1/audit/consistency/{int(old_size)}", repeatable=True)
        return _wire_audit.consistency(raw)

    async def audit_query(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 1000, after: int = 0
    ) -> Sequence[AuditEntry]:
        """The first ``limit`` entries after number ``after`` that the filter lets through, in order."""
        body = _wire.encode({**_wire_audit.filter_fields(wanted), "limit": limit, "after": after})
        raw = await self._send("POST", "/v1/audit:query", body, repeatable=True)
        return [entry.noun() for entry in _wire.decode(_wire.Entries, raw).entries]

    async def audit_export(
        self,
        write: Callable[[str], object],
        *,
        format: str = "jsonl",
        opened: bool = False,
        wanted: AuditFilter = EVERYTHING,
    ) -> int:
        """Write the log piece by piece; how many entries.

        Args:
            format: ``jsonl`` (sealed entries and a checkpoint, for ``strongroom audit verify``), or opened
                entries as ``json``, ``csv`` or ``ocsf``.
            opened: with ``jsonl``, put what each entry says beside its sealed bytes.
            wanted: not with ``jsonl``, which is whole.

        Raises:
            InvalidInputError: the arguments do not go together. TransportError: it broke off; what was
            written is not an export.
        """
        body = _wire.encode({**_wire_audit.filter_fields(wanted), "format": format, "opened": opened})
        counter = _wire_audit.LineCounter(format, write)
        await self._stream("/v1/audit:export", body, counter.add)
        return counter.entries
