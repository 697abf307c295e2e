"""What a store keeps of certificates of clients (spec/client-certificate.md).

A certificate credential names an identity and what it may do. Encoded as one msgpack array, sealed by
the engine before it is stored:

    [version, id, name, identity, scope, [grant, ...], kind, agent_id, [label, ...], created_at_us,
     expires_at_us | nil, revoked_at_us | nil, serial, not_after_us]             version 1: no tenant
    [..., not_after_us, tenant]                                                  version 2

    [version, serial, at_us, by]                                      a revoked certificate

A decoder takes only the one canonical form of a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from strongroom.access._credential import check_key_name, check_tenant
from strongroom.access._decide import check_grants
from strongroom.access._key import is_key_id
from strongroom.errors import IntegrityError, InvalidInputError, SchemaVersionError, StrongroomError
from strongroom.model import (
    Authentication,
    Decision,
    NamespacePattern,
    Principal,
    PrincipalKind,
    Scope,
)

VERSION = 1  # of revocations, and of credentials without a tenant
CERTIFICATE_VERSION = 2
TEXT_BYTES_MAX = 512
LABELS_MAX = 32
_TIME_US_MAX = 1 << 60
_SERIAL = re.compile(r"[0-9a-f]{1,40}", re.ASCII)
T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateCredential:
    """Whom a certificate stands for. Times are microseconds since the epoch, UTC.

    ``serial`` and ``not_after_us`` are those of the newest certificate that the embedded authority has
    signed for it; "" and 0 when it has signed none.
    """

    id: str
    name: str
    identity: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    kind: PrincipalKind = PrincipalKind.AGENT
    agent_id: str = ""
    labels: tuple[str, ...] = ()
    tenant: str = ""
    created_at_us: int
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    serial: str = ""
    not_after_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A certificate that is not taken any more, by its serial number in hexadecimal."""

    serial: str
    at_us: int
    by: str


class _CredentialWire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    id: str
    name: str
    identity: str
    scope: Scope
    grants: list[str]
    kind: PrincipalKind
    agent_id: str
    labels: list[str]
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    serial: str
    not_after_us: int


class _TenantWire(_CredentialWire, array_like=True, forbid_unknown_fields=True, frozen=True):
    tenant: str


class _RevocationWire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    serial: str
    at_us: int
    by: str


_ENCODER = msgspec.msgpack.Encoder()
_VERSION_DECODER = msgspec.msgpack.Decoder(list[msgspec.Raw])


def is_serial(text: object) -> bool:
    """Whether ``text`` is a serial number in lower-case hexadecimal without a leading zero."""
    return isinstance(text, str) and _SERIAL.fullmatch(text) is not None and not text.startswith("0")


