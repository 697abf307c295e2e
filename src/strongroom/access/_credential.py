"""The stored side of an API key, and the check of a presented one (spec/api-key.md).

Encoded as one msgpack array, sealed by the engine before it is stored:

    [version, key_id, name, scope, [grant, ...], created_at_us, expires_at_us | nil,
     revoked_at_us | nil, secret_hash (32 bytes)]                                     version 1
    [..., [salt (16), iterations, stored key (32), server key (32)]]                  version 2
    [..., verifier | nil, kind, agent_id, tenant, [label, ...]]                       version 3

Version 2 is version 1 with a SCRAM verifier behind, version 3 has attributes for policies. A key is written
in the lowest version that holds it. A decoder takes only the one canonical form of a value.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from strongroom.access._decide import check_grants
from strongroom.access._key import is_key_id
from strongroom.errors import (
    IntegrityError,
    InvalidInputError,
    SchemaVersionError,
    StrongroomError,
    UnauthenticatedError,
)
from strongroom.model import Decision, KeyAttributes, NamespacePattern, Principal, PrincipalKind, Scope

VERSION = 3
_VERSION_SCRAM = 2  # without attributes
_VERSION_BARE = 1  # without a SCRAM verifier, too
HASH_BYTES = 32
NAME_CHARACTERS_MAX = 128
LABELS_MAX = 16
LABEL_CHARACTERS_MAX = 64
ATTRIBUTE_CHARACTERS_MAX = 128
NO_ATTRIBUTES = KeyAttributes()
_TIME_US_MAX = 1 << 60
SALT_BYTES = 16
ITERATIONS_MIN = 4096  # RFC 7677
ITERATIONS_MAX = 1_000_000
_NO_HASH = bytes(HASH_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScramVerifier:
    """What a server keeps to check a SCRAM-SHA-256 proof of a key's text (RFC 5802, RFC 7677).

    ``salt`` 16 bytes, ``stored_key`` and ``server_key`` 32 bytes each.
    """

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a store knows of an API key. ``secret_hash`` is a keyed hash of its secret, 32 bytes.

    ``scram`` is None for a key that was made before there were verifiers. Times are microseconds
    since the epoch, UTC. ``expires_at_us`` is the first instant at which the key is no longer taken.
    """

    key_id: str
    name: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    secret_hash: bytes = field(repr=False)
    scram: ScramVerifier | None = field(default=None, repr=False)
    attributes: KeyAttributes = NO_ATTRIBUTES


class _ScramWire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class _BareWire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    key_id: str
    name: str
    scope: Scope
    grants: list[str]
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    secret_hash: bytes


class _ScramKeyWire(_BareWire, array_like=True, forbid_unknown_fields=True, frozen=True):
    scram: _ScramWire


class _Wire(_BareWire, array_like=True, forbid_unknown_fields=True, frozen=True):
    scram: _ScramWire | None
    kind: PrincipalKind
    agent_id: str
    tenant: str
    labels: list[str]


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: Final[Mapping[int, msgspec.msgpack.Decoder[Any]]] = {
    _VERSION_BARE: msgspec.msgpack.Decoder(_BareWire, strict=True),
    _VERSION_SCRAM: msgspec.msgpack.Decoder(_ScramKeyWire, strict=True),
    VERSION: msgspec.msgpack.Decoder(_Wire, strict=True),
}
_VERSION_DECODER = msgspec.msgpack.Decoder(list[msgspec.Raw])


def check_key_name(name: object) -> str:
    """Return ``name`` when it can name a key: 1 to 128 printable characters.

    Raises:
        InvalidInputError: it cannot.
    """
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= NAME_CHARACTERS_MAX
        or not name.isprintable()
        or name.isspace()
    ):
        raise InvalidInputError(
            "the name of a key is not acceptable",
            hint=f"1 to {NAME_CHARACTERS_MAX} printable characters",
        )
    return name


def check_attributes(kind: str, agent_id: object, tenant: object, labels: object) -> KeyAttributes:
    """Return the attributes of a key when they can be: a known kind, texts of at most 128 printable
    characters ("" for none), at most 16 different labels of 1 to 64 printable characters.

    Raises:
        InvalidInputError: they cannot be.
    """
    try:
        known = PrincipalKind(kind)
    except ValueError:
        names = ", ".join(k.value for k in PrincipalKind)
        raise InvalidInputError("unknown kind of caller", hint=f"one of: {names}") from None
    texts = [_check_attribute("agent_id", agent_id), check_tenant(tenant)]
    if not isinstance(labels, list | tuple):
        raise InvalidInputError("labels are a list of texts")
    if (
        len(labels) > LABELS_MAX
        or not all(
            isinstance(t, str) and 1 <= len(t) <= LABEL_CHARACTERS_MAX and t.isprintable() for t in labels
        )
        or len(set(labels)) != len(labels)
    ):
        raise InvalidInputError(
            "the labels are not acceptable",
            hint=f"at most {LABELS_MAX} different ones of 1 to {LABEL_CHARACTERS_MAX} printable characters",
        )
    return KeyAttributes(known, texts[0], texts[1], tuple(str.__str__(t) for t in labels))


def check_tenant(tenant: object) -> str:
    """Return the tenant of a caller when it can be: at most 128 printable characters, "" for none.

    Raises:
        InvalidInputError: it cannot be.
    """
    return _check_attribute("tenant", tenant)


