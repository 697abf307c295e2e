"""Errors as HTTP answers: ``{"error": {"code", "message"[, "hint"]}}``."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from strongroom.errors import LimitExceededError, StrongroomError

# Total over errors.all_errors(); a test holds it.
HTTP_STATUS: Mapping[str, int] = {
    "invalid_input": 400,
    "content_too_large": 413,
    "invalid_vector": 400,
    "invalid_filter": 400,
    "invalid_namespace": 400,
    "unknown_model": 400,
    "sql": 400,
    "sql_syntax": 400,
    "sql_forbidden": 403,
    "sql_undefined": 400,
    "sql_data": 422,
    "not_found": 404,
    "memory_not_found": 404,
    "namespace_not_found": 404,
    "credential_not_found": 404,
    "store_not_found": 500,
    "conflict": 409,
    "duplicate_memory": 409,
    "version_conflict": 409,
    "store_exists": 409,
    "unauthenticated": 401,
    "access_denied": 403,
    "limit_exceeded": 429,
    "timeout": 504,
    "closed": 503,
    "configuration": 500,
    "integrity": 500,
    "decryption_failed": 500,
    "tampered": 500,
    "key_management": 500,
    "self_test_failed": 500,
    "keystore_missing": 500,
    "keystore_permissions": 500,
    "keystore_format": 500,
    "unwrap_failed": 500,
    "kms_unavailable": 503,
    "kms_denied": 500,
    "kms_throttled": 503,
    "kms_key_disabled": 500,
    "kms_key_deleted": 500,
    "kms_region": 500,
    "keyring_missing": 500,
    "keyring_mismatch": 500,
    "key_state": 409,
    "key_moved": 409,
    "key_exhausted": 500,
    "key_memory": 500,
    "storage": 500,
    "storage_full": 507,
    "storage_read_only": 500,
    "storage_busy": 503,
    "storage_corrupt": 500,
    "schema_version": 500,
    "embedding": 500,
    "embedding_unavailable": 503,
    "embedding_rejected": 400,
    "model_files": 500,
    "transport": 502,
    "worker_lost": 500,
    "internal": 500,
}
_RETRY_AFTER = frozenset(
    {"limit_exceeded", "storage_busy", "kms_unavailable", "kms_throttled", "embedding_unavailable"}
)
_FORM_HINT = "docs/rest.md and /openapi.json describe what the operation takes"
_HINTS: Mapping[str, str] = {  # in the words of REST, for errors of the caller without a hint of their own
    "invalid_input": _FORM_HINT,
    "content_too_large": "split it, or have the limit raised in the configuration",
    "invalid_vector": "as many finite numbers as the namespace's model has dimensions, not all zero",
    "invalid_filter": "one boolean SQL expression over the columns of a memory; see docs/rest.md",
    "invalid_namespace": _FORM_HINT,
    "unknown_model": "the operator of the server configures models",
    "sql": "docs/sql.md describes the language",
    "sql_syntax": "docs/sql.md describes the language",
    "sql_forbidden": "docs/sql.md lists the tables and functions",
    "sql_undefined": "docs/sql.md lists the tables and functions",
    "sql_data": "use TRY_CAST for values of mixed types",
    "not_found": _FORM_HINT,
    "memory_not_found": "check the id and the namespace",
    "namespace_not_found": "GET /v1/namespaces lists those that you may see",
    "credential_not_found": "GET /v1/keys lists those that you may manage",
    "conflict": "read the present state and decide again",
    "duplicate_memory": "update the memory that is there, or store under another id",
    "unauthenticated": "send Authorization: Bearer with a valid API key",
    "access_denied": "ask an administrator for one that allows it; whoami tells what this one allows",
    "limit_exceeded": "ask for less, or repeat later",
    "embedding_rejected": "shorten or change the text",
}
_ENCODER = msgspec.json.Encoder()

Headers = list[tuple[bytes, bytes]]


def http_status(error: StrongroomError) -> int:
    """The status for an error; 500 for a code that the table does not know."""
    return HTTP_STATUS.get(error.code, 500)


def public_error(error: StrongroomError) -> dict[str, str]:
    """The error as a remote caller may see it.

    Faults of the server lose their own message, which may name files of the host, and keep the one
    sentence of their class; the message goes to the log.
    """
    if http_status(error) >= 500:
        return type(error)().as_dict()
    shown = error.as_dict()
    if not error.has_own_hint and error.code in _HINTS:
        shown["hint"] = _HINTS[error.code]
    return shown


def error_response(error: StrongroomError, status: int | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer to an error."""
    code = http_status(error) if status is None else status
    headers: Headers = [(b"content-type", b"application/json")]
    if code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="strongroom"'))
    if error.code in _RETRY_AFTER:
        wait_s = error.retry_after_s if isinstance(error, LimitExceededError) else 1.0
        headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
    return code, headers, _ENCODER.encode({"error": public_error(error)})
