"""Answers about who may come in, without I/O."""

from __future__ import annotations

from datetime import datetime

import msgspec

from strongroom.errors import TransportError
from strongroom.model import (
    Authentication,
    ClientIdentity,
    Elevated,
    ElevationInfo,
    ElevationState,
    NamespacePattern,
    Principal,
    PrincipalKind,
    Scope,
    TokenInfo,
)


class _Identity(msgspec.Struct):
    id: str
    name: str
    identity: str
    scope: Scope
    grants: list[str]
    kind: PrincipalKind
    agent_id: str
    labels: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    serial: str
    not_after: datetime | None
    tenant: str = ""

    def noun(self) -> ClientIdentity:
        return ClientIdentity(
            id=self.id,
            name=self.name,
            identity=self.identity,
            scope=self.scope,
            grants=_patterns(self.grants),
            kind=self.kind,
            agent_id=self.agent_id,
            labels=tuple(self.labels),
            created_at=self.created_at,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
            serial=self.serial,
            not_after=self.not_after,
            tenant=self.tenant,
        )


class _Certificate(msgspec.Struct):
    identity: _Identity
    certificate: str | None


class _Certificates(msgspec.Struct):
    certificates: list[_Identity]


class _Revoked(msgspec.Struct):
    identity: _Identity | None


_CERTIFICATE = msgspec.json.Decoder(_Certificate)
_CERTIFICATES = msgspec.json.Decoder(_Certificates)
_REVOKED = msgspec.json.Decoder(_Revoked)
_NOT_KNOWN = "the answer is not of the form that this client knows"


def certificate(raw: bytes) -> tuple[ClientIdentity, str]:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        found = _CERTIFICATE.decode(raw)
        return found.identity.noun(), found.certificate or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None


def certificates(raw: bytes) -> list[ClientIdentity]:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        return [c.noun() for c in _CERTIFICATES.decode(raw).certificates]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None


def revoked(raw: bytes) -> ClientIdentity | None:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        found = _REVOKED.decode(raw).identity
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None
    return None if found is None else found.noun()


class _Token(msgspec.Struct):
    token_id: str
    key_id: str
    scope: Scope
    grants: list[str]
    created_at: datetime
    expires_at: datetime


class _NewToken(msgspec.Struct):
    token: _Token
    access_token: str


class _Elevation(msgspec.Struct):
    id: str
    state: ElevationState
    requester: str
    scope: Scope
    grants: list[str]
    reason: str
    minutes: int
    requested_at: datetime
    decided_at: datetime | None
    decided_by: str
    expires_at: datetime | None
    ended_at: datetime | None
    ended_by: str

    def noun(self) -> ElevationInfo:
        fields = {f: getattr(self, f) for f in self.__struct_fields__}
        return ElevationInfo(**{**fields, "grants": _patterns(self.grants)})


class _Elevations(msgspec.Struct):
    elevations: list[_Elevation]


_NEW_TOKEN = msgspec.json.Decoder(_NewToken)
_ELEVATION = msgspec.json.Decoder(_Elevation)
_ELEVATIONS = msgspec.json.Decoder(_Elevations)


def token(raw: bytes) -> tuple[TokenInfo, str]:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        made = _NEW_TOKEN.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None
    t = made.token
    info = TokenInfo(
        token_id=t.token_id,
        key_id=t.key_id,
        scope=t.scope,
        grants=_patterns(t.grants),
        created_at=t.created_at,
        expires_at=t.expires_at,
    )
    return info, made.access_token


def elevation(raw: bytes) -> ElevationInfo:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        return _ELEVATION.decode(raw).noun()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None


def elevations(raw: bytes) -> list[ElevationInfo]:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        return [e.noun() for e in _ELEVATIONS.decode(raw).elevations]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None


class _Lent(msgspec.Struct):
    id: str
    scope: Scope
    grants: list[str]


class _Principal(msgspec.Struct):
    id: str
    name: str
    scope: Scope
    grants: list[str]
    is_owner: bool
    kind: PrincipalKind
    tenant: str
    agent_id: str
    labels: list[str]
    authentication: Authentication
    elevations: list[_Lent]


_PRINCIPAL = msgspec.json.Decoder(_Principal)


def principal(raw: bytes) -> Principal:
    """Raises: TransportError: not of the form that this client knows."""
    try:
        p = _PRINCIPAL.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TransportError(_NOT_KNOWN) from None
    return Principal(
        id=p.id,
        name=p.name,
        scope=p.scope,
        grants=_patterns(p.grants),
        is_owner=p.is_owner,
        kind=p.kind,
        tenant=p.tenant,
        agent_id=p.agent_id,
        labels=tuple(p.labels),
        authentication=p.authentication,
        elevations=tuple(Elevated(e.id, e.scope, _patterns(e.grants)) for e in p.elevations),
    )


def _patterns(texts: list[str]) -> tuple[NamespacePattern, ...]:
    return tuple(NamespacePattern.parse(text) for text in texts)
