"""No credential, key or content reaches a log, with every door used and abused at the level debug."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.servers import mutual
from tests.servers.served import make_store
from tests.servers.test_oidc import ROLES, config, key_set, sign
from tests.support.word_model import WordModel

import strongroom
from strongroom.client._tls import client_context
from strongroom.config import LogConfig, PgwireConfig, ServerConfig
from strongroom.identity import create_client_authority

SERVE = """
import logging, sys
from pathlib import Path
from tests.support.word_model import WordModel
from strongroom.engine import Engine
from strongroom.servers.serve import run_server, server_files
engine = Engine.open(Path(sys.argv[1]), provider=WordModel(64))
certificate, private_key = server_files(Path(sys.argv[1]), engine.config)
logging.getLogger("asyncio").setLevel(logging.DEBUG)
run_server(engine, engine.config, certificate=certificate, private_key=private_key, port=0)
"""
CONTENT, QUERY, NAMESPACE, REASON = (
    "harbour-master-content",
    "lighthouse-query",
    "zanzibar/vault",
    "reason-4711",
)
CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call",
    "params": {"name": "search_memory", "arguments": {"query": QUERY, "namespaces": [NAMESPACE]}},
}  # fmt: skip


def knock(url: str, ca: Path, credential: str | None, files: tuple[str, str] | tuple[()] = ()) -> None:
    """One caller on REST and MCP: what works, and what is refused or malformed."""
    headers = {"accept": "application/json, text/event-stream"}
    if credential is not None:
        headers["authorization"] = f"Bearer {credential}"
    with httpx.Client(
        base_url=url, verify=client_context(ca, *files), headers=headers, trust_env=False
    ) as http:
        http.post("/v1/memories", json={"content": CONTENT, "namespace": NAMESPACE})
        http.post("/v1/memories:search", json={"query": QUERY, "namespaces": [NAMESPACE]})
        http.post("/v1/memories", json={"content": CONTENT, "namespace": "not a namespace", "x": CONTENT})
        http.post("/v1/sql", json={"statement": f"SELECT '{CONTENT}' FROM nowhere"})
        http.post("/v1/memories", content=CONTENT.encode())
        http.get(f"/v1/memories/{CONTENT}", params={"namespace": NAMESPACE, "credential": str(credential)})
        http.post("/v1/tokens", json={"minutes": 5})
        http.post("/v1/elevations", json={"scope": "admin", "grants": [NAMESPACE], "reason": REASON})
        http.post("/mcp", json=CALL)


@pytest.mark.filterwarnings("ignore")
def test_nothing_secret_is_in_any_log_at_debug(tmp_path: Path) -> None:
    directory, tls = tmp_path / "data", tmp_path / "data.keys" / "tls"
    tls.parent.mkdir(mode=0o700)
    create_client_authority(tls)
    (tls.parent / "jwks.json").write_text(key_set())
    make_store(
        directory,
        log=LogConfig(level="debug"),
        server=ServerConfig(client_certificate="optional"),
        pgwire=PgwireConfig(client_certificate="optional"),
        oidc=config(),
        roles=ROLES,
    )
    with strongroom.open(directory, provider=WordModel(64)) as room:
        keys = [room.keys_create("k", s, [NAMESPACE])[1] for s in ("admin", "read-only", "read-write")]
        holder = mutual.issue(room, tmp_path, "spiffe://example.org/logs", "read-write", NAMESPACE)
        token = room.engine.authenticate(keys[0]).tokens_create()[1]
        room.keys_revoke(keys[1][8:20])
    person, wrong = sign(), keys[2][:-3] + "000"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONASYNCIODEBUG": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(directory)], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        serving = next(e for line in process.stderr if (e := json.loads(line))["event"] == "serving")
        url, ca = f"https://127.0.0.1:{serving['port']}", tls / "ca.pem"
        try:
            for credential in (
                *keys,
                token,
                person,
                wrong,
                token[:-4] + "AAAA",
                person[:-9] + "AAAAAAAAA",
                "x",
            ):
                knock(url, ca, credential)
            knock(url, ca, None, holder.files)
            for user, password in (
                (keys[0][8:20], keys[0]), (keys[1][8:20], keys[1]), ("u", wrong), ("u", token), ("u", person),
                (keys[0][8:20], wrong),
            ):  # fmt: skip
                dsn = (
                    f"host=localhost port={serving['pgwire_port']} user={user} password={password}"
                    f" dbname=strongroom sslmode=verify-full sslrootcert={ca}"
                )
                try:
                    with psycopg.connect(dsn, autocommit=True) as connection:
                        connection.execute(f"SELECT count(*) FROM memories WHERE content = '{CONTENT}'")
                        connection.execute(f"SELECT '{CONTENT}' FROM nowhere")
                except psycopg.Error:
                    pass
            forged = mutual.forge(tmp_path / "foreign", "spiffe://example.org/logs")
            with pytest.raises(httpx.HTTPError):
                knock(url, ca, keys[0], forged.files)
        finally:
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=60)
    events = [json.loads(line) for line in rest.splitlines()]
    requests = [e for e in events if e["event"] == "request"]
    assert len(requests) > 80 and any(e.get("surface") == "pgwire" for e in events)
    assert all(
        e.get("request_id")
        for e in events
        if e["event"] in ("request", "refused", "connected", "tool_refused")
    )
    secrets = {
        "content": CONTENT, "query": QUERY, "namespace": NAMESPACE, "reason": REASON, "token": token[19:60],
        "person": person.split(".")[1], "signature": person.split(".")[2], "wrong": wrong[20:60],
        **{f"key {n}": key[20:60] for n, key in enumerate(keys)},
        "private key": holder.private_key.read_text().splitlines()[1],
        "server's key": (tls / "server.key").read_text().splitlines()[1],
    }  # fmt: skip
    found = [name for name, secret in secrets.items() if secret in rest]
    assert found == []
