"""The public operations of an opened store, for one caller.

A ``Session`` belongs to a principal; each method authorizes that principal anew, so that a revoked key
or an expired one stops at the next call. Methods are thread-safe and block. All raise StrongroomError
subclasses only: besides those named, AccessDeniedError, UnauthenticatedError, StorageError,
KeyManagementError and ClosedError may come from any of them.
"""

from __future__ import annotations

from strongroom.engine._session_admin import StoreOperations
from strongroom.engine._session_audit import AuditOperations
from strongroom.engine._session_identity import IdentityOperations
from strongroom.engine._session_keyring import KeyringOperations
from strongroom.engine._session_memories import MemoryOperations
from strongroom.engine._session_respond import RespondOperations
from strongroom.engine._session_rotation import RotationOperations


class Session(
    MemoryOperations,
    StoreOperations,
    AuditOperations,
    IdentityOperations,
    RotationOperations,
    KeyringOperations,
    RespondOperations,
):
    """The operations of one caller. Made by ``Engine.owner_session`` and ``Engine.authenticate``.

    A group of operations is a class in a module of its own, ``_session_<group>.py``, over ``Operations``.
    """
