"""Certificates of clients: let an identity in, sign for it, renew, revoke.

Authorization is that of key management, policies included: an admin manages the identities whose every
grant lies within its own. A caller that has come in with a certificate may renew its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from strongroom import access
from strongroom.access import CertificateCredential, Revocation
from strongroom.config import keys_directory
from strongroom.engine._admin import end_of_new, may_manage, require_giving, require_whole_store
from strongroom.engine._call import Call
from strongroom.engine._payload import from_us, to_us
from strongroom.engine._validate import check_number, check_text
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    CredentialNotFoundError,
    DuplicateMemoryError,
    InvalidInputError,
)
from strongroom.identity import CLIENT_HOURS_MAX, ClientAuthority, Issued, check_identity, tenant_by
from strongroom.model import (
    Action,
    Authentication,
    ClientIdentity,
    Field,
    KeyAttributes,
    PrincipalKind,
    Scope,
    tenant_of,
)

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_HOURS_MIN = 1 / 60
_AGENT_ID_BYTES_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """What an identity is to be let in for."""

    identity: str
    name: str
    scope: Scope | str
    grants: Sequence[str]
    expires_at: datetime | None = None
    kind: PrincipalKind | str = PrincipalKind.AGENT
    agent_id: str = ""
    labels: Sequence[str] = ()
    tenant: str | None = None  # None: as [access] certificate_tenant reads it from the identity


def allow(call: Call, wanted: NewIdentity) -> ClientIdentity:
    """Let an identity in whose certificates another authority signs."""
    credential = _new(call, wanted)
    call.reason = f"allow the identity {credential.identity}"
    _write(call, credential, 1)
    return _info(credential)


def issue(call: Call, wanted: NewIdentity, request: str, hours: float) -> tuple[ClientIdentity, str]:
    credential = _new(call, wanted)
    call.reason = f"issue a certificate for {credential.identity}"
    issued = _signed(call, credential, request, hours)
    credential = _with(credential, issued)
    _write(call, credential, 1)
    return _info(credential), issued.pem


def renew(call: Call, request: str, identity: str | None, hours: float) -> tuple[ClientIdentity, str]:
    """A new certificate for an identity that is known; the caller's own when none is named."""
    credential = _to_renew(call, identity)
    call.reason = f"renew the certificate of {credential.identity}"
    decision = access.assess_certificate(credential, call.engine.now_us())
    if not decision.allowed:
        raise ConflictError(decision.reason)
    issued = _signed(call, credential, request, hours)
    renewed = _with(credential, issued)
    _write(call, renewed, call.engine.registry.identities.certificate_version(credential.identity) + 1)
    return _info(renewed), issued.pem


def listed(call: Call) -> Sequence[ClientIdentity]:
    call.reason = "list certificates"
    return sorted((_info(c) for c in _manageable(call)), key=lambda i: i.created_at)


def revoke(call: Call, identity_id: str | None, serial: str | None) -> ClientIdentity | None:
    """Revoke an identity with all its certificates, or one certificate by its serial number."""
    if (identity_id is None) == (serial is None):
        raise InvalidInputError("name either an identity or the serial number of a certificate")
    manageable = _manageable(call)
    if serial is not None:
        return _revoke_serial(call, manageable, serial)
    wanted = check_text(identity_id, "id", 2048)
    call.reason = f"revoke the identity {wanted[:256]}"
    found = next((c for c in manageable if wanted in (c.id, c.identity)), None)
    if found is None:
        raise CredentialNotFoundError
    if found.revoked_at_us is None:
        found = replace(found, revoked_at_us=max(call.engine.now_us(), found.created_at_us))
        _write(call, found, call.engine.registry.identities.certificate_version(found.identity) + 1)
    return _info(found)


def _revoke_serial(
    call: Call, manageable: Sequence[CertificateCredential], serial: str
) -> ClientIdentity | None:
    text = serial.lower().replace(":", "").lstrip("0") if isinstance(serial, str) else ""
    if not access.is_serial(text):
        raise InvalidInputError("not a serial number", hint="hexadecimal, as certificates list shows it")
    call.reason = f"revoke the certificate {text}"
    owner = next((c for c in manageable if c.serial == text), None)
    if owner is None:  # an older certificate, or one of another authority: whose it is, is not known here
        call.require(Action.ADMINISTER, None)
    identities = call.engine.registry.identities
    if identities.revoked(text) is None:
        made = Revocation(serial=text, at_us=call.engine.now_us(), by=call.caller)
        raw = access.encode_revocation(made)
        try:
            registry = call.engine.registry
            registry.write_identity(Field.REVOCATION, text, 1, raw, call.audit_ok(), call.commit)
        except DuplicateMemoryError:  # another process was first
            call.engine.registry.refresh()
    return None if owner is None else _info(owner)


