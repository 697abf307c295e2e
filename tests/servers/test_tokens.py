"""Short-lived tokens: minted from keys, never wider, gone with the key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.servers.mutual import denials
from tests.servers.served import Served

import strongroom
from strongroom import access
from strongroom.engine import Engine
from strongroom.errors import (
    AccessDeniedError,
    InvalidInputError,
    StrongroomError,
    UnauthenticatedError,
)
from strongroom.model import NamespacePattern, Scope


def connect(server: Served, credential: str) -> strongroom.client.RemoteRoom:
    return strongroom.connect(server.url, api_key=credential, ca=server.ca)


def test_a_token_does_less_than_its_key_and_the_audit_log_names_both(server: Served) -> None:
    """Narrower scope and grants hold on REST; entries carry the key as principal and the token beside it."""
    key = server.key("read-write", "company_a/*", "company_b/*")
    with connect(server, key) as room:
        info, token = room.tokens_create(scope="read-only", grants=["company_a/*"], minutes=5)
        room.store("one", namespace="company_a/tokens")
    assert (info.expires_at - info.created_at).total_seconds() == 300
    with connect(server, token) as room:
        assert room.list(namespaces=["company_a/*"]).memories
        with pytest.raises(AccessDeniedError):
            room.store("two", namespace="company_a/tokens")
        with pytest.raises(AccessDeniedError):
            room.list(namespaces=["company_b/x"])
        with pytest.raises(AccessDeniedError):
            room.tokens_create()  # no token mints another
        with pytest.raises(AccessDeniedError):
            room.elevations_request("admin", ["*"], "to go further")
    entry = [e for e in server.owner.audit(limit=50) if e.action == "list"][-1]
    assert entry.principal == key[8:20] == info.key_id
    assert dict(entry.details)["token"] == info.token_id


def test_revoking_the_key_ends_its_tokens_at_once(server: Served) -> None:
    key = server.key("read-only", "company_a/*")
    with connect(server, key) as room:
        _, token = room.tokens_create()
    with connect(server, token) as room:
        room.stats()
        server.owner.keys_revoke(key[8:20])
        with pytest.raises(UnauthenticatedError):
            room.stats()
    assert ("authenticate", "of the token's key: the key was revoked") in denials(server.owner)


@pytest.mark.parametrize(
    ("scope", "grants"),
    [("admin", None), ("read-write", None), (None, ["*"]), (None, ["company_a"]), (None, ["company_b/x"]),
     (None, ["company_a/*", "company_b/x"])],
)  # fmt: skip
def test_a_token_wider_than_its_key_is_refused(
    server: Served, scope: str | None, grants: list | None
) -> None:
    with connect(server, server.key("read-only", "company_a/*")) as room, pytest.raises(AccessDeniedError):
        room.tokens_create(scope=scope, grants=grants)


@pytest.mark.parametrize("minutes", [0.0, -1.0, 61.0, float("nan")])
def test_a_token_lives_for_minutes(server: Served, minutes: float) -> None:
    with connect(server, server.key("read-only", "company_a/*")) as room, pytest.raises(StrongroomError):
        room.tokens_create(minutes=minutes)


def test_the_owner_and_certificates_mint_none(server: Served) -> None:
    with pytest.raises(AccessDeniedError):
        server.owner.tokens_create()
    with connect(server, server.key("read-only", "a/*")) as room, pytest.raises(InvalidInputError):
        room.tokens_create(scope="everything")


def test_a_token_ends_in_the_middle_of_a_session(tmp_path) -> None:
    """At the instant that it says, while the session is open."""
    now = [1_800_000_000_000_000]
    strongroom.init(tmp_path / "data")
    engine = Engine.open(tmp_path / "data", worker=False, clock_us=lambda: now[0])
    try:
        _, key = engine.owner_session().keys_create("short", "read-only", ["a/*"])
        info, token = engine.authenticate(key).tokens_create(minutes=1)
        session = engine.authenticate(token)
        now[0] += 59_999_999
        session.stats()
        now[0] += 1
        with pytest.raises(UnauthenticatedError):
            session.stats()
        with pytest.raises(UnauthenticatedError):
            engine.authenticate(token)
        assert engine.owner_session().audit(limit=5)[-1].reason == "the token has expired"
        assert engine.owner_session().audit(limit=10)[-3].reason == "the token has expired"
        _, dying = engine.owner_session().keys_create(
            "dying", "read-only", ["a/*"], engine.now() + __import__("datetime").timedelta(seconds=30)
        )
        info, _ = engine.authenticate(dying).tokens_create(minutes=15)
        assert (info.expires_at - info.created_at).total_seconds() == 30  # not beyond its key
    finally:
        engine.close()


def test_changed_and_made_up_tokens_are_refused_and_audited(server: Served) -> None:
    """Every single changed character, other stores' tokens, and other people's ids on a good seal."""
    with connect(server, server.key("read-only", "company_a/*")) as room:
        token, other = room.tokens_create()[1], room.tokens_create()[1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for at in range(0, len(token), 5):
        changed = token[:at] + alphabet[(alphabet.find(token[at]) + 1) % 64] + token[at + 1 :]
        with pytest.raises(UnauthenticatedError):
            server.engine.authenticate(changed)
    for wrong in (
        token[:19] + other[19:],
        token + "A",
        token[:-1],
        token + "=",
        "sr_tok_",
        "sr_tok_" + "0" * 12 + base64.urlsafe_b64encode(bytes(150)).decode().rstrip("="),
        "sr_tok_" + "0" * 9000,
    ):
        with pytest.raises(UnauthenticatedError):
            server.engine.authenticate(wrong)
    reasons = {r for a, r in denials(server.owner) if a == "authenticate"}
    assert {"not of the form of a token", "a token that this store has not made"} <= reasons


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(Scope)),
    st.lists(st.sampled_from(["a/*", "a/b", "c/d/*", "*", "x"]), min_size=1, max_size=4, unique=True),
    st.integers(0, 1 << 59),
)
def test_what_is_sealed_has_one_form(scope: Scope, grants: list[str], created: int) -> None:
    token = access.Token(
        token_id="0" * 12,
        key_id="1" * 12,
        scope=scope,
        grants=tuple(NamespacePattern.parse(g) for g in grants),
        created_at_us=created,
        expires_at_us=created + 1,
    )
    raw = access.encode_token(token)
    assert access.decode_token("0" * 12, raw) == token
    for bad in (raw + b"\0", raw[:-1], b"\x92\x63" + raw[2:]):
        with pytest.raises(StrongroomError):
            access.decode_token("0" * 12, bad)
