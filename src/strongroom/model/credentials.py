"""Credentials other than API keys, as listings show them. None holds a secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from strongroom.model.namespace import NamespacePattern
from strongroom.model.principal import PrincipalKind, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """An identity that certificates of clients may carry, and what it may do.

    ``identity`` is ``spiffe://trust.domain/path`` or ``dns:host``. ``serial`` (hexadecimal) and ``not_after``
    are those of the newest certificate that the embedded authority has signed for it, if it has.
    """

    id: str
    name: str
    identity: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    kind: PrincipalKind
    agent_id: str
    labels: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    serial: str
    not_after: datetime | None
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """A short-lived token of an API key, without its text."""

    token_id: str
    key_id: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    created_at: datetime
    expires_at: datetime


class ElevationState(StrEnum):
    """Where an elevation stands. Only an active one lends anything."""

    PENDING = "pending"
    LAPSED = "lapsed"  # nobody decided it in time
    DENIED = "denied"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevationInfo:
    """A time-boxed further right with its reason. ``requester``, ``decided_by``, ``ended_by``: principals."""

    id: str
    state: ElevationState
    requester: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    reason: str
    minutes: int
    requested_at: datetime
    decided_at: datetime | None
    decided_by: str
    expires_at: datetime | None
    ended_at: datetime | None
    ended_by: str
