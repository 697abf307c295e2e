"""The stored side of an API key."""

import dataclasses
import os

import msgspec
import pytest

from strongroom import access
from strongroom.errors import (
    IntegrityError,
    InvalidInputError,
    SchemaVersionError,
    UnauthenticatedError,
)
from strongroom.model import KeyAttributes, NamespacePattern, PrincipalKind, Scope


def make(**changes):
    base = access.Credential(
        key_id="0123456789ab",
        name="support bot",
        scope=Scope.READ_WRITE,
        grants=(NamespacePattern("company_a/*"), NamespacePattern("company_b/x")),
        created_at_us=1_700_000_000_000_000,
        expires_at_us=None,
        revoked_at_us=None,
        secret_hash=b"h" * 32,
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"expires_at_us": 5}, {"revoked_at_us": 1 << 60}, {"scope": Scope.ADMIN, "name": "ü" * 128}],
)
def test_encode_and_decode_are_inverse(changes):
    credential = make(**changes)
    assert access.decode(access.encode(credential)) == credential


def test_the_bytes_are_those_of_the_spec():
    items = msgspec.msgpack.decode(access.encode(make()))
    assert items == [
        1, "0123456789ab", "support bot", "read-write", ["company_a/*", "company_b/x"],
        1_700_000_000_000_000, None, None, b"h" * 32,
    ]  # fmt: skip


def test_every_truncation_and_trailing_byte_is_refused():
    data = access.encode(make())
    for n in range(len(data)):
        with pytest.raises((IntegrityError, SchemaVersionError)):
            access.decode(data[:n])
    with pytest.raises(IntegrityError):
        access.decode(data + b"\x00")


def test_a_decoder_takes_one_canonical_form_only():
    """The same values in a longer msgpack form are refused."""
    data = access.encode(make())
    assert data[1] == 1
    with pytest.raises(IntegrityError):
        access.decode(data[:1] + b"\xcc\x01" + data[2:])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, "UPPER0000000"), (2, ""), (3, "root"), (4, []), (4, ["a", "a"]), (4, ["a/../b"]),
        (5, -1), (6, "soon"), (8, b"short"), (2, 5),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(place, value):
    items = msgspec.msgpack.decode(access.encode(make()))
    items[place] = value
    with pytest.raises(IntegrityError):
        access.decode(msgspec.msgpack.encode(items))


def test_a_newer_version_is_told_apart_from_damage():
    with pytest.raises(SchemaVersionError):
        access.decode(msgspec.msgpack.encode([4, "whatever", 1, 2, 3]))
    items = msgspec.msgpack.decode(access.encode(make()))
    with pytest.raises(SchemaVersionError):
        access.decode(msgspec.msgpack.encode([4, *items[1:]]))


SCRAM = access.ScramVerifier(salt=b"s" * 16, iterations=4096, stored_key=b"k" * 32, server_key=b"v" * 32)


def test_a_verifier_makes_it_version_2_and_its_bytes_are_those_of_the_spec():
    credential = make(scram=SCRAM)
    items = msgspec.msgpack.decode(access.encode(credential))
    assert items[0] == 2
    assert items[9:] == [[b"s" * 16, 4096, b"k" * 32, b"v" * 32]]
    assert access.decode(access.encode(credential)) == credential


def test_versions_with_and_without_verifier_cannot_pass_for_each_other():
    bare = msgspec.msgpack.decode(access.encode(make()))
    full = msgspec.msgpack.decode(access.encode(make(scram=SCRAM)))
    for items in ([2, *bare[1:]], [1, *full[1:]], [2, *full[1:9], None], [2, *full[1:9], full[9][:3]]):
        with pytest.raises(IntegrityError):
            access.decode(msgspec.msgpack.encode(items))


@pytest.mark.parametrize(
    "changes", [{"salt": b""}, {"iterations": 1}, {"stored_key": b"k"}, {"server_key": b"v" * 33}]
)
def test_a_verifier_out_of_its_limits_is_refused(changes):
    with pytest.raises(InvalidInputError):
        access.encode(make(scram=dataclasses.replace(SCRAM, **changes)))


