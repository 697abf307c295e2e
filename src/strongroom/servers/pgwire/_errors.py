"""SQLSTATEs: what a client of PostgreSQL understands of our errors.

Source of the codes: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from strongroom.errors import StrongroomError

# Total over errors.all_errors(); a test holds it. Errors of SQL bring their own code.
SQLSTATE: Mapping[str, str] = {
    "invalid_input": "22023",
    "content_too_large": "54000",
    "invalid_vector": "22023",
    "invalid_filter": "42601",
    "invalid_namespace": "22023",
    "unknown_model": "22023",
    "sql": "42000",
    "sql_syntax": "42601",
    "sql_forbidden": "25006",
    "sql_undefined": "42P01",
    "sql_data": "22000",
    "not_found": "42704",
    "memory_not_found": "02000",
    "namespace_not_found": "3F000",
    "credential_not_found": "42704",
    "store_not_found": "58000",
    "conflict": "55000",
    "duplicate_memory": "23505",
    "version_conflict": "40001",
    "store_exists": "55000",
    "unauthenticated": "28000",
    "access_denied": "42501",
    "limit_exceeded": "53400",
    "timeout": "57014",
    "closed": "57P01",
    "configuration": "58000",
    "integrity": "XX001",
    "decryption_failed": "XX001",
    "tampered": "XX001",
    "self_test_failed": "XX000",
    "key_management": "58000",
    "keystore_missing": "58000",
    "keystore_permissions": "58000",
    "keystore_format": "58000",
    "unwrap_failed": "58000",
    "kms_unavailable": "58000",
    "kms_denied": "58000",
    "kms_throttled": "53400",
    "kms_key_disabled": "58000",
    "kms_key_deleted": "58000",
    "kms_region": "58000",
    "keyring_missing": "58000",
    "keyring_mismatch": "58000",
    "key_state": "55000",
    "key_moved": "55000",
    "key_exhausted": "58000",
    "key_memory": "53200",
    "storage": "58030",
    "storage_full": "53100",
    "storage_read_only": "58030",
    "storage_busy": "55P03",
    "storage_corrupt": "XX001",
    "schema_version": "58000",
    "embedding": "58000",
    "embedding_unavailable": "58000",
    "embedding_rejected": "22023",
    "model_files": "58000",
    "transport": "08006",
    "worker_lost": "58000",
    "internal": "XX000",
}
_NEAR = re.compile(r"near character (\d{1,9})")  # how a syntax error tells its place
_OWN_TEXT_HIDDEN = ("58", "XX", "08")  # faults of the server: their message may name files of the host


class PgError(Exception):
    """An error of this surface on its way to the client. ``position`` counts characters from 1."""

    def __init__(
        self,
        sqlstate: str,
        text: str,
        *,
        hint: str | None = None,
        position: int | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate
        self.text = text
        self.hint = hint
        self.position = position
        self.fatal = fatal


def as_pg_error(error: StrongroomError) -> PgError:
    """The error as a client of the wire may see it.

    A credential that was revoked or has expired ends the connection.
    """
    own = getattr(error, "sqlstate", None)
    sqlstate = own if isinstance(own, str) and len(own) == 5 else SQLSTATE.get(error.code, "XX000")
    near = _NEAR.fullmatch(error.hint or "")
    fatal = error.code in ("unauthenticated", "closed")
    if sqlstate.startswith(_OWN_TEXT_HIDDEN):
        shown = type(error)()
        return PgError(sqlstate, shown.message, hint=shown.hint, fatal=fatal)
    return PgError(
        sqlstate,
        error.message,
        hint=None if near else error.hint,
        position=int(near[1]) if near else None,
        fatal=fatal,
    )
