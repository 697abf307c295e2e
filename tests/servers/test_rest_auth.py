"""Authentication over REST and MCP: refusals tell nothing, and come at once."""

from __future__ import annotations

import datetime as dt
import os
import zlib

import pytest
from tests.servers.served import served

from strongroom import access

RPC = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"accept": "application/json, text/event-stream"}


def headers_of(answer):
    own = ("x-request-id", "date")
    return {k: v for k, v in answer.headers.items() if k not in own}


def bad_credentials(server):
    good = server.key("read-only", "*")
    revoked = server.key("read-only", "*")
    server.owner.keys_revoke(access.parse_key(revoked).key_id)
    unknown = access.generate_key(os.urandom).text
    body = "sr_live_" + access.parse_key(good).key_id + unknown[20:63]  # a known id, another secret
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = digits[digit] + check
    return {
        "none": None,
        "empty": "Bearer",
        "basic": "Basic dXNlcjpwYXNz",
        "no scheme": good,
        "truncated": f"Bearer {good[:-1]}",
        "mistyped": f"Bearer {good[:30]}{'a' if good[30] != 'a' else 'b'}{good[31:]}",
        "unknown": f"Bearer {unknown}",
        "wrong secret": f"Bearer {body}{check}",
        "revoked": f"Bearer {revoked}",
        "two": f"Bearer {good}, Bearer {good}",
        "latin": "Bearer sr_live_\xe9",
    }


def test_all_failures_of_authentication_look_the_same(server):
    """Status, body and headers do not tell a missing key from a mistyped, unknown, wrong or revoked one."""
    seen = {}
    with server.http("") as nobody:
        for name, value in bad_credentials(server).items():
            headers = {} if value is None else {"authorization": value.encode("latin-1")}
            for path in ("/v1/stats", "/mcp"):
                answer = (
                    nobody.get(path, headers=headers)
                    if path != "/mcp"
                    else nobody.post(path, json=RPC, headers={**headers, **ACCEPT})
                )
                seen[name, path] = (answer.status_code, answer.text, str(sorted(headers_of(answer).items())))
    assert len(set(seen.values())) == 1, seen
    status, text, headers = next(iter(seen.values()))
    assert status == 401 and '"unauthenticated"' in text and "www-authenticate" in headers


def test_a_body_is_not_looked_at_before_the_key(server):
    with server.http("") as nobody:
        for content in (b"{nope", b"", b'{"content": 5}'):
            answer = nobody.post(
                "/v1/memories", content=content, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/v1/memories/no-uuid", "/v1/stats?x=1", "/v1/memories?limit=no"])
def test_parameters_are_not_looked_at_before_the_key(server, path):
    with server.http("") as nobody:
        assert nobody.get(path).status_code == 401


def test_the_key_is_taken_from_the_header_alone(server):
    """A key in the address would end in logs and histories."""
    key = server.key("read-only", "*")
    with server.http("") as nobody:
        for params in ({"api_key": key}, {"key": key}, {"access_token": key}):
            assert nobody.get("/v1/stats", params=params).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_not_case_sensitive(server, scheme):
    """RFC 9110, section 11.1."""
    with server.http("") as http:
        headers = {"authorization": f"{scheme} {server.key('read-only', '*')}"}
        assert http.get("/v1/stats", headers=headers).status_code == 200


def test_a_revoked_key_is_refused_at_once_on_an_open_connection(server):
    key = server.key("read-write", "*")
    with server.http(key) as http:
        assert http.get("/v1/stats").status_code == 200
        assert http.post("/mcp", json=RPC, headers=ACCEPT).status_code == 200
        server.owner.keys_revoke(access.parse_key(key).key_id)
        assert http.get("/v1/stats").status_code == 401
        assert http.post("/mcp", json=RPC, headers=ACCEPT).status_code == 401


def test_an_expired_key_is_refused(tmp_path):
    with served(tmp_path / "data") as server:
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
        key = server.owner.keys_create("short", "read-only", ["*"], soon)[1]
        with server.http(key) as http:
            assert http.get("/v1/stats").status_code == 200
            server.engine._clock_us = lambda: int((soon + dt.timedelta(seconds=1)).timestamp() * 1_000_000)
            assert http.get("/v1/stats").status_code == 401


def test_refusals_are_audited_with_their_reason_and_logged_without_the_key(server):
    key = server.key("read-only", "*")
    key_id = access.parse_key(key).key_id
    server.owner.keys_revoke(key_id)
    with server.http(key) as http:
        http.get("/v1/stats", headers={"x-request-id": "revoked-1"})
    entry = next(e for e in server.owner.audit(limit=20) if e.request_id == "revoked-1")
    assert (entry.principal, entry.outcome, entry.surface) == (key_id, "denied", "rest")
    assert "revoked" in entry.reason and key not in server.log.getvalue()
