"""API keys carry attributes: policies see them on every way in, and nobody gives itself any."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.pgwire.wired import wired
from tests.policy.conftest import Stage, opened

import strongroom
from strongroom.config import AccessConfig, keys_directory
from strongroom.engine import Session
from strongroom.errors import AccessDeniedError, ConfigurationError, InvalidInputError
from strongroom.identity import create_client_authority, new_request, read_peer
from strongroom.model import PrincipalKind
from strongroom.policy import starter_files

NS = "acme/support"
ADMINS = """
@id("admins") permit(principal, action, resource) when { principal.scope == "admin" };
"""
OWN = """
@id("own") permit(principal is Agent, action in Action::"reading", resource)
  when { principal has tenant && resource.tenant == principal.tenant &&
         principal.labels.contains(resource.sensitivity) };
"""


def facts(noun: Any) -> tuple[Any, ...]:
    return noun.kind, noun.agent_id, noun.tenant, tuple(noun.labels)


def contents(session: Session) -> set[str]:
    return {m.content for m in session.list(namespaces=["*"]).memories}


def test_the_starter_set_reaches_a_plain_key(stage: Stage) -> None:
    """The label and the tenant of a key let it in by the policies that `policy init` writes."""
    stage.policies(starter_files()["support.cedar"].decode())
    stage.room.store("of the tenant", namespace=NS)
    stage.room.store("of another", namespace="globex/support")
    given: dict[str, Any] = {"tenant": "acme", "labels": ["support"], "agent_id": "bot-7"}
    _, text = stage.room.keys_create("bot", "read-write", ["*"], **given)
    assert contents(stage.room.engine.authenticate(text)) == {"of the tenant"}
    _, plain = stage.room.keys_create("bot", "read-write", ["*"])
    with pytest.raises(AccessDeniedError):
        stage.room.engine.authenticate(plain).search("tenant", namespaces=[NS])


def test_tokens_elevations_and_revocation_keep_the_attributes_of_the_key(stage: Stage) -> None:
    """A token has those of its key; an elevation changes none; they live through a new start."""
    stage.policies(ADMINS + OWN)
    info, text = stage.room.keys_create(
        "bot", "read-write", ["acme/*"], kind="agent", agent_id="bot-7", tenant="acme", labels=["internal"]
    )
    want = (PrincipalKind.AGENT, "bot-7", "acme", ("internal",))
    session = stage.room.engine.authenticate(text)
    _, token = session.tokens_create()
    asked = session.elevations_request("admin", ["acme/*"], reason="a fault", minutes=5)
    stage.room.elevations_approve(asked.id)
    for one in (session, stage.room.engine.authenticate(token)):
        assert facts(one.whoami()) == want
    assert session.whoami().elevations
    with pytest.raises(AccessDeniedError):  # what an elevation lends does not make labels
        session.keys_create("x", "read-only", ["acme/x"], labels=["restricted"])
    assert facts(stage.room.keys_list()[0]) == facts(stage.room.keys_revoke(info.key_id)) == want


def test_a_certificate_carries_the_tenant_that_its_identity_names(tmp_path: Path) -> None:
    """By the rule of the configuration, or as it is given; policies see it; it stays when it is renewed."""
    with opened(tmp_path, certificate_tenant="path:2") as stage:
        stage.policies(ADMINS + OWN)
        keys = keys_directory(stage.directory, stage.room.engine.config) / "tls"
        keys.mkdir(parents=True, exist_ok=True)
        create_client_authority(keys)
        stage.room.store("of the tenant", namespace=NS, sensitivity="internal")
        stage.room.store("of another", namespace="globex/support", sensitivity="internal")

        def let_in(identity: str, grants: tuple[str, ...] = ("*",), by: Any = None, **more: Any) -> Any:
            made = (by or stage.room).certificates_allow(
                f"spiffe://example.org/{identity}", name="a", scope="read-only", grants=list(grants), **more
            )
            return made.tenant

        assert let_in("tenants/acme/bot", labels=["internal"]) == "acme"
        assert let_in("acme") == "" and let_in("tenants/acme/none", tenant="") == ""
        assert let_in("tenants/acme/other", tenant="globex") == "globex"
        identity = "spiffe://example.org/tenants/acme/bot"
        der = ssl.PEM_cert_to_DER_cert(stage.room.certificates_renew(new_request()[1], identity=identity)[1])
        who = stage.room.engine.authenticate_certificate(read_peer(der), surface="rest")
        assert who.whoami().tenant == "acme" and contents(who) == {"of the tenant"}
        _, text = stage.room.keys_create("admin", "admin", ["acme/*"])
        part = stage.room.engine.authenticate(text)
        assert let_in("tenants/acme/mine", ("acme/x",), part) == "acme"
        with pytest.raises(AccessDeniedError):
            let_in("tenants/globex/mine", ("acme/x",), part)
        with pytest.raises(AccessDeniedError):
            part.certificates_allow(
                "dns:a.example.org", name="a", scope="read-only", grants=["acme/x"], tenant="globex"
            )


@pytest.mark.parametrize("rule", ["path", "path:0", "path:x", "path:-1", "domain", "path:1 ", "path:100"])
def test_a_rule_that_nobody_knows_stops_a_server(tmp_path: Path, rule: str) -> None:
    with opened(tmp_path, certificate_tenant=rule) as stage, pytest.raises(ConfigurationError):
        stage.room.engine.doors.prepare()


GIVEN: list[dict[str, Any]] = [
    {"labels": ["restricted"]}, {"labels": ["internal", "restricted"]}, {"agent_id": "bot-8"},
    {"tenant": "globex"}, {"kind": "person"},
]  # fmt: skip


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_an_admin_of_a_subtree_gives_only_what_it_has(stage: Stage, given: dict[str, Any]) -> None:
    """More takes the right to administer the whole store, by scope, grant and policy; certificates too."""
    own = {"agent_id": "bot-7", "labels": ["internal"]}
    _, text = stage.room.keys_create("admin", "admin", ["acme/*"], **own)
    _, wide = stage.room.keys_create("wide", "admin", ["*"])
    admin, whole = (stage.room.engine.authenticate(t) for t in (text, wide))
    stage.policies(ADMINS)
    for allowed in ({}, own, {"tenant": "acme"}):
        made, _ = admin.keys_create("k", "read-only", ["acme/x", "supervise:acme/*"], **allowed)
        assert facts(made) == facts(stage.room.keys_list()[-1])
    with pytest.raises(AccessDeniedError):
        admin.keys_create("k", "read-only", ["acme/x"], **given)
    assert "administer the whole store" in stage.audit()[-1].reason
    if "tenant" not in given:
        with pytest.raises(AccessDeniedError):
            admin.certificates_allow(
                identity="spiffe://x/y", name="k", scope="read-only", grants=["acme/x"], **given
            )
    whole.keys_create("k", "read-only", ["acme/x"], **given)
    stage.policies(ADMINS + '@id("no") forbid(principal, action, resource == Namespace::"*");')
    with pytest.raises(AccessDeniedError):
        whole.keys_create("k", "read-only", ["acme/x"], **given)
    whole.keys_create("k", "read-only", ["acme/x"])


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "robot"}, {"kind": []}, {"agent_id": None}, {"agent_id": "a" * 129}, {"tenant": "a\nb"},
        {"tenant": 7}, {"labels": "support"}, {"labels": [""]}, {"labels": ["a", "a"]},
        {"labels": ["l" * 65]}, {"labels": [str(n) for n in range(17)]}, {"labels": ["\u202e"]},
        {"labels": [None]}, {"labels": [[]]},
    ],
    ids=str,
)  # fmt: skip
def test_attributes_out_of_their_limits_are_refused(stage: Stage, given: dict[str, Any]) -> None:
    """With a typed error, and no key is made."""
    with pytest.raises(InvalidInputError):
        stage.room.keys_create("k", "read-only", ["acme/x"], **given)
    assert stage.room.keys_list() == []


def test_the_postgres_wire_shows_only_what_the_attributes_permit(tmp_path: Any) -> None:
    """By SCRAM, a key sees the permitted rows alone, and NULL for content that it may not have revealed."""
    with wired(tmp_path / "data", access=AccessConfig(policy_directory="policies")) as server:
        (server.directory / "policies").mkdir()
        closed = (
            '@id("closed") forbid(principal, action == Action::"reveal", resource) '
            'when { resource.sensitivity == "restricted" };'
        )
        (server.directory / "policies" / "a.cedar").write_text(ADMINS + OWN + closed, "utf-8")
        for label in ("internal", "restricted", "hidden"):
            server.owner.store(f"the {label} word", namespace=NS, sensitivity=label)
        _, key = server.owner.keys_create(
            "bot", "read-only", ["acme/*"], tenant="acme", labels=["internal", "restricted"]
        )
        with psycopg.connect(server.dsn(key)) as wire:
            rows = wire.execute("SELECT sensitivity, content FROM memories ORDER BY 1").fetchall()
            assert rows == [("internal", "the internal word"), ("restricted", None)]
            assert wire.execute("SELECT count(*) FROM memories").fetchall() == [(2,)]


def test_keys_made_over_the_network_have_attributes(tmp_path: Any) -> None:
    """REST and the client make and list them; what is out of limits is a 422, as in Python."""
    from tests.servers.served import served

    want = (PrincipalKind.SERVICE, "bot-7", "acme", ("support",))
    given: dict[str, Any] = {"kind": "service", "agent_id": "bot-7", "tenant": "acme", "labels": ["support"]}
    with served(tmp_path / "data") as server:
        with strongroom.connect(server.url, api_key=server.admin_key, ca=str(server.ca)) as remote:
            info, text = remote.keys_create("bot", "read-only", ["acme/*"], **given)
            assert facts(info) == want == facts(next(k for k in remote.keys_list() if k.name == "bot"))
            assert facts(server.engine.authenticate(text).whoami()) == want
            plain, _ = remote.keys_create("plain", "read-only", ["acme/*"])
            assert facts(plain) == (PrincipalKind.AGENT, "", "", ())
        with server.http(server.admin_key) as http:
            body = {"name": "k", "scope": "read-only", "grants": ["acme/*"], "labels": ["x" * 65]}
            assert http.post("/v1/keys", json=body).json()["error"]["code"] == "invalid_input"
