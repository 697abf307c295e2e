"""The commands against a server, and the processes that serve."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.cli.conftest import Run
from tests.servers.served import Served, served

import strongroom
from strongroom.client._tls import client_context

NS = "company_a/support"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served") / "data") as out:
        yield out


@pytest.fixture
def remote(command: Run, server: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the server, with an admin key."""
    monkeypatch.setenv("STRONGROOM_API_KEY", server.admin_key)
    at = ("--url", server.url, "--ca", str(server.ca), "--json")
    return lambda *args, **options: command(*at, *args, **options)


def test_the_same_commands_work_on_a_server(remote: Run, tmp_path: Path) -> None:
    memory_id = remote("store", "-n", NS, "--tag", "x", "--wait", "annual billing").json["memory_id"]
    assert remote("get", "-n", NS, memory_id).json["tags"] == ["x"]
    assert remote("search", "-n", NS, "billing").json["hits"][0]["memory"]["memory_id"] == memory_id
    assert remote("update", "-n", NS, memory_id, "--kind", "k").json["version"] == 2
    assert [m["kind"] for m in remote("list", "-n", NS, "--all").lines] == ["k"]
    assert remote("stats").json["memories"] >= 1
    assert NS in [n["name"] for n in remote("namespaces", "list").json["namespaces"]]
    made = remote("keys", "create", "--name", "r", "--scope", "read-only", "-n", NS).json
    assert made["key"]["key_id"] in [k["key_id"] for k in remote("keys", "list").json["keys"]]
    assert remote("keys", "revoke", made["key"]["key_id"]).json["key"]["revoked_at"]
    assert remote("queue", "list").json["entries"] == []
    assert remote("queue", "requeue").json == {"requeued": 0}
    assert remote("flush").json["pending"] == 0
    assert remote("audit").lines[-1]["surface"] == "rest"
    assert remote("delete", "-n", NS, memory_id).json == {"deleted": True}
    source = tmp_path / "source.jsonl"
    source.write_text(
        "".join(json.dumps({"content": f"line {n}", "namespace": "r/i"}) + "\n" for n in range(30))
    )
    assert remote("import", str(source)).json["stored"] == 30
    assert remote("import", str(source)).json["stored"] == 0
    assert len(remote("list", "-n", "r/i", "--all").lines) == 30
    assert list((tmp_path / "state/strongroom/imports").glob("*/*.json"))


