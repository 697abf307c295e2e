"""Errors as HTTP answers: ``{"error": {"code", "message"[, "hint"]}}``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from strongroom.errors import StrongroomError

# Total over errors.all_errors(); a test holds it.
HTTP_STATUS: Mapping[str, int] = {
    "invalid_input": 400,
    "content_too_large": 413,
    "invalid_vector": 400,
    "invalid_filter": 400,
    "invalid_namespace": 400,
    "unknown_model": 400,
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
    "keystore_missing": 500,
    "keystore_permissions": 500,
    "keystore_format": 500,
    "unwrap_failed": 500,
    "kms_unavailable": 503,
    "kms_denied": 500,
    "keyring_missing": 500,
    "keyring_mismatch": 500,
    "key_state": 409,
    "key_exhausted": 500,
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
    "internal": 500,
}
_RETRY_AFTER = frozenset({"limit_exceeded", "storage_busy", "kms_unavailable", "embedding_unavailable"})
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
    if http_status(error) < 500:
        return error.as_dict()
    return type(error)().as_dict()


def error_response(error: StrongroomError, status: int | None = None) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer to an error."""
    code = http_status(error) if status is None else status
    headers: Headers = [(b"content-type", b"application/json")]
    if code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="strongroom"'))
    if error.code in _RETRY_AFTER:
        headers.append((b"retry-after", b"1"))
    return code, headers, _ENCODER.encode({"error": public_error(error)})
