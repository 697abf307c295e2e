"""Errors as an agent reads them: the typed error, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping

from mcp_types import CallToolResult, TextContent

from strongroom.errors import StrongroomError

_CORRECT = "correct the arguments and call again"
_LOOK = "search or list to find the right id and namespace"
_READ = "read the present state, then decide again"
_LATER = "wait a moment and call again"
_OPERATOR = "tell the user that the operator of the memory store must look at this"
_CREDENTIAL = "memory_stats tells what you were given: stay within it, or ask the user for access"

# Total over errors.all_errors(); a test holds it.
ADVICE: Mapping[str, str] = {
    "invalid_input": _CORRECT,
    "content_too_large": _CORRECT,
    "invalid_vector": _CORRECT,
    "invalid_filter": _CORRECT,
    "invalid_namespace": _CORRECT,
    "unknown_model": _CORRECT,
    "sql": _CORRECT,
    "sql_syntax": _CORRECT,
    "sql_forbidden": _CORRECT,
    "sql_undefined": _CORRECT,
    "sql_data": _CORRECT,
    "not_found": _LOOK,
    "memory_not_found": _LOOK,
    "namespace_not_found": "call memory_stats to see the namespaces that there are",
    "credential_not_found": _OPERATOR,
    "store_not_found": _OPERATOR,
    "conflict": _READ,
    "duplicate_memory": _READ,
    "version_conflict": _READ,
    "store_exists": _OPERATOR,
    "unauthenticated": _OPERATOR,
    "access_denied": _CREDENTIAL,
    "limit_exceeded": _CORRECT,
    "timeout": _LATER,
    "closed": _OPERATOR,
    "configuration": _OPERATOR,
    "integrity": _OPERATOR,
    "decryption_failed": _OPERATOR,
    "tampered": _OPERATOR,
    "key_management": _OPERATOR,
    "self_test_failed": _OPERATOR,
    "keystore_missing": _OPERATOR,
    "keystore_permissions": _OPERATOR,
    "keystore_format": _OPERATOR,
    "unwrap_failed": _OPERATOR,
    "kms_unavailable": _LATER,
    "kms_denied": _OPERATOR,
    "kms_throttled": _LATER,
    "kms_key_disabled": _OPERATOR,
    "kms_key_deleted": _OPERATOR,
    "kms_region": _OPERATOR,
    "keyring_missing": _OPERATOR,
    "keyring_mismatch": _OPERATOR,
    "key_state": _OPERATOR,
    "key_moved": _OPERATOR,
    "key_exhausted": _OPERATOR,
    "key_memory": _OPERATOR,
    "storage": _OPERATOR,
    "storage_full": _OPERATOR,
    "storage_read_only": _OPERATOR,
    "storage_busy": _LATER,
    "storage_corrupt": _OPERATOR,
    "schema_version": _OPERATOR,
    "embedding": _OPERATOR,
    "embedding_unavailable": _LATER,
    "embedding_rejected": _CORRECT,
    "model_files": _OPERATOR,
    "transport": _LATER,
    "worker_lost": _OPERATOR,
    "internal": _OPERATOR,
}
# The caller's own mistakes keep their message; the rest may name files of the host and is logged instead.
_OWN_MESSAGE = frozenset(code for code, advice in ADVICE.items() if advice not in (_OPERATOR, _LATER))


def tool_error(error: StrongroomError) -> CallToolResult:
    """The error as the result of a tool call: text for the model, ``error`` for programs."""
    shown = (error if error.code in _OWN_MESSAGE else type(error)()).as_dict()
    if error.code in _OWN_MESSAGE and not error.has_own_hint:
        shown.pop("hint", None)  # what to do next says it in the words of the tools
    shown["next"] = ADVICE.get(error.code, _OPERATOR)
    lines = [f"{shown['code']}: {shown['message']}"]
    if "hint" in shown:
        lines.append(f"hint: {shown['hint']}")
    lines.append(f"next: {shown['next']}")
    return CallToolResult(
        content=[TextContent(type="text", text="\n".join(lines))],
        structured_content={"error": shown},
        is_error=True,
    )