FACTS = KeyAttributes(PrincipalKind.SERVICE, "bot-7", "company_a", ("support", "internal"))


@pytest.mark.parametrize("scram", [None, SCRAM])
def test_attributes_make_it_version_3_and_its_bytes_are_those_of_the_spec(scram):
    """With and without a verifier; and the principal has them."""
    credential = make(scram=scram, attributes=FACTS)
    items = msgspec.msgpack.decode(access.encode(credential))
    assert items[0] == 3 and (items[9] is None) is (scram is None)
    assert items[10:] == ["service", "bot-7", "company_a", ["support", "internal"]]
    assert access.decode(access.encode(credential)) == credential
    p = access.principal_of(credential)
    assert KeyAttributes(p.kind, p.agent_id, p.tenant, p.labels) == FACTS


def test_a_key_without_attributes_is_never_read_in_the_newest_version():
    """One key has one form: version 3 that says nothing, or too much, is refused."""
    full = msgspec.msgpack.decode(access.encode(make(scram=SCRAM, attributes=FACTS)))
    for tail in (
        ["agent", "", "", []], ["robot", "", "", ["x"]], ["agent", "", "", ["x", "x"]],
        ["agent", "", "", [""]], ["agent", "a" * 129, "", []], ["agent", "", "t\n", []],
        ["agent", "", "", ["l" * 65]], ["agent", "", "", [str(n) for n in range(17)]],
        ["agent", "", ""], ["agent", "", "t", [], 1],
    ):  # fmt: skip
        with pytest.raises(IntegrityError):
            access.decode(msgspec.msgpack.encode([*full[:10], *tail]))
    for version in (1, 2):
        with pytest.raises(IntegrityError):
            access.decode(msgspec.msgpack.encode([version, *full[1:]]))


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": "x"}, {"name": ""}, {"name": "a\nb"}, {"name": "n" * 129}, {"grants": ()},
        {"secret_hash": b"short"}, {"created_at_us": -1}, {"expires_at_us": 1 << 61},
    ],
)  # fmt: skip
def test_encode_refuses_what_decode_would_not_take(changes):
    with pytest.raises(InvalidInputError):
        access.encode(make(**changes))


def test_a_good_key_becomes_its_principal():
    principal = access.check_credential(make(), b"h" * 32, now_us=1)
    assert (principal.id, principal.name, principal.scope) == (
        "0123456789ab",
        "support bot",
        Scope.READ_WRITE,
    )
    assert principal.grants == make().grants and not principal.is_owner


def test_expiry_is_exclusive_and_revocation_is_final():
    good = make(expires_at_us=100)
    access.check_credential(good, b"h" * 32, now_us=99)
    with pytest.raises(UnauthenticatedError):
        access.check_credential(good, b"h" * 32, now_us=100)
    with pytest.raises(UnauthenticatedError):
        access.check_credential(make(revoked_at_us=1), b"h" * 32, now_us=0)


def test_all_refusals_look_the_same_to_the_caller_and_differ_for_the_operator():
    cases = [
        (None, b"h" * 32), (None, bytes(32)), (make(), b"x" * 32), (make(), b""),
        (make(revoked_at_us=1), b"h" * 32), (make(expires_at_us=1), b"h" * 32),
    ]  # fmt: skip
    texts, reasons = set(), []
    for credential, presented in cases:
        with pytest.raises(UnauthenticatedError) as refusal:
            access.check_credential(credential, presented, now_us=5)
        texts.add(str(refusal.value.as_dict()))
        reasons.append(access.assess_credential(credential, presented, 5).reason)
    assert len(texts) == 1 and len(set(reasons)) == 4


def test_a_wrong_secret_of_a_revoked_key_does_not_tell_that_it_was_revoked():
    decision = access.assess_credential(make(revoked_at_us=1), os.urandom(32), 5)
    assert decision.reason == "the secret is not that of this key"


def test_the_hash_is_not_in_the_representation():
    assert "hhh" not in repr(make())
