"""A time-boxed right with a reason and an approver, as it is stored (spec/elevation.md).

    [version, id, requester, scope, [grant, ...], reason, requested_at_us, minutes, decided_at_us | nil,
     decided_by, granted, expires_at_us | nil, ended_at_us | nil, ended_by]

    pending --approve--> active --time--> expired        pending --deny--> denied
       |                    |
       +--time--> lapsed    +--revoke--> revoked

A record goes forward only; a decoder takes only the one canonical form of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from strongroom.access._certificate import read_record
from strongroom.access._decide import check_grants, decide_key_management
from strongroom.access._key import is_key_id
from strongroom.errors import IntegrityError, InvalidInputError, StrongroomError
from strongroom.model import Decision, ElevationState, NamespacePattern, Principal, Scope

VERSION = 1
REASON_CHARACTERS_MAX = 500
PENDING_US = 3_600_000_000  # a request that nobody decides lapses
_TIME_US_MAX = 1 << 60
_TEXT_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevationRecord:
    """One elevation. Times are microseconds since the epoch, UTC; principals are ids."""

    id: str
    requester: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    reason: str
    requested_at_us: int
    minutes: int
    decided_at_us: int | None = None
    decided_by: str = ""
    granted: bool = False
    expires_at_us: int | None = None
    ended_at_us: int | None = None
    ended_by: str = ""

    def state(self, now_us: int) -> ElevationState:
        """What it is at this moment."""
        if self.decided_at_us is None:
            lapsed = now_us >= self.requested_at_us + PENDING_US
            return ElevationState.LAPSED if lapsed else ElevationState.PENDING
        if not self.granted:
            return ElevationState.DENIED
        if self.ended_at_us is not None:
            return ElevationState.REVOKED
        over = self.expires_at_us is None or now_us >= self.expires_at_us
        return ElevationState.EXPIRED if over else ElevationState.ACTIVE


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    id: str
    requester: str
    scope: Scope
    grants: list[str]
    reason: str
    requested_at_us: int
    minutes: int
    decided_at_us: int | None
    decided_by: str
    granted: bool
    expires_at_us: int | None
    ended_at_us: int | None
    ended_by: str


_ENCODER = msgspec.msgpack.Encoder()


def check_reason(reason: object) -> str:
    """Raises: InvalidInputError: not a sentence that an auditor could read."""
    fit = isinstance(reason, str) and len(reason.strip()) >= 1 and len(reason) <= REASON_CHARACTERS_MAX
    if not fit or not str(reason).isprintable():
        raise InvalidInputError(
            "an elevation needs a reason", hint=f"1 to {REASON_CHARACTERS_MAX} printable characters"
        )
    return str(reason)


def encode_elevation(e: ElevationRecord) -> bytes:
    """The canonical bytes of an elevation.

    Raises:
        InvalidInputError: a field is out of its limits.
    """
    if not is_key_id(e.id) or e.minutes < 1:
        raise InvalidInputError("not an elevation")
    check_grants([g.text for g in e.grants])
    check_reason(e.reason)
    if any(len(t.encode()) > _TEXT_BYTES_MAX for t in (e.requester, e.decided_by, e.ended_by)):
        raise InvalidInputError("a name in an elevation is too long")
    for t in (e.requested_at_us, e.decided_at_us, e.expires_at_us, e.ended_at_us):
        if t is not None and not 0 <= t <= _TIME_US_MAX:
            raise InvalidInputError("a time is out of range")
    return _ENCODER.encode(
        _Wire(
            VERSION,
            e.id,
            e.requester,
            e.scope,
            [g.text for g in e.grants],
            e.reason,
            e.requested_at_us,
            e.minutes,
            e.decided_at_us,
            e.decided_by,
            e.granted,
            e.expires_at_us,
            e.ended_at_us,
            e.ended_by,
        )
    )


def decode_elevation(data: bytes) -> ElevationRecord:
    """Read what ``encode_elevation`` wrote.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is nothing that this room wrote.
    """
    w = read_record(data, _Wire, VERSION)
    try:
        record = ElevationRecord(
            id=w.id,
            requester=w.requester,
            scope=w.scope,
            grants=tuple(NamespacePattern.parse(g) for g in w.grants),
            reason=w.reason,
            requested_at_us=w.requested_at_us,
            minutes=w.minutes,
            decided_at_us=w.decided_at_us,
            decided_by=w.decided_by,
            granted=w.granted,
            expires_at_us=w.expires_at_us,
            ended_at_us=w.ended_at_us,
            ended_by=w.ended_by,
        )
        canonical = encode_elevation(record)
    except StrongroomError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("a stored elevation is not of the form that was written")
    return record


def decide_approval(
    approver: Principal, requester: str, grants: Sequence[NamespacePattern], scope: Scope
) -> Decision:
    """May this caller approve that one's elevation? Never one's own, and never beyond one's own rights.

    Only what the approver has by itself counts, not what an elevation lends it.
    """
    if approver.id == requester:
        return Decision(False, "nobody approves an elevation of its own")
    return decide_key_management(approver, grants, scope)
