"""What is not there, what is in the way, who may do what, and the bounds of the service."""

from __future__ import annotations

from strongroom.errors._base import StrongroomError


# -- what is not there -----------------------------------------------------------------------------
class NotFoundError(StrongroomError):
    """What was asked for does not exist, or the caller may not see it."""

    code = "not_found"


class MemoryNotFoundError(NotFoundError):
    """There is no such memory in that namespace."""

    code = "memory_not_found"
    default_hint = "check the id and the namespace"


class NamespaceNotFoundError(NotFoundError):
    """There is no such namespace."""

    code = "namespace_not_found"
    default_hint = "list the namespaces that you may see"


class CredentialNotFoundError(NotFoundError):
    """There is no API key with that id."""

    code = "credential_not_found"
    default_hint = "list the credentials that you may manage"


class StoreNotFoundError(NotFoundError):
    """There is no store in that directory."""

    code = "store_not_found"
    default_hint = "create one with: strongroom --data DIR init"


# -- what is in the way ----------------------------------------------------------------------------
class ConflictError(StrongroomError):
    """The operation does not fit the present state."""

    code = "conflict"
    default_hint = "read the present state and decide again"


class DuplicateMemoryError(ConflictError):
    """A memory with that id exists already."""

    code = "duplicate_memory"
    default_hint = "update the memory that is there, or store under another id"


class VersionConflictError(ConflictError):
    """The memory was changed by someone else in the meantime."""

    code = "version_conflict"
    default_hint = "read the memory again and repeat the change"


class StoreExistsError(ConflictError):
    """The directory holds a store already."""

    code = "store_exists"
    default_hint = "choose another directory"


# -- who may do what -------------------------------------------------------------------------------
class UnauthenticatedError(StrongroomError):
    """The credential is missing, malformed, expired, revoked or unknown."""

    code = "unauthenticated"
    default_hint = "give an API key, token or certificate that is known and in force"
    reason: str = ""  # for the audit log alone


class AccessDeniedError(StrongroomError):
    """The credential does not allow this operation."""

    code = "access_denied"
    default_hint = "ask an administrator for one that allows it; whoami tells what this one allows"


# -- bounds of the service -------------------------------------------------------------------------
class LimitExceededError(StrongroomError):
    """A configured limit was reached."""

    code = "limit_exceeded"
    default_hint = "ask for less, or repeat later"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s: float = retry_after_s


class OperationTimeoutError(StrongroomError):
    """The operation took longer than its limit."""

    code = "timeout"


class ClosedError(StrongroomError):
    """The store was closed."""

    code = "closed"
    default_hint = "open it again, or connect again"


class ConfigurationError(StrongroomError):
    """The configuration is wrong or incomplete."""

    code = "configuration"
