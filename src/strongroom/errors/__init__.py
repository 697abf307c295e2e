"""The one error tree of Strongroom.

    StrongroomError                       base; never raised itself
      InvalidInputError                   invalid_input
        ContentTooLargeError              content_too_large
        InvalidVectorError                invalid_vector
        InvalidFilterError                invalid_filter
        InvalidNamespaceError             invalid_namespace
        UnknownModelError                 unknown_model
        SqlError                          sql
          SqlSyntaxError                  sql_syntax
          SqlForbiddenError               sql_forbidden
          SqlUndefinedError               sql_undefined
          SqlDataError                    sql_data
      NotFoundError                       not_found
        MemoryNotFoundError               memory_not_found
        NamespaceNotFoundError            namespace_not_found
        CredentialNotFoundError           credential_not_found
        StoreNotFoundError                store_not_found
      ConflictError                       conflict
        DuplicateMemoryError              duplicate_memory
        VersionConflictError              version_conflict
        StoreExistsError                  store_exists
      UnauthenticatedError                unauthenticated
      AccessDeniedError                   access_denied
      LimitExceededError                  limit_exceeded
      OperationTimeoutError               timeout
      ClosedError                         closed
      ConfigurationError                  configuration
      IntegrityError                      integrity
        DecryptionError                   decryption_failed
        TamperedError                     tampered
        SelfTestError                     self_test_failed
      KeyManagementError                  key_management
        KeystoreMissingError              keystore_missing
        KeystorePermissionError           keystore_permissions
        KeystoreFormatError               keystore_format
        UnwrapError                       unwrap_failed
        KmsUnavailableError               kms_unavailable
          KmsThrottledError               kms_throttled
        KmsDeniedError                    kms_denied
        KmsKeyDisabledError               kms_key_disabled
        KmsKeyDeletedError                kms_key_deleted
        KmsRegionError                    kms_region
        KeyringMissingError               keyring_missing
        KeyringMismatchError              keyring_mismatch
        KeyStateError                     key_state
          KeyMovedError                   key_moved
        KeyExhaustedError                 key_exhausted
        KeyMemoryError                    key_memory
      StorageError                        storage
        StorageFullError                  storage_full
        StorageReadOnlyError              storage_read_only
        StorageBusyError                  storage_busy
        StorageCorruptError               storage_corrupt
        SchemaVersionError                schema_version
      EmbeddingError                      embedding
        EmbeddingUnavailableError         embedding_unavailable
        EmbeddingRejectedError            embedding_rejected
        ModelFilesError                   model_files
      TransportError                      transport
      WorkerLostError                     worker_lost
      InternalError                       internal

One class, one sentence, one stable ``code``. A server maps the code to HTTP, SQLSTATE, MCP or an
exit status; a test shows that each map is total. ``message`` never holds content, keys or the name
of anything that the caller may not see. ``hint`` is advice for a person. Errors of other libraries
never cross a public door; across key material they are not even chained.
"""

from __future__ import annotations

from strongroom.errors._base import (
    StrongroomError,
)
from strongroom.errors._boundary import (
    callers_own,
    cause_of,
    failure_of,
    no_memory,
    require_thread,
    thread_started,
)
from strongroom.errors._input import (
    ContentTooLargeError,
    InvalidFilterError,
    InvalidInputError,
    InvalidNamespaceError,
    InvalidVectorError,
    SqlDataError,
    SqlError,
    SqlForbiddenError,
    SqlSyntaxError,
    SqlUndefinedError,
    UnknownModelError,
)
from strongroom.errors._integrity import (
    DecryptionError,
    IntegrityError,
    SelfTestError,
    TamperedError,
)
from strongroom.errors._keys import (
    KeyExhaustedError,
    KeyManagementError,
    KeyMemoryError,
    KeyMovedError,
    KeyringMismatchError,
    KeyringMissingError,
    KeyStateError,
    KeystoreFormatError,
    KeystoreMissingError,
    KeystorePermissionError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsRegionError,
    KmsThrottledError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.errors._service import (
    EmbeddingError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
    InternalError,
    ModelFilesError,
    TransportError,
    WorkerLostError,
)
from strongroom.errors._state import (
    AccessDeniedError,
    ClosedError,
    ConfigurationError,
    ConflictError,
    CredentialNotFoundError,
    DuplicateMemoryError,
    LimitExceededError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    NotFoundError,
    OperationTimeoutError,
    StoreExistsError,
    StoreNotFoundError,
    UnauthenticatedError,
    VersionConflictError,
)
from strongroom.errors._storage import (
    SchemaVersionError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    StorageReadOnlyError,
)

__all__ = [
    "AccessDeniedError",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "ContentTooLargeError",
    "CredentialNotFoundError",
    "DecryptionError",
    "DuplicateMemoryError",
    "EmbeddingError",
    "EmbeddingRejectedError",
    "EmbeddingUnavailableError",
    "IntegrityError",
    "InternalError",
    "InvalidFilterError",
    "InvalidInputError",
    "InvalidNamespaceError",
    "InvalidVectorError",
    "KeyExhaustedError",
    "KeyManagementError",
    "KeyMemoryError",
    "KeyMovedError",
    "KeyStateError",
    "KeyringMismatchError",
    "KeyringMissingError",
    "KeystoreFormatError",
    "KeystoreMissingError",
    "KeystorePermissionError",
    "KmsDeniedError",
    "KmsKeyDeletedError",
    "KmsKeyDisabledError",
    "KmsRegionError",
    "KmsThrottledError",
    "KmsUnavailableError",
    "LimitExceededError",
    "MemoryNotFoundError",
    "ModelFilesError",
    "NamespaceNotFoundError",
    "NotFoundError",
    "OperationTimeoutError",
    "SchemaVersionError",
    "SelfTestError",
    "SqlDataError",
    "SqlError",
    "SqlForbiddenError",
    "SqlSyntaxError",
    "SqlUndefinedError",
    "StorageBusyError",
    "StorageCorruptError",
    "StorageError",
    "StorageFullError",
    "StorageReadOnlyError",
    "StoreExistsError",
    "StoreNotFoundError",
    "StrongroomError",
    "TamperedError",
    "TransportError",
    "UnauthenticatedError",
    "UnknownModelError",
    "UnwrapError",
    "VersionConflictError",
    "WorkerLostError",
    "all_errors",
    "callers_own",
    "cause_of",
    "failure_of",
    "from_dict",
    "no_memory",
    "require_thread",
    "thread_started",
]


def all_errors() -> dict[str, type[StrongroomError]]:
    """Every error class by its code (the base class left out)."""
    found: dict[str, type[StrongroomError]] = {}
    todo: list[type[StrongroomError]] = list(StrongroomError.__subclasses__())
    while todo:
        cls = todo.pop()
        found[cls.code] = cls
        todo.extend(cls.__subclasses__())
    return found


def from_dict(data: dict[str, str]) -> StrongroomError:
    """Make the error again that another process has shown with ``as_dict``."""
    cls = all_errors().get(data.get("code", ""), InternalError)
    if issubclass(cls, SqlError):
        return cls(data.get("message"), hint=data.get("hint"), sqlstate=data.get("sqlstate"))
    return cls(data.get("message"), hint=data.get("hint"))


for _cls in (StrongroomError, *all_errors().values()):
    _cls.__module__ = __name__  # tracebacks and help() name the place that programs import it from
