"""Encryption keys as callers see them: place in the tree, state, use. Never a byte of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class KeyKind(StrEnum):
    """The levels of the tree."""

    MASTER = "master"  # at its key management service
    NAMESPACE = "namespace"
    DATA = "data"


class EncryptionKeyState(StrEnum):
    """After NIST SP 800-57 part 1 revision 5, section 7; in brackets the standard's word.

    A key is made and put to use in one step, so there is no pre-activation state.
    """

    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"  # [deactivated] opens what it sealed
    DISABLED = "disabled"  # [suspended] nothing, until it is enabled again
    COMPROMISED = "compromised"  # opens what it sealed, until that is sealed anew
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionKey:
    """One key of the tree.

    ``id``: ``master:URI``, ``namespace:NS/VERSION`` or ``data:N``; ``parents``: the keys that wrap it.
    ``uses``: records sealed, never understated; None where they are not counted. ``limit``: uses at which it
    refuses. ``role``: what it is for besides records (``purpose root``, ``audit log``). ``overdue``: past its
    period.
    """

    id: str
    kind: KeyKind
    state: EncryptionKeyState
    namespace: str
    parents: tuple[str, ...]
    created_at: datetime
    provider: str = ""
    suite: str = ""
    epoch: int | None = None
    uses: int | None = None
    limit: int | None = None
    role: str = ""
    subject: bool = False
    overdue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One line of a key's history."""

    at: datetime
    kind: KeyKind
    change: str
    namespace: str
    keys: str
    actor: str
    reason: str
    request_id: str = field(default="")
