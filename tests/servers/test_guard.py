"""The guard in front: Host, Origin, sizes, request ids, headers, logs, and what leaks when all else fails."""

from __future__ import annotations

import json
import socket
import ssl

import pytest
from tests.servers.served import served

from strongroom.config import LimitsConfig, ServerConfig

ORIGIN = "https://console.example"


def raw_exchange(server, request: bytes, timeout=10) -> bytes:
    """What the server sends back for exactly these bytes."""
    context = ssl.create_default_context(cafile=str(server.ca))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(request)
        received = b""
        while chunk := tls.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize("path", ["/healthz", "/v1/stats", "/mcp", "/openapi.json", "/nothing"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8443", "", "localhost:port", "[::1"],
)
def test_a_foreign_host_is_refused_everywhere(http, host, path):
    """DNS rebinding: a name that points here without being ours gets nothing, key or not."""
    answer = http.request("POST" if path == "/mcp" else "GET", path, headers={"host": host})
    assert answer.status_code in (400, 421)
    if answer.status_code == 421:
        assert answer.json()["error"]["code"] == "access_denied"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:8443"])
def test_our_own_names_are_taken_with_any_port(http, host):
    assert http.get("/healthz", headers={"host": host}).status_code == 200


def test_two_hosts_are_refused(server):
    answer = raw_exchange(
        server, b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    )
    assert b" 400 " in answer.split(b"\r\n")[0] or b" 421 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost", "null", "", "https://localhost:1"]
)
@pytest.mark.parametrize("path", ["/v1/stats", "/mcp", "/healthz"])
def test_a_foreign_origin_is_refused(http, path, origin):
    """A page of another site cannot use a browser's reach to this address."""
    headers = {"origin": origin, "host": f"localhost:{http.base_url.port}"}
    answer = http.request("POST" if path == "/mcp" else "GET", path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "access_denied")
    assert "access-control-allow-origin" not in answer.headers


def test_the_own_origin_and_configured_ones_are_taken(tmp_path):
    config = ServerConfig(
        allowed_origins=(ORIGIN,), allowed_hosts=("localhost", "127.0.0.1", "memory.internal")
    )
    with served(tmp_path / "data", server=config) as server, server.http() as http:
        assert http.get("/v1/stats", headers={"origin": server.url}).status_code == 200
        assert http.get("/v1/stats", headers={"origin": ORIGIN}).status_code == 200
        assert http.get("/v1/stats", headers={"host": "memory.internal"}).status_code == 200


def test_no_cross_origin_preflight_is_answered(http):
    answer = http.options("/v1/memories", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert answer.status_code == 403 and not [h for h in answer.headers if h.startswith("access-control")]


def test_security_headers_are_on_every_answer_and_nothing_names_the_software(http):
    for answer in (
        http.get("/healthz"),
        http.get("/nothing"),
        http.get("/v1/stats"),
        http.post("/mcp", json={}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "no-store" in answer.headers["cache-control"] or "no-cache" in answer.headers["cache-control"]
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc.DEF_1-2", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("<a>", False)],
)
def test_a_sane_request_id_is_kept_and_another_is_replaced(http, given, kept):
    answer = http.get("/healthz", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) == kept


def test_a_body_is_cut_off_while_it_streams(tmp_path):
    """Without Content-Length the limit still holds: the answer comes though the body never ends."""
    with served(tmp_path / "data", limits=LimitsConfig(request_bytes_max=100_000)) as server:
        for path in (b"/v1/memories", b"/mcp"):
            head = (
                b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Accept: application/json, text/event-stream\r\nTransfer-Encoding: chunked\r\n"
                b"Authorization: Bearer " + server.admin_key.encode() + b"\r\n\r\n"
            )
            chunk = b"4e20\r\n" + b"x" * 20_000 + b"\r\n"
            answer = raw_exchange(server, head + chunk * 6)
            assert b" 413 " in answer.split(b"\r\n")[0] and b"\r\nconnection: close" in answer
            assert b"content_too_large" in answer or path == b"/mcp"
        with server.http() as http:
            headers = {"content-type": "application/json"}
            declared = http.post("/v1/memories", content=b"x" * 100_001, headers=headers)
            assert (declared.status_code, declared.json()["error"]["code"]) == (413, "content_too_large")
            assert http.get("/v1/stats").status_code == 200


def test_a_large_body_is_not_read_before_the_key_is_found_good(server):
    """Whoever has no good key cannot make the server hold megabytes: it answers on the headers alone."""
    wrong = server.key("read-only", "*")
    server.owner.keys_revoke(wrong[8:20])
    for key in (b"", wrong.encode()):
        head = (
            b"POST /v1/memories HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + key + b"\r\nContent-Length: 50000000\r\nConnection: close\r\n\r\n"
        )
        assert b" 401 " in raw_exchange(server, head).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
)
def test_malformed_http_is_refused_without_a_trace(server, request_bytes):
    try:
        answer = raw_exchange(server, request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    except OSError:
        return
    assert b" 200 " not in answer.split(b"\r\n")[0] and b"Traceback" not in answer


def test_websockets_are_not_spoken(server):
    request = (
        b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b" 101 " not in raw_exchange(server, request).split(b"\r\n")[0]


def test_an_unexpected_failure_says_nothing_and_is_logged_by_type(tmp_path, monkeypatch):
    """A bug below must not tell a caller, or the log, what it was working on."""
    with served(tmp_path / "data") as server, server.http() as http:

        def broken(*args, **kwargs):
            raise ZeroDivisionError("patient-name-of-one")

        monkeypatch.setattr(server.engine, "authenticate", broken)
        mcp = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for answer in (
            http.get("/v1/stats"),
            http.post("/mcp", json=mcp, headers={"accept": "application/json, text/event-stream"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
            assert "patient" not in answer.text and "Zero" not in answer.text
        failures = [line for line in server.log_lines() if line["event"] == "unexpected_error"]
        assert {f["type"] for f in failures} == {"ZeroDivisionError"} and len(failures) == 2
        assert "patient" not in server.log.getvalue()


def test_logs_are_json_and_hold_neither_content_nor_queries_nor_keys_nor_namespaces(tmp_path):
    with served(tmp_path / "data") as server, server.http() as http:
        secret = {"content": "canary-content", "namespace": "canary/namespace", "tags": ["canary-tag"]}
        made = http.post("/v1/memories", json=secret).json()
        params = {"namespace": "canary/namespace"}
        http.get(f"/v1/memories/{made['memory_id']}", params=params)
        http.post("/v1/memories:search", json={"query": "canary-query", "namespaces": ["canary/*"]})
        http.get(
            "/v1/memories", params={"namespaces": "canary/namespace", "where": "content = 'canary-where'"}
        )
        http.post("/v1/memories", json={**secret, "canary-field": 1})
        http.get("/canary-path")
        with server.http("sr_live_canary-key") as nobody:
            nobody.get("/v1/stats", headers={"x-request-id": "kept-id"})
        lines = server.log_lines()
        text = server.log.getvalue()
        assert "canary" not in text and "sr_live_" not in text
        assert [(x["method"], x["route"], x["status"]) for x in lines if x["event"] == "request"][:2] == [
            ("POST", "/v1/memories", 201),
            ("GET", "/v1/memories/{memory_id}", 200),
        ]
        refused = [x for x in lines if x["event"] == "refused"]
        assert [(x["reason"], x["request_id"]) for x in refused] == [("not of the form of a key", "kept-id")]
        assert json.dumps(lines)