def _is_short(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= TEXT_BYTES_MAX
    except UnicodeEncodeError:
        return False


def check_labels(labels: object) -> tuple[str, ...]:
    """Raises: InvalidInputError: not a list of at most 32 distinct short texts."""
    if isinstance(labels, str) or not isinstance(labels, list | tuple):
        raise InvalidInputError("labels are a list of texts")
    fit = all(isinstance(t, str) and _is_short(t) for t in labels)
    if not fit or len(labels) > LABELS_MAX or len(set(labels)) != len(labels):
        raise InvalidInputError(f"labels are at most {LABELS_MAX} different short texts")
    return tuple(labels)


def encode_certificate(c: CertificateCredential) -> bytes:
    """The canonical bytes of a certificate credential.

    Raises:
        InvalidInputError: a field is out of its limits.
    """
    if not is_key_id(c.id):
        raise InvalidInputError("not an id")
    check_key_name(c.name)
    check_grants([g.text for g in c.grants])
    check_labels(c.labels)
    if len(c.identity) > 2048 or len(c.agent_id.encode()) > TEXT_BYTES_MAX:
        raise InvalidInputError("a text of a certificate credential is too long")
    if c.serial and not is_serial(c.serial):
        raise InvalidInputError("not a serial number")
    _check_times(c.created_at_us, c.expires_at_us, c.revoked_at_us, c.not_after_us)
    check_tenant(c.tenant)
    fields = (
        c.id,
        c.name,
        c.identity,
        c.scope,
        [g.text for g in c.grants],
        c.kind,
        c.agent_id,
        list(c.labels),
        c.created_at_us,
        c.expires_at_us,
        c.revoked_at_us,
        c.serial,
        c.not_after_us,
    )
    if c.tenant:
        return _ENCODER.encode(_TenantWire(CERTIFICATE_VERSION, *fields, c.tenant))
    return _ENCODER.encode(_CredentialWire(VERSION, *fields))


def decode_certificate(data: bytes) -> CertificateCredential:
    """Read what ``encode_certificate`` wrote.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is nothing that this room wrote.
    """
    kind = _TenantWire if _version_of(data) == CERTIFICATE_VERSION else _CredentialWire
    w = read_record(data, kind, CERTIFICATE_VERSION)
    try:
        credential = CertificateCredential(
            id=w.id,
            name=w.name,
            identity=w.identity,
            scope=w.scope,
            grants=tuple(NamespacePattern.parse(g) for g in w.grants),
            kind=w.kind,
            agent_id=w.agent_id,
            labels=tuple(w.labels),
            tenant=w.tenant if isinstance(w, _TenantWire) else "",
            created_at_us=w.created_at_us,
            expires_at_us=w.expires_at_us,
            revoked_at_us=w.revoked_at_us,
            serial=w.serial,
            not_after_us=w.not_after_us,
        )
        canonical = encode_certificate(credential)
    except StrongroomError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("a stored certificate credential is not of the form that was written")
    return credential


def encode_revocation(r: Revocation) -> bytes:
    """Raises: InvalidInputError: a field is out of its limits."""
    if not is_serial(r.serial):
        raise InvalidInputError("not a serial number", hint="hexadecimal, as certificates list shows it")
    _check_times(r.at_us)
    return _ENCODER.encode(_RevocationWire(VERSION, r.serial, r.at_us, r.by))


def decode_revocation(data: bytes) -> Revocation:
    """Raises: SchemaVersionError, IntegrityError: as ``decode_certificate``."""
    w = read_record(data, _RevocationWire, VERSION)
    try:
        found = Revocation(serial=w.serial, at_us=w.at_us, by=w.by)
        canonical = encode_revocation(found)
    except StrongroomError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("a stored revocation is not of the form that was written")
    return found


def assess_certificate(c: CertificateCredential, now_us: int) -> Decision:
    """Whether certificates of this identity are taken; the reason is for the operator alone."""
    if c.revoked_at_us is not None:
        return Decision(False, "the identity was revoked")
    if c.expires_at_us is not None and now_us >= c.expires_at_us:
        return Decision(False, "the credential of the identity has expired")
    return Decision(True, "the identity is good")


def certificate_principal(c: CertificateCredential) -> Principal:
    """The caller that a certificate stands for, once it was verified and found good."""
    return Principal(
        id=c.id,
        name=c.name,
        scope=c.scope,
        grants=c.grants,
        kind=c.kind,
        agent_id=c.agent_id,
        labels=c.labels,
        tenant=c.tenant,
        authentication=Authentication.CERTIFICATE,
    )


def read_record(data: bytes, kind: type[T], newest: int) -> T:
    """Decode an array whose first item is its version.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is malformed.
    """
    if _version_of(data) > newest:
        raise SchemaVersionError
    try:
        return msgspec.msgpack.decode(data, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IntegrityError("a stored record is not of the form that was written") from None


def _version_of(data: bytes) -> int:
    """The first item of an array; 0: there is none."""
    try:
        items = _VERSION_DECODER.decode(data)
        return msgspec.msgpack.decode(items[0], type=int) if items else 0
    except msgspec.DecodeError:
        return 0


def _check_times(*times: int | None) -> None:
    if not all(t is None or 0 <= t <= _TIME_US_MAX for t in times):
        raise InvalidInputError("a time is out of range")
