"""Who asks, what they may do, and the answer with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from strongroom.model.namespace import NamespacePattern


class Scope(StrEnum):
    """What a credential may do at most; each includes the one before."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    ADMIN = "admin"


class Action(StrEnum):
    """What is asked of the engine."""

    STORE = "store"
    SEARCH = "search"
    READ = "read"
    LIST = "list"
    UPDATE = "update"
    DELETE = "delete"
    STATS = "stats"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. ``grants`` is empty for nobody-may-touch-anything."""

    id: str
    name: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    is_owner: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyInfo:
    """An API key without its secret."""

    key_id: str
    name: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, and why. The reason is for the operator's log, never for the caller."""

    allowed: bool
    reason: str
