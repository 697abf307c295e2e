"""The operations on the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from strongroom.audit import EVERYTHING, AuditFilter, Checkpoint, ConsistencyProof, InclusionProof
from strongroom.engine import _admin, _audit
from strongroom.engine._session_base import Operations
from strongroom.model import (
    AuditEntry,
)


class AuditOperations(Operations):
    """Read, prove and export the audit log."""

    def audit(self, limit: int = 100, after: int = 0) -> Sequence[AuditEntry]:
        """Entries of the audit log; ``after=0``: the newest ``limit``, oldest of them first."""
        return self._run("administer", lambda call: _admin.audit_entries(call, limit, after))

    def audit_key(self) -> tuple[str, str]:
        """The public keys of the audit log, as C2SP verifier keys: Ed25519, ML-DSA-44."""
        return self._run("administer", _audit.key)

    def audit_key_changes(self) -> tuple[str, ...]:
        """The signed documents by which keys of the audit log handed over to others, oldest first.

        ``strongroom.audit.verify.verify_key_change`` verifies one with the keys before.
        """
        return self._run("administer", _audit.key_changes)

    def audit_checkpoint(self) -> Checkpoint:
        """Take in what was committed and sign it: size, root, and the signed note.

        Raises:
            TamperedError: integrated entries are gone or are others now.
        """
        return self._run("administer", _audit.checkpoint)

    def audit_proof(self, seq: int) -> InclusionProof:
        """That entry ``seq`` is in the log of a checkpoint.

        Raises:
            NotFoundError: there is no such entry. TamperedError: as ``audit_checkpoint``.
        """
        return self._run("administer", lambda call: _audit.proof(call, seq))

    def audit_consistency(self, old_size: int) -> ConsistencyProof:
        """That the log, when it had ``old_size`` entries, was the beginning of what it is now.

        Raises:
            InvalidInputError: it never had so many. TamperedError: as ``audit_checkpoint``.
        """
        return self._run("administer", lambda call: _audit.consistency(call, old_size))

    def audit_query(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 1000, after: int = 0
    ) -> Sequence[AuditEntry]:
        """The first ``limit`` entries after number ``after`` that the filter lets through, in order."""
        return self._run("administer", lambda call: _audit.query(call, wanted, limit, after))

    def audit_follow(
        self,
        emit: Callable[[AuditEntry], object],
        *,
        wanted: AuditFilter = EVERYTHING,
        last: int = 10,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Give ``emit`` the last entries and then each new one, until ``stop()`` is true (None: at once).

        One operation with one audit entry, written before the first is given out.
        """
        self._run("administer", lambda call: _audit.follow(call, wanted, last, emit, stop))

    def audit_export(
        self,
        write: Callable[[str], object],
        *,
        format: str = "jsonl",
        opened: bool = False,
        wanted: AuditFilter = EVERYTHING,
    ) -> int:
        """Write the log line by line, each with its line end; how many entries.

        Args:
            format: ``jsonl`` (sealed entries and a checkpoint, for ``strongroom audit verify``), or opened
                entries as ``json``, ``csv`` or ``ocsf``.
            opened: with ``jsonl``, put what each entry says beside its sealed bytes.
            wanted: not with ``jsonl``, which is whole.

        Raises:
            InvalidInputError: the arguments do not go together.
        """
        return self._run("administer", lambda call: _audit.export(call, write, format, opened, wanted))
