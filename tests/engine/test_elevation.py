"""Just-in-time elevation: with a reason, by somebody else, for a while, and all of it in the audit log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import strongroom
from strongroom.config import AccessConfig, Config, EmbeddingConfig
from strongroom.engine import Engine, Session
from strongroom.errors import (
    AccessDeniedError,
    ConflictError,
    CredentialNotFoundError,
    InvalidInputError,
    LimitExceededError,
    StrongroomError,
)
from strongroom.model import ElevationState, NamespacePattern, Scope

MINUTE = 60_000_000


class Clock:
    now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path, clock: Clock) -> Iterator[Engine]:
    strongroom.init(tmp_path / "data", config=Config(embedding=EmbeddingConfig(provider="none")))
    out = Engine.open(tmp_path / "data", worker=False, clock_us=clock)
    owner = out.owner_session()
    for name in ("company_a/x", "company_a/y", "company_b/x"):
        owner.store(f"in {name}", namespace=name)
    yield out
    out.close()


def caller(engine: Engine, scope: str, *grants: str) -> Session:
    return engine.authenticate(engine.owner_session().keys_create("test", scope, list(grants))[1])


def test_the_whole_way_of_an_elevation(engine: Engine, clock: Clock) -> None:
    """Nothing before the approval, exactly what was asked for after it, nothing when its time is over."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "company_a/*")
    asked = agent.elevations_request("read-write", ["company_a/y"], "incident 4711", minutes=30)
    assert asked.state is ElevationState.PENDING
    with pytest.raises(AccessDeniedError):
        agent.store("too early", namespace="company_a/y")
    granted = admin.elevations_approve(asked.id)
    assert granted.state is ElevationState.ACTIVE and granted.decided_by == admin.whoami().id
    agent.store("now", namespace="company_a/y")
    assert {m.namespace for m in agent.list(namespaces=["*"]).memories} == {"company_a/x", "company_a/y"}
    for wrong in ("company_a/x", "company_b/x"):  # writing is lent for y alone: rights do not add up
        with pytest.raises(AccessDeniedError):
            agent.store("not lent", namespace=wrong)
    clock.now += 30 * MINUTE
    with pytest.raises(AccessDeniedError):
        agent.store("too late", namespace="company_a/y")
    assert {m.namespace for m in agent.list(namespaces=["*"]).memories} == {"company_a/x"}
    assert [e.state for e in admin.elevations_list(all_states=True)] == [ElevationState.EXPIRED]
    assert admin.elevations_list() == []


def test_the_audit_log_tells_the_story(engine: Engine, clock: Clock) -> None:
    """Request with its reason, approval with its approver, and the id on every operation meanwhile."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "*")
    asked = agent.elevations_request("read-write", ["company_b/x"], "incident 4711", minutes=5)
    admin.elevations_approve(asked.id)
    agent.store("elevated", namespace="company_b/x")
    clock.now += 5 * MINUTE
    agent.get(agent.list(namespaces=["company_a/x"]).memories[0].memory_id, namespace="company_a/x")
    entries = engine.owner_session().audit(limit=100)
    steps = [(e.principal, e.reason) for e in entries if e.action == "elevate"]
    me, boss = agent.whoami().id, admin.whoami().id
    assert (me, f"request elevation {asked.id}: incident 4711") in steps
    assert (boss, f"approve elevation {asked.id} of {me}") in steps
    stored = next(e for e in entries if e.action == "store" and e.principal == me)
    assert dict(stored.details)["elevation"] == asked.id
    after = next(e for e in entries if e.action == "read" and e.principal == me)
    assert "elevation" not in dict(after.details)


def test_nobody_approves_their_own_and_nobody_beyond_their_own_rights(engine: Engine) -> None:
    """Refused, audited, and still pending for somebody who may."""
    admin, other = caller(engine, "admin", "company_a/*"), caller(engine, "admin", "company_b/*")
    writer, boss = caller(engine, "read-write", "*"), caller(engine, "admin", "*")
    asked = admin.elevations_request("admin", ["company_b/*"], "cover for a colleague")
    with pytest.raises(AccessDeniedError):
        admin.elevations_approve(asked.id)
    for stranger in (writer, caller(engine, "admin", "company_c/*")):
        with pytest.raises(CredentialNotFoundError):
            stranger.elevations_approve(asked.id)
        assert stranger.elevations_list() == []
    wide = admin.elevations_request("read-only", ["*"], "look at everything")
    with pytest.raises(CredentialNotFoundError):
        other.elevations_approve(wide.id)
    assert other.elevations_approve(asked.id).state is ElevationState.ACTIVE
    assert boss.elevations_deny(wide.id).state is ElevationState.DENIED
    denied = [e for e in engine.owner_session().audit(limit=100) if e.outcome == "denied"]
    assert any("nobody approves an elevation of its own" in e.reason for e in denied)


def test_an_approval_counts_once(engine: Engine, clock: Clock) -> None:
    """Replayed after its time, after a revocation, or after a denial, it is refused."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "*")
    expired, revoked, denied, lapsed = (
        agent.elevations_request("read-write", ["company_a/y"], f"reason {n}", minutes=10) for n in range(4)
    )
    admin.elevations_approve(expired.id)
    with pytest.raises(ConflictError):
        admin.elevations_approve(expired.id)
    admin.elevations_approve(revoked.id)
    admin.elevations_revoke(revoked.id)
    admin.elevations_deny(denied.id)
    clock.now += 60 * MINUTE
    for one in (expired, revoked, denied, lapsed):
        for step in (admin.elevations_approve, admin.elevations_deny, admin.elevations_revoke):
            with pytest.raises(ConflictError):
                step(one.id)
    with pytest.raises(AccessDeniedError):
        agent.store("replayed", namespace="company_a/y")
    states = {e.id: e.state for e in agent.elevations_list(all_states=True)}
    assert [states[e.id].value for e in (expired, revoked, denied, lapsed)] == [
        "expired", "revoked", "denied", "lapsed",
    ]  # fmt: skip
    refusals = [e for e in engine.owner_session().audit(limit=100) if e.outcome == "conflict"]
    assert any(f"approve elevation {expired.id}: it is expired" in e.reason for e in refusals)


def test_two_approvers_at_once_grant_once(engine: Engine) -> None:
    agent = caller(engine, "read-only", "company_a/x")
    admins = [caller(engine, "admin", "*") for _ in range(4)]
    asked = agent.elevations_request("read-write", ["company_a/y"], "race")
    results: list[object] = []

    def approve(admin: Session) -> None:
        try:
            results.append(admin.elevations_approve(asked.id))
        except ConflictError as e:
            results.append(e)

    threads = [threading.Thread(target=approve, args=(a,)) for a in admins]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(not isinstance(r, Exception) for r in results) == 1 and len(results) == 4


def test_ending_it_counts_at_the_next_call(engine: Engine) -> None:
    """By the requester itself or an admin; a request can be withdrawn."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "*")
    for ender in (agent, admin):
        asked = agent.elevations_request("read-only", ["company_b/x"], "look")
        admin.elevations_approve(asked.id)
        assert agent.list(namespaces=["company_b/x"]).memories
        assert ender.elevations_revoke(asked.id).ended_by == ender.whoami().id
        with pytest.raises(AccessDeniedError):
            agent.list(namespaces=["company_b/x"])
    waiting = agent.elevations_request("read-only", ["company_b/x"], "look")
    agent.elevations_revoke(waiting.id)
    with pytest.raises(ConflictError):
        admin.elevations_approve(waiting.id)


def test_what_is_lent_makes_nothing_that_outlives_it(engine: Engine) -> None:
    """An elevated admin cannot make keys, let identities in, approve others; tokens carry none of it."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "*")
    asked = agent.elevations_request("admin", ["*"], "everything")
    admin.elevations_approve(asked.id)
    assert agent.audit(limit=1), "the elevation itself works"
    friend = caller(engine, "read-only", "company_a/x")
    theirs = friend.elevations_request("read-only", ["company_b/x"], "please")
    for attempt in (
        lambda: agent.keys_create("back door", "admin", ["*"]),
        lambda: agent.certificates_allow("dns:door.example.org", name="x", scope="read-only", grants=["*"]),
        lambda: agent.elevations_approve(theirs.id),
        lambda: agent.keys_list(),
    ):
        with pytest.raises((AccessDeniedError, CredentialNotFoundError)):
            attempt()
    _, token = agent.tokens_create()
    with pytest.raises(AccessDeniedError):
        engine.authenticate(token).list(namespaces=["company_b/x"])
    with pytest.raises(AccessDeniedError):
        agent.tokens_create(scope="admin")


def test_it_outlives_a_restart_and_not_its_key(engine: Engine, clock: Clock, tmp_path: Path) -> None:
    owner = engine.owner_session()
    info, key = owner.keys_create("agent", "read-only", ["company_a/x"])
    asked = engine.authenticate(key).elevations_request("read-only", ["company_b/x"], "over a restart")
    owner.elevations_approve(asked.id)
    again = Engine.open(tmp_path / "data", worker=False, clock_us=clock)
    try:
        session = again.authenticate(key)
        assert session.list(namespaces=["company_b/x"]).memories
        owner.keys_revoke(info.key_id)
        with pytest.raises(StrongroomError):
            session.list(namespaces=["company_b/x"])
    finally:
        again.close()


def test_malformed_requests_and_floods_are_refused(engine: Engine) -> None:
    agent = caller(engine, "read-only", "company_a/x")
    for scope, grants, reason, minutes in (
        ("root", ["a/b"], "why", 5), ("admin", [], "why", 5), ("admin", ["a/b"], "", 5),
        ("admin", ["a/b"], "  ", 5), ("admin", ["a/b"], "x" * 501, 5), ("admin", ["a/b"], "a\nb", 5),
        ("admin", ["a/b"], "why", 0), ("admin", ["a/b"], "why", 2.5), ("admin", ["a/b/"], "why", 5),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError):
            agent.elevations_request(scope, grants, reason, minutes=minutes)
    for _ in range(10):
        agent.elevations_request("read-only", ["a/b"], "again")
    with pytest.raises(LimitExceededError):
        agent.elevations_request("read-only", ["a/b"], "once more")
    with pytest.raises(AccessDeniedError):
        engine.owner_session().elevations_request("read-only", ["a/b"], "owner")


def test_what_was_withdrawn_costs_later_calls_nothing(engine: Engine) -> None:
    """Asking and withdrawing again and again makes no call of the caller slower; the list has all."""
    agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "company_a/*")
    for number in range(30):
        asked = agent.elevations_request("read-only", ["company_a/y"], "again")
        if number % 2:
            agent.elevations_revoke(asked.id)
        else:
            admin.elevations_deny(asked.id)
    identities = engine.registry.identities
    assert identities.elevations_of(agent.whoami().id) == []
    assert len(agent.elevations_list(all_states=True)) == 30
    again = Engine.open(engine.directory, worker=False)
    assert again.registry.identities.elevations_of(agent.whoami().id) == []
    again.close()


def test_policies_have_a_say_in_who_approves_and_who_lets_identities_in(tmp_path: Path) -> None:
    """A policy that forbids to administer forbids approvals and certificates as it forbids keys."""
    access = AccessConfig(policy_directory="policies")
    strongroom.init(
        tmp_path / "data", config=Config(embedding=EmbeddingConfig(provider="none"), access=access)
    )
    (tmp_path / "data" / "policies").mkdir(mode=0o700)
    (tmp_path / "data" / "policies" / "lock.cedar").write_text(
        '@id("all")\npermit (principal, action, resource);\n'
        '@id("lock")\nforbid (principal, action == Action::"administer", resource);\n'
    )
    engine = Engine.open(tmp_path / "data", worker=False)
    try:
        agent, admin = caller(engine, "read-only", "company_a/x"), caller(engine, "admin", "*")
        asked = agent.elevations_request("read-only", ["company_a/y"], "look")
        for attempt in (
            lambda: admin.keys_create("x", "read-only", ["company_a/x"]),
            lambda: admin.elevations_approve(asked.id),
            lambda: admin.elevations_deny(asked.id),
            lambda: admin.certificates_allow(
                "dns:x.example.org", name="x", scope="read-only", grants=["company_a/x"]
            ),
        ):
            with pytest.raises((AccessDeniedError, CredentialNotFoundError)):
                attempt()
        assert agent.elevations_list()[0].state is ElevationState.PENDING
    finally:
        engine.close()


def test_the_stored_form_is_canonical() -> None:
    from strongroom import access

    record = access.ElevationRecord(
        id="0" * 12, requester="1" * 12, scope=Scope.ADMIN, grants=(NamespacePattern("a/*"),),
        reason="why", requested_at_us=1, minutes=5, decided_at_us=2, decided_by="2" * 12, granted=True,
        expires_at_us=3,
    )  # fmt: skip
    raw = access.encode_elevation(record)
    assert access.decode_elevation(raw) == record
    for bad in (raw + b"\0", raw[:-1], b"\x9e\x63" + raw[2:]):
        with pytest.raises(StrongroomError):
            access.decode_elevation(bad)
