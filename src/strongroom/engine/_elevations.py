"""Just-in-time elevation: asked for with a reason, approved by somebody else, over by itself.

Every step is an entry of the audit log, and every operation of an elevated caller carries the id of the
elevation. What is lent never makes anything that outlives it: keys, certificates, tokens and approvals
look at what a caller has by itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from strongroom import access
from strongroom.access import ElevationRecord
from strongroom.engine._admin import may_manage
from strongroom.engine._call import Call
from strongroom.engine._payload import from_us
from strongroom.engine._validate import check_count, check_text
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    CredentialNotFoundError,
    InvalidInputError,
    LimitExceededError,
    VersionConflictError,
)
from strongroom.model import (
    Authentication,
    Elevated,
    ElevationInfo,
    ElevationState,
    Field,
    Principal,
    Scope,
)

_MINUTE_US = 60_000_000
_PENDING_MAX = 10  # of one requester
_OPEN = (ElevationState.PENDING, ElevationState.ACTIVE)


def lent_to(principal: Principal, records: Sequence[ElevationRecord], now_us: int) -> Principal:
    """The caller with what its active elevations lend."""
    active = tuple(
        Elevated(r.id, r.scope, r.grants) for r in records if r.state(now_us) is ElevationState.ACTIVE
    )
    return replace(principal, elevations=active) if active else principal


def request(
    call: Call, scope: Scope | str, grants: Sequence[str], reason: str, minutes: int
) -> ElevationInfo:
    engine, principal = call.engine, call.principal
    call.reason = "request an elevation"
    if principal.is_owner or principal.authentication is Authentication.TOKEN:
        call.reason = "owner and tokens are not elevated"
        raise AccessDeniedError("an elevation is for callers with a credential of their own")
    try:
        wanted = Scope(scope)
    except ValueError:
        names = ", ".join(s.value for s in Scope)
        raise InvalidInputError("unknown scope", hint=f"one of: {names}") from None
    record = ElevationRecord(
        id=access.generate_key(os.urandom).key_id,
        requester=principal.id,
        scope=wanted,
        grants=access.check_grants(grants),
        reason=access.check_reason(reason),
        requested_at_us=engine.now_us(),
        minutes=check_count(minutes, "minutes", 1, engine.config.access.elevation_minutes_max),
    )
    engine.registry.refresh()
    now_us = engine.now_us()
    mine = engine.registry.identities.elevations_of(principal.id)
    if sum(r.state(now_us) is ElevationState.PENDING for r in mine) >= _PENDING_MAX:
        raise LimitExceededError(
            f"{_PENDING_MAX} requests are waiting already", hint="have them decided first"
        )
    _write(call, record, 1, f"request elevation {record.id}: {record.reason}")
    return _info(record, now_us)


def approve(call: Call, elevation_id: str) -> ElevationInfo:
    return _decide(call, elevation_id, granted=True)


def deny(call: Call, elevation_id: str) -> ElevationInfo:
    return _decide(call, elevation_id, granted=False)


def revoke(call: Call, elevation_id: str) -> ElevationInfo:
    """End an active elevation, or withdraw a request: by the requester, or an admin who could approve it."""
    record, version = _found(call, elevation_id)
    now_us = call.engine.now_us()
    if record.state(now_us) not in _OPEN:
        raise ConflictError("the elevation is over")
    if record.decided_at_us is None:
        ended = replace(record, decided_at_us=now_us, decided_by=call.principal.id)
    else:
        ended = replace(record, ended_at_us=now_us, ended_by=call.principal.id)
    _write(call, ended, version + 1, f"revoke elevation {record.id}")
    return _info(ended, now_us)


def listed(call: Call, all_states: bool) -> Sequence[ElevationInfo]:
    """Those that the caller has asked for or may decide; without ``all_states`` only the open ones."""
    call.reason = "list elevations"
    engine = call.engine
    engine.registry.refresh()
    now_us = engine.now_us()
    found = [
        _info(r, now_us)
        for r in engine.registry.identities.elevations()
        if _may_see(call, r) and (all_states or r.state(now_us) in _OPEN)
    ]
    return sorted(found, key=lambda i: i.requested_at)


# -- parts --------------------------------------------------------------------------------------------
def _decide(call: Call, elevation_id: str, *, granted: bool) -> ElevationInfo:
    record, version = _found(call, elevation_id)
    verb = "approve" if granted else "deny"
    decision = access.decide_approval(call.principal, record.requester, record.grants, record.scope)
    if decision.allowed:
        decision = may_manage(call, record.grants, record.scope)
    call.details["elevation"] = record.id
    if not decision.allowed:
        call.reason = f"{verb} elevation {record.id}: {decision.reason}"
        raise AccessDeniedError
    now_us = call.engine.now_us()
    state = record.state(now_us)
    if state is not ElevationState.PENDING:
        call.reason = f"{verb} elevation {record.id}: it is {state.value}"
        raise ConflictError(f"the elevation is not waiting for a decision: it is {state.value}")
    decided = replace(
        record,
        decided_at_us=now_us,
        decided_by=call.principal.id,
        granted=granted,
        expires_at_us=now_us + record.minutes * _MINUTE_US if granted else None,
    )
    _write(call, decided, version + 1, f"{verb} elevation {record.id} of {record.requester}")
    return _info(decided, now_us)


def _found(call: Call, elevation_id: str) -> tuple[ElevationRecord, int]:
    wanted = check_text(elevation_id, "id", 64)
    call.engine.registry.refresh()
    found = call.engine.registry.identities.elevation(wanted)
    if found is None or not _may_see(call, found[0]):
        call.reason = f"no elevation {wanted} that the caller may see"
        raise CredentialNotFoundError("there is no such elevation")
    return found


def _may_see(call: Call, record: ElevationRecord) -> bool:
    # A token has the id of its key; what concerns the whole key is not its business.
    own = record.requester == call.principal.id and call.principal.authentication is not Authentication.TOKEN
    return own or may_manage(call, record.grants).allowed


def _write(call: Call, record: ElevationRecord, version: int, reason: str) -> None:
    call.reason = reason
    call.details["elevation"] = record.id
    raw = access.encode_elevation(record)
    try:
        call.engine.registry.write_identity(
            Field.ELEVATION, record.id, version, raw, call.audit_ok(), call.commit
        )
    except VersionConflictError:
        raise ConflictError("somebody else decided the elevation meanwhile") from None


def _info(r: ElevationRecord, now_us: int) -> ElevationInfo:
    return ElevationInfo(
        id=r.id,
        state=r.state(now_us),
        requester=r.requester,
        scope=r.scope,
        grants=r.grants,
        reason=r.reason,
        minutes=r.minutes,
        requested_at=from_us(r.requested_at_us),
        decided_at=None if r.decided_at_us is None else from_us(r.decided_at_us),
        decided_by=r.decided_by,
        expires_at=None if r.expires_at_us is None else from_us(r.expires_at_us),
        ended_at=None if r.ended_at_us is None else from_us(r.ended_at_us),
        ended_by=r.ended_by,
    )
