"""How the command ends when something is wrong: two lines on stderr (or JSON) and an exit status.

error: <message> (<code>)
hint: <hint>
"""

from __future__ import annotations

import json
import sys
from typing import Final

from strongroom.cli._text import printable
from strongroom.errors import InternalError, StrongroomError

FINDINGS: Final = 1  # check and doctor found something
BROKEN_PIPE: Final = 141

# Exit status by error code. Every code of strongroom.errors stands here, and nothing else; a test sees to it.
EXIT_STATUS: Final[dict[str, int]] = {
    "invalid_input": 2,
    "content_too_large": 2,
    "invalid_vector": 2,
    "invalid_filter": 2,
    "invalid_namespace": 2,
    "unknown_model": 2,
    "sql": 2,
    "sql_syntax": 2,
    "sql_forbidden": 2,
    "sql_undefined": 2,
    "sql_data": 2,
    "not_found": 3,
    "memory_not_found": 3,
    "namespace_not_found": 3,
    "credential_not_found": 3,
    "store_not_found": 3,
    "conflict": 4,
    "duplicate_memory": 4,
    "version_conflict": 4,
    "store_exists": 4,
    "unauthenticated": 5,
    "access_denied": 5,
    "limit_exceeded": 6,
    "timeout": 6,
    "configuration": 7,
    "closed": 7,
    "integrity": 8,
    "decryption_failed": 8,
    "tampered": 8,
    "self_test_failed": 8,
    "key_management": 9,
    "keystore_missing": 9,
    "keystore_permissions": 9,
    "keystore_format": 9,
    "unwrap_failed": 9,
    "kms_unavailable": 9,
    "kms_denied": 9,
    "kms_throttled": 9,
    "kms_key_disabled": 9,
    "kms_key_deleted": 9,
    "kms_region": 9,
    "keyring_missing": 9,
    "keyring_mismatch": 9,
    "key_state": 9,
    "key_moved": 9,
    "key_exhausted": 9,
    "key_memory": 9,
    "storage": 10,
    "storage_full": 10,
    "storage_read_only": 10,
    "storage_busy": 10,
    "storage_corrupt": 10,
    "schema_version": 10,
    "embedding": 11,
    "embedding_unavailable": 11,
    "embedding_rejected": 11,
    "model_files": 11,
    "transport": 12,
    "worker_lost": 12,
    "internal": 70,
}

# What a hint for every surface cannot say: which command to type. For errors that bring no hint of their own.
COMMAND_HINTS: Final[dict[str, str]] = {
    "invalid_input": "see: {command} --help",
    "namespace_not_found": "those that there are: strongroom namespaces list",
    "credential_not_found": "those that there are: strongroom keys list",
    "key_management": "see: strongroom kms status",
    "kms_unavailable": "what it answers, and how long keys are still used: strongroom kms status",
    "key_state": "the states of keys: strongroom keyring list",
    "embedding_unavailable": "what is wrong with the model: strongroom doctor",
    "configuration": "what is wrong with the configuration: strongroom doctor",
}
UNEXPECTED_HINT: Final = "run the command again with --debug to see where"


def exit_status(error: StrongroomError) -> int:
    """The exit status for an error; a code that is not in the table counts as internal."""
    return EXIT_STATUS.get(error.code, EXIT_STATUS[InternalError.code])


def show_error(error: StrongroomError, *, as_json: bool, command: str = "strongroom") -> None:
    """Write an error to stderr. ``command``: which was run, for its hint."""
    if not error.has_own_hint and error.code in COMMAND_HINTS:
        error.advise(COMMAND_HINTS[error.code].format(command=command))
    if as_json:
        text = json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n"
    else:
        text = f"error: {printable(error.message, one_line=True)} ({error.code})\n"
        if error.hint:
            text += f"hint: {printable(error.hint, one_line=True)}\n"
    try:
        sys.stderr.write(text.encode("utf-8", "replace").decode("utf-8"))
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody listens; the exit status still tells
