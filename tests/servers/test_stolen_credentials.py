"""What a thief of a credential can do and cannot, and that each attempt is in the audit log."""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest
from tests.servers.served import Served

import strongroom
from strongroom.errors import AccessDeniedError, CredentialNotFoundError, StrongroomError
from strongroom.identity import new_request


def test_a_stolen_read_only_key_reads_its_namespaces_and_does_nothing_else(server: Served) -> None:
    """Every way to write, to reach further or to stay is refused, and the log has each under the key's id."""
    memory = server.owner.store("theirs to read", namespace="company_a/support")
    server.owner.store("not theirs", namespace="company_b/support")
    key = server.key("read-only", "company_a/*")
    _, request = new_request()
    with strongroom.connect(server.url, api_key=key, ca=server.ca) as thief:
        assert thief.get(memory.memory_id, namespace="company_a/support").content == "theirs to read"
        own = thief.elevations_request("admin", ["*"], "because I can")
        attempts = [
            lambda: thief.store("planted", namespace="company_a/support"),
            lambda: thief.update(memory.memory_id, namespace="company_a/support", content="changed"),
            lambda: thief.delete(memory.memory_id, namespace="company_a/support"),
            lambda: thief.search("theirs", namespaces=["company_b/support"]),
            lambda: thief.create_namespace("company_a/mine"),
            lambda: thief.keys_create("back door", "read-only", ["company_a/*"]),
            lambda: thief.keys_list(),
            lambda: thief.keys_revoke(server.admin_key[8:20]),
            lambda: thief.tokens_create(scope="read-write"),
            lambda: thief.tokens_create(grants=["*"]),
            lambda: thief.elevations_approve(own.id),
            lambda: thief.certificates_issue(
                request, identity="dns:t.example.org", name="t", scope="read-only", grants=["company_a/*"]
            ),
            lambda: thief.certificates_renew(request, identity="dns:t.example.org"),
            lambda: thief.certificates_revoke(serial="abc"),
            lambda: thief.audit(),
            lambda: thief.requeue(["company_a/*"]),
        ]
        for attempt in attempts:
            with pytest.raises((AccessDeniedError, CredentialNotFoundError)):
                attempt()
    refused = [e for e in server.owner.audit(limit=200) if e.principal == key[8:20] and e.outcome != "ok"]
    assert len(refused) == len(attempts)
    assert all(
        e.reason and dict(e.details)["source"] == "127.0.0.1" for e in refused if e.outcome == "denied"
    )
    assert server.owner.get(memory.memory_id, namespace="company_a/support").version == 1


def test_a_session_ends_with_its_key_on_every_surface_and_the_log_says_why(server: Served) -> None:
    """Revoked in the middle: the next call on the open connection is refused and recorded with the reason."""
    key = server.key("read-write", "company_a/*")
    headers = {"accept": "application/json, text/event-stream"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    with strongroom.connect(server.url, api_key=key, ca=server.ca) as room, server.http(key) as http:
        room.stats()
        assert http.post("/mcp", json=call, headers=headers).status_code == 200
        embedded = server.engine.authenticate(key)
        server.owner.keys_revoke(key[8:20])
        for attempt in (room.stats, embedded.stats):
            with pytest.raises(StrongroomError):
                attempt()
        assert http.post("/mcp", json=call, headers=headers).status_code == 401
    entries = [e for e in server.owner.audit(limit=50) if e.principal == key[8:20] and e.outcome == "denied"]
    assert len(entries) == 3 and {e.reason for e in entries} == {"the key was revoked"}


def test_a_downgrade_to_tls_1_2_is_refused_and_noted(server: Served) -> None:
    """Forced by somebody in between, or by an old client: no session comes about, and the log has it."""
    context = ssl.create_default_context(cafile=str(server.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(3):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            pytest.raises((ssl.SSLError, OSError)),
        ):
            context.wrap_socket(raw, server_hostname="localhost")
    server.engine.doors.watch.flush()
    notes = [e for e in server.owner.audit(limit=50) if e.action == "handshake" and "protocol" in e.reason]
    assert sum(int(dict(e.details)["times"]) for e in notes) == 3


def test_a_key_is_worth_nothing_without_tls(server: Served) -> None:
    with httpx.Client(trust_env=False) as http, pytest.raises(httpx.TransportError):
        http.get(f"http://127.0.0.1:{server.port}/v1/stats", headers={"authorization": "Bearer x"})
