"""What the store keeps of certificates has one form, and only that one is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import access
from strongroom.errors import IntegrityError, InvalidInputError, SchemaVersionError
from strongroom.model import NamespacePattern, PrincipalKind, Scope

TIMES = st.integers(0, 1 << 60)
CREDENTIALS = st.builds(
    access.CertificateCredential,
    id=st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=12, max_size=12),
    name=st.text(st.characters(categories=("L", "N")), min_size=1, max_size=30),
    identity=st.sampled_from(["spiffe://example.org/a", "dns:a.example.org"]),
    scope=st.sampled_from(list(Scope)),
    grants=st.lists(st.sampled_from(["a/*", "b/c", "*"]), min_size=1, unique=True).map(
        lambda texts: tuple(NamespacePattern.parse(t) for t in texts)
    ),
    kind=st.sampled_from(list(PrincipalKind)),
    agent_id=st.text(max_size=20),
    labels=st.lists(st.text(min_size=1, max_size=10), max_size=3, unique=True).map(tuple),
    tenant=st.just("") | st.text(st.characters(categories=("L", "N")), min_size=1, max_size=30),
    created_at_us=TIMES,
    expires_at_us=st.none() | TIMES,
    revoked_at_us=st.none() | TIMES,
    serial=st.just("") | st.integers(1, 1 << 159).map(lambda n: f"{n:x}"),
    not_after_us=TIMES,
)


@settings(max_examples=100, deadline=None)
@given(CREDENTIALS)
def test_a_credential_survives_and_nothing_else_is_read(credential: access.CertificateCredential) -> None:
    raw = access.encode_certificate(credential)
    assert access.decode_certificate(raw) == credential
    items = msgspec.msgpack.decode(raw)
    for changed in (
        raw + b"\0",
        raw[:-1],
        msgspec.msgpack.encode([*items, 1]),
        msgspec.msgpack.encode(items[:-1]),
        msgspec.msgpack.encode([3 - items[0], *items[1:]]),
        msgspec.msgpack.encode([2, *items[1:14], ""]),
    ):
        with pytest.raises(IntegrityError):
            access.decode_certificate(changed)
    with pytest.raises(SchemaVersionError):
        access.decode_certificate(msgspec.msgpack.encode([9, *items[1:]]))


@pytest.mark.parametrize("serial", ["", "0", "0a", "AB", "xyz", "a" * 41, "1 "])
def test_a_serial_has_one_form(serial: str) -> None:
    assert not access.is_serial(serial)
    with pytest.raises(InvalidInputError):
        access.encode_revocation(access.Revocation(serial=serial, at_us=1, by="owner"))


def test_a_revocation_survives_and_nothing_else_is_read() -> None:
    made = access.Revocation(serial="3f2a", at_us=5, by="owner")
    raw = access.encode_revocation(made)
    assert access.decode_revocation(raw) == made
    for changed in (raw + b"\0", raw[:-1], b""):
        with pytest.raises(IntegrityError):
            access.decode_revocation(changed)