# -- parts --------------------------------------------------------------------------------------------
def _new(call: Call, wanted: NewIdentity) -> CertificateCredential:
    engine = call.engine
    try:
        scope, kind = Scope(wanted.scope), PrincipalKind(wanted.kind)
    except ValueError:
        names = ", ".join([*(s.value for s in Scope), *(k.value for k in PrincipalKind)])
        raise InvalidInputError("unknown scope or kind", hint=f"known: {names}") from None
    grants = access.check_grants(wanted.grants)
    decision = may_manage(call, grants, scope)
    call.reason = decision.reason
    if not decision.allowed:
        raise AccessDeniedError
    now_us = engine.now_us()
    expires_us = end_of_new(call, wanted.expires_at)
    identity = check_identity(wanted.identity)
    named = tenant_by(engine.config.access.certificate_tenant, identity)
    if not named or {tenant_of(g.plain.text) for g in grants} != {named}:
        # Identities are names in one book for all: who may write any of them could take those of others.
        require_whole_store(call, "identities that do not name the tenant of the grants")
    engine.registry.refresh()
    if engine.registry.identities.certificate(identity) is not None:
        raise ConflictError(
            "the identity is known already, or was revoked", hint="renew it, or choose another identity"
        )
    agent_id = check_text(wanted.agent_id, "agent_id", _AGENT_ID_BYTES_MAX) if wanted.agent_id else ""
    labels = access.check_labels(wanted.labels)
    tenant = access.check_tenant(named if wanted.tenant is None else wanted.tenant)
    require_giving(call, KeyAttributes(kind, agent_id, tenant, labels), grants)
    return CertificateCredential(
        id=access.generate_key(os.urandom).key_id,
        name=access.check_key_name(wanted.name),
        identity=identity,
        scope=scope,
        grants=grants,
        kind=kind,
        agent_id=agent_id,
        labels=labels,
        tenant=tenant,
        created_at_us=now_us,
        expires_at_us=expires_us,
    )


def _to_renew(call: Call, identity: str | None) -> CertificateCredential:
    engine, principal = call.engine, call.principal
    engine.registry.refresh()
    if principal.authentication == Authentication.CERTIFICATE:
        own = next((c for c in engine.registry.identities.certificates() if c.id == principal.id), None)
        if own is not None and identity in (None, own.identity, own.id):
            return own
    elif identity is None:
        raise InvalidInputError(
            "whose certificate is to be renewed?", hint="name the identity, or come in with its certificate"
        )
    found = next((c for c in _manageable(call) if identity in (c.identity, c.id)), None)
    if found is None:
        raise CredentialNotFoundError
    decision = may_manage(call, found.grants, found.scope)
    if not decision.allowed:
        call.reason = decision.reason
        raise AccessDeniedError
    # Whoever has it signed for a key of its own becomes that identity, with all that it carries.
    require_giving(call, KeyAttributes(found.kind, found.agent_id, found.tenant, found.labels), found.grants)
    return found


def _signed(call: Call, credential: CertificateCredential, request: str, hours: float) -> Issued:
    span = check_number(hours, "hours", _HOURS_MIN, float(CLIENT_HOURS_MAX))
    engine = call.engine
    for end in (credential.expires_at_us, end_of_new(call, None)):
        if end is not None:
            span = max(_HOURS_MIN, min(span, (end - engine.now_us()) / 3_600_000_000))
    return _authority(engine).sign(request, credential.identity, span)


def _authority(engine: Engine) -> ClientAuthority:
    return ClientAuthority(keys_directory(engine.directory, engine.config) / "tls", clock=engine.now)


def _with(credential: CertificateCredential, issued: Issued) -> CertificateCredential:
    return replace(credential, serial=f"{issued.serial:x}", not_after_us=to_us(issued.not_after))


def _write(call: Call, credential: CertificateCredential, version: int) -> None:
    call.details["identity"] = credential.identity
    if credential.serial:
        call.details["serial"] = credential.serial
    raw = access.encode_certificate(credential)
    try:
        call.engine.registry.write_identity(
            Field.CERTIFICATE, credential.identity, version, raw, call.audit_ok(), call.commit
        )
    except DuplicateMemoryError:
        raise ConflictError("the identity is known already") from None


def _manageable(call: Call) -> list[CertificateCredential]:
    if call.principal.scope != Scope.ADMIN and not call.principal.is_owner:
        call.reason = "certificates are managed with the admin scope"
        raise AccessDeniedError
    call.engine.registry.refresh()
    return [c for c in call.engine.registry.identities.certificates() if may_manage(call, c.grants).allowed]


def _info(c: CertificateCredential) -> ClientIdentity:
    return ClientIdentity(
        id=c.id,
        name=c.name,
        identity=c.identity,
        scope=c.scope,
        grants=c.grants,
        kind=c.kind,
        agent_id=c.agent_id,
        labels=c.labels,
        tenant=c.tenant,
        created_at=from_us(c.created_at_us),
        expires_at=None if c.expires_at_us is None else from_us(c.expires_at_us),
        revoked_at=None if c.revoked_at_us is None else from_us(c.revoked_at_us),
        serial=c.serial,
        not_after=from_us(c.not_after_us) if c.serial else None,
    )