def _check_attribute(name: str, text: object) -> str:
    if not isinstance(text, str) or len(text) > ATTRIBUTE_CHARACTERS_MAX or not text.isprintable():
        raise InvalidInputError(
            f"{name} is not acceptable", hint=f"at most {ATTRIBUTE_CHARACTERS_MAX} printable characters"
        )
    return str.__str__(text)


def encode(credential: Credential) -> bytes:
    """The canonical bytes of a credential.

    Raises:
        InvalidInputError: a field is out of its limits.
    """
    _check(credential)
    c = credential
    grants = [g.text for g in c.grants]
    times = (c.created_at_us, c.expires_at_us, c.revoked_at_us)
    items = (c.key_id, c.name, c.scope, grants, *times, c.secret_hash)
    scram = (
        None
        if c.scram is None
        else _ScramWire(c.scram.salt, c.scram.iterations, c.scram.stored_key, c.scram.server_key)
    )
    if c.attributes != NO_ATTRIBUTES:
        a = c.attributes
        return _ENCODER.encode(_Wire(VERSION, *items, scram, a.kind, a.agent_id, a.tenant, list(a.labels)))
    if scram is None:
        return _ENCODER.encode(_BareWire(_VERSION_BARE, *items))
    return _ENCODER.encode(_ScramKeyWire(_VERSION_SCRAM, *items, scram))


def decode(data: bytes) -> Credential:
    """Read what ``encode`` wrote.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is nothing that this room wrote.
    """
    wire = _read(data)
    try:
        scram = wire.scram if isinstance(wire, _ScramKeyWire | _Wire) else None
        attributes = NO_ATTRIBUTES
        if isinstance(wire, _Wire):
            attributes = KeyAttributes(wire.kind, wire.agent_id, wire.tenant, tuple(wire.labels))
        credential = Credential(
            key_id=wire.key_id,
            name=wire.name,
            scope=wire.scope,
            grants=tuple(NamespacePattern.parse(g) for g in wire.grants),
            created_at_us=wire.created_at_us,
            expires_at_us=wire.expires_at_us,
            revoked_at_us=wire.revoked_at_us,
            secret_hash=wire.secret_hash,
            scram=None
            if scram is None
            else ScramVerifier(
                salt=scram.salt,
                iterations=scram.iterations,
                stored_key=scram.stored_key,
                server_key=scram.server_key,
            ),
            attributes=attributes,
        )
        canonical = encode(credential)
    except StrongroomError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("a stored API key is not of the form that was written")
    return credential


def _read(data: bytes) -> _BareWire:
    version = _version(data)
    if version is not None and version > VERSION:
        raise SchemaVersionError
    decoder = _DECODERS.get(VERSION if version is None else version, _DECODERS[VERSION])
    try:
        wire: _BareWire = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IntegrityError("a stored API key is not of the form that was written") from None
    return wire


def assess_credential(credential: Credential | None, presented_hash: bytes, now_us: int) -> Decision:
    """Whether a presented key is the stored one and still good; the reason is for the operator alone.

    ``credential`` is None when no key has the presented id; the comparison is made all the same.
    """
    stored = credential.secret_hash if credential is not None else _NO_HASH
    same = hmac.compare_digest(stored, presented_hash) and len(presented_hash) == HASH_BYTES
    if credential is None:
        return Decision(False, "no key has this id")
    if not same:
        return Decision(False, "the secret is not that of this key")
    return assess_standing(credential, now_us)


def assess_standing(credential: Credential, now_us: int) -> Decision:
    """Whether a key, however it was proved, is neither revoked nor expired."""
    if credential.revoked_at_us is not None:
        return Decision(False, "the key was revoked")
    if credential.expires_at_us is not None and now_us >= credential.expires_at_us:
        return Decision(False, "the key has expired")
    return Decision(True, "the key is good")


def check_credential(credential: Credential | None, presented_hash: bytes, now_us: int) -> Principal:
    """The caller that a presented key stands for.

    Raises:
        UnauthenticatedError: unknown, wrong, revoked or expired; nothing tells which.
    """
    if not assess_credential(credential, presented_hash, now_us).allowed or credential is None:
        raise UnauthenticatedError
    return principal_of(credential)


def principal_of(credential: Credential) -> Principal:
    """The caller that a key stands for, once it was proved and found good."""
    a = credential.attributes
    return Principal(
        id=credential.key_id,
        name=credential.name,
        scope=credential.scope,
        grants=credential.grants,
        kind=a.kind,
        tenant=a.tenant,
        agent_id=a.agent_id,
        labels=a.labels,
    )


def _check(c: Credential) -> None:
    if not is_key_id(c.key_id):
        raise InvalidInputError("not a key id")
    check_key_name(c.name)
    check_grants([g.text for g in c.grants])
    a = c.attributes
    check_attributes(a.kind, a.agent_id, a.tenant, a.labels)
    if len(c.secret_hash) != HASH_BYTES:
        raise InvalidInputError("the hash of a secret has 32 bytes")
    if c.scram is not None and not (
        len(c.scram.salt) == SALT_BYTES
        and len(c.scram.stored_key) == len(c.scram.server_key) == HASH_BYTES
        and ITERATIONS_MIN <= c.scram.iterations <= ITERATIONS_MAX
    ):
        raise InvalidInputError("not a SCRAM verifier")
    for t in (c.created_at_us, c.expires_at_us, c.revoked_at_us):
        if t is not None and not 0 <= t <= _TIME_US_MAX:
            raise InvalidInputError("a time is out of range")


def _version(data: bytes) -> int | None:
    try:
        items = _VERSION_DECODER.decode(data)
        return msgspec.msgpack.decode(items[0], type=int) if items else None
    except msgspec.DecodeError:
        return None