def test_a_server_asks_for_a_key_and_answers_with_typed_errors(
    command: Run, server: Served, remote: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "memory_not_found" in remote("get", "-n", NS, "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e90", status=3).err
    assert "transport" in command("--url", server.url, "stats", status=12).err  # not a trusted authority
    assert "configuration" in command("--url", "http://127.0.0.1:1", "stats", status=7).err
    monkeypatch.delenv("STRONGROOM_API_KEY")
    assert "asks for an API key" in command("--url", server.url, "stats", status=2).err


@contextmanager
def started(*args: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A serving process and its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
    ) as child:
        try:
            assert child.stderr is not None
            for line in child.stderr:
                found = json.loads(line)
                if found.get("event") == "serving":
                    break
            else:
                raise AssertionError("the process did not serve")
            yield child, int(found["port"])
        finally:
            child.kill()


@contextmanager
def started_quietly(*args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A process that talks on stdin and stdout."""
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom.cli", *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_serve_answers_over_tls_and_ends_on_sigterm(process: Run, tmp_path: Path) -> None:
    at = ("--json", "--data", str(tmp_path / "room"))
    ca = process(*at, "init", "--embedding", "none").json["authority"]
    key = process(*at, "keys", "create", "--name", "k", "--scope", "admin", "-n", "*").json["api_key"]
    with started(*at, "serve", "--port", "0") as (child, port):
        remote = ("--json", "--url", f"https://127.0.0.1:{port}", "--ca", ca)
        stored = process(*remote, "store", "-n", NS, "over the wire", STRONGROOM_API_KEY=key).json
        # A second process on the same directory sees it.
        assert process(*at, "get", "-n", NS, stored["memory_id"]).json["content"] == "over the wire"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) in (0, -signal.SIGTERM)


def test_a_store_made_from_python_is_served_without_further_ado(process: Run, tmp_path: Path) -> None:
    """The first start makes the authority and the certificate, says so, and clients that trust it get in."""
    strongroom.init(tmp_path / "room")
    at = ("--data", str(tmp_path / "room"))
    assert not (tmp_path / "room.keys/tls").exists()
    with started(*at, "serve", "--port", "0") as (_, port):
        trusted = client_context(tmp_path / "room.keys/tls/ca.pem")
        assert httpx.get(f"https://127.0.0.1:{port}/healthz", verify=trusted, trust_env=False).is_success
    before = (tmp_path / "room.keys/tls/ca.pem").read_bytes()
    with started(*at, "serve", "--port", "0"):
        assert (tmp_path / "room.keys/tls/ca.pem").read_bytes() == before


def test_serve_without_a_certificate_says_how_to_make_one(process: Run, tmp_path: Path) -> None:
    at = ("--data", str(tmp_path / "room"))
    process(*at, "init", "--embedding", "none")
    (tmp_path / "room.keys/tls/server.key").unlink()
    assert "(configuration)" in process(*at, "serve", "--port", "0", status=7).err


def test_embed_serve_embeds_over_tls_for_those_who_have_the_key(process: Run, tmp_path: Path) -> None:
    at = ("--data", str(tmp_path / "room"))
    process(*at, "init")
    ca = tmp_path / "room.keys/tls/ca.pem"
    key = "a-key-of-at-least-16-characters"
    with started(*at, "embed-serve", "--port", "0", STRONGROOM_EMBED_API_KEY=key) as (child, port):
        context = client_context(ca)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False) as http:
            body = {"model": "all-MiniLM-L6-v2", "input": "a text"}
            assert http.post("/v1/embeddings", json=body).status_code == 401
            answer = http.post("/v1/embeddings", json=body, headers={"authorization": f"Bearer {key}"})
            assert len(answer.json()["data"][0]["embedding"]) == 384
        child.send_signal(signal.SIGHUP)
        assert child.stderr is not None
        assert json.loads(child.stderr.readline())["event"] == "certificate_renewed"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        assert json.loads(child.stderr.read())["event"] == "stopped"


def test_embed_serve_refuses_plain_http_beyond_this_machine_and_short_keys(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_EMBED_API_KEY", "short")
    assert "(configuration)" in command("embed-serve", "--no-tls", status=7).err
    monkeypatch.setenv("STRONGROOM_EMBED_API_KEY", "a-key-of-at-least-16-characters")
    assert "(invalid_input)" in command("embed-serve", "--no-tls", "--host", "0.0.0.0", status=2).err
    assert "there is no certificate" in command("embed-serve", status=7).err


def test_mcp_speaks_on_stdin_and_stdout_as_the_key_allows(process: Run, tmp_path: Path) -> None:
    at = ("--data", str(tmp_path / "room"))
    process(*at, "init", "--embedding", "none")
    made = process(
        *at, "--json", "keys", "create", "--name", "k", "--scope", "read-write", "-n", "company_a/*"
    )
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages = [
        {"id": 1, "method": "initialize", "params": start},
        {"method": "notifications/initialized"},
        *(
            {
                "id": n,
                "method": "tools/call",
                "params": {"name": "store_memory", "arguments": {"content": "x y z", "namespace": namespace}},
            }
            for n, namespace in ((2, NS), (3, "company_b/support"))
        ),
    ]
    with started_quietly(*at, "mcp", STRONGROOM_API_KEY=made.json["api_key"]) as child:
        assert child.stdin is not None and child.stdout is not None
        for message in messages:
            child.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        child.stdin.flush()
        answers = [json.loads(child.stdout.readline()) for _ in range(3)]
        child.stdin.close()
        assert child.wait(60) == 0
    results = {a["id"]: a["result"] for a in answers}
    assert results[1]["serverInfo"]["name"] == "strongroom"
    assert not results[2].get("isError")
    assert results[3]["isError"] is True
    assert process(*at, "--json", "stats").json["memories"] == 1


def test_mcp_refuses_a_key_that_is_no_good(process: Run, tmp_path: Path) -> None:
    at = ("--data", str(tmp_path / "room"))
    process(*at, "init", "--embedding", "none")
    answer = process(*at, "mcp", input="", status=5, STRONGROOM_API_KEY="")
    assert "(unauthenticated)" in answer.err
    assert answer.out == ""
