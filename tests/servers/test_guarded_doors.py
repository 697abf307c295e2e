"""Brute force and floods on REST, MCP and the Postgres wire: slowed down, and in the audit log in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.pgwire.wired import Wired, WireThread
from tests.servers.served import Served, served

import strongroom
from strongroom.config import GuardConfig
from strongroom.errors import LimitExceededError, UnauthenticatedError
from strongroom.servers.http import WorkerPool, _sign_in, make_log
from strongroom.servers.http._connection import Connection
from strongroom.servers.pgwire import PgwireServer
from strongroom.servers.serve import server_files

GUARD = GuardConfig(
    failures_of_credential=3,
    failures_of_source=8,
    wait_ms_min=60_000,
    principal_requests_per_s=1,
    principal_burst=10,
)
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
MCP = {"accept": "application/json, text/event-stream"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A server with low limits; each test has its own, because they count."""
    with served(tmp_path / "data", guard=GUARD) as out:
        yield out


def wrong(key: str) -> str:
    """A key of the right form with the id of this one and another secret."""
    import zlib

    from strongroom.access import _key

    body = key[:20] + "1" * 43
    return body + _key._digits(zlib.crc32(body.encode()), 6, _key._BASE62)


def notes(server: Served, action: str) -> dict[str, int]:
    server.engine.doors.watch.flush()
    found = [e for e in server.owner.audit(limit=1000) if e.action == action and e.outcome == "denied"]
    out: dict[str, int] = {}  # written in pieces, when the housekeeper was faster
    for e in found:
        out[e.reason] = out.get(e.reason, 0) + int(dict(e.details).get("times", 1))
    return out


def test_guessing_one_key_is_stopped_and_locks_nobody_out(server: Served) -> None:
    """After three wrong secrets the guesser waits; its holder gets in, from the same source too."""
    key = server.key("read-only", "company_a/*")
    with server.http(wrong(key)) as http:
        assert [http.get("/v1/stats").status_code for _ in range(6)] == [401] * 4 + [429] * 2
        answer = http.get("/v1/stats")
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 60
        assert http.post("/mcp", json=CALL, headers=MCP).status_code == 429
    assert notes(server, "authenticate")["too many wrong proofs of this credential from this source"] == 4
    for good in (key, server.admin_key):
        with server.http(good) as http:
            assert http.get("/v1/stats").status_code == 200


def test_a_source_that_tries_many_keys_is_stopped(server: Served) -> None:
    """Whatever it tries next; what it has that is right still counts."""
    keys = [server.key("read-only", "company_a/*") for _ in range(9)]
    for key in keys:
        with server.http(wrong(key)) as http:
            assert http.get("/v1/stats").status_code == 401
    with server.http(wrong(server.key("read-only", "x/*"))) as http:
        assert http.get("/v1/stats").status_code == 429
    with server.http(server.admin_key) as http:
        assert http.get("/v1/stats").status_code == 200
    assert notes(server, "authenticate")["too many wrong credentials from this source"] == 1
    single = [e for e in server.owner.audit(limit=1000) if e.reason == "the secret is not that of this key"]
    assert len(single) == 9, "what was refused without waiting has an entry of its own"


def test_tokens_and_their_forgeries_count_for_their_key(server: Served) -> None:
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as room:
        _, token = room.tokens_create()
    forged = token[:-6] + "AAAAAA"
    with server.http(forged) as http:
        codes = [http.get("/v1/stats").status_code for _ in range(10)]
    assert codes == [401] * 9 + [429]


def test_the_callers_of_a_tenant_share_its_rate_and_its_turn(tmp_path: Path) -> None:
    """More keys give a tenant neither more requests nor more turns of the workers; another tenant, and a key
    that names none, are not touched by it."""
    guard = GuardConfig(tenant_requests_per_s=1, tenant_burst=6)
    with served(tmp_path / "data", guard=guard) as server:

        def made(tenant: str) -> str:
            return server.owner.keys_create("k", "read-only", ["company_a/*"], tenant=tenant)[1]

        first, second, other, none = made("acme"), made("acme"), made("globex"), made("")
        codes = []
        for key in (first, second):
            with server.http(key) as http:
                codes += [http.get("/v1/namespaces").status_code for _ in range(6)]
        assert codes[:6] == [200] * 6 and 429 in codes[6:]
        for key in (other, none):
            with server.http(key) as http:
                assert [http.get("/v1/namespaces").status_code for _ in range(6)] == [200] * 6
        assert notes(server, "rate")["the tenant asks too often"] >= 1
        queues = {_sign_in._known[_sign_in._mark(key, Connection())] for key in (first, second)}
        assert queues == {b"tenant acme"}
        assert _sign_in._known[_sign_in._mark(none, Connection())] == f"caller {none[8:20]}".encode()


def test_a_caller_that_asks_too_often_is_slowed_down_and_others_are_not(server: Served) -> None:
    """Ten at once, then one a second; by principal, not by connection, and over every surface together."""
    key, other = server.key("read-only", "company_a/*"), server.key("read-only", "company_a/*")
    with server.http(key) as http:
        codes = [http.get("/v1/namespaces").status_code for _ in range(8)]
    with server.http(key) as http:
        codes += [http.get("/v1/namespaces").status_code for _ in range(6)]
    assert codes[:10] == [200] * 10 and 429 in codes[10:]
    with strongroom.connect(server.url, api_key=key, ca=server.ca) as room, pytest.raises(LimitExceededError):
        for _ in range(3):
            room.stats()
    with server.http(other) as http:
        assert http.get("/v1/namespaces").status_code == 200
    assert notes(server, "rate")["the caller asks too often"] >= 2


def test_a_source_that_floods_is_answered_before_anything_is_looked_at(tmp_path: Path) -> None:
    """Even without any credential; probes still answer."""
    with served(tmp_path / "data", guard=GuardConfig(source_requests_per_s=1, source_burst=5)) as server:
        with server.http("") as http:
            codes = [http.get("/v1/stats").status_code for _ in range(12)]
            assert codes[:5] == [401] * 5 and codes.count(429) >= 5
            assert http.get("/healthz").status_code == 200
        assert notes(server, "rate")["too many requests from this source"] >= 5


def test_the_postgres_wire_counts_with_the_same_guards(tmp_path: Path) -> None:
    """Wrong passwords, by SCRAM and in clear, and too many statements."""
    with served(tmp_path / "data", guard=GUARD) as server:
        certificate, private_key = server_files(server.directory, server.config)
        workers = WorkerPool(2, "wire")
        wire = PgwireServer(
            server.engine,
            server.config,
            certificate=certificate,
            private_key=private_key,
            workers=workers,
            log=make_log(server.config.log, server.log),
        )
        with WireThread(wire) as thread:
            here = Wired(
                server.engine, server.config, server.directory, server.ca, thread.port, server.log, thread,
                server.model, server.admin_key,
            )  # fmt: skip
            key = server.key("read-only", "company_a/*")
            for _ in range(2):
                for user in (here.key_id(key), "anybody"):
                    with pytest.raises(psycopg.OperationalError, match="password"):
                        psycopg.connect(here.dsn(wrong(key), user=user))
            with pytest.raises(psycopg.OperationalError, match="too many requests"):
                psycopg.connect(here.dsn(wrong(key)))
            psycopg.connect(here.dsn(key)).close()
            connection = psycopg.connect(here.dsn(server.admin_key), autocommit=True)
            with connection, pytest.raises(psycopg.Error, match="too many requests"):
                for _ in range(20):
                    connection.execute("SELECT count(*) FROM memories")
        workers.close()


def test_what_is_no_credential_at_all_is_noted_in_bulk(server: Served) -> None:
    """Nonsense in the header costs no entry each, and still shows."""
    with server.http("nonsense") as http:
        assert [http.get("/v1/stats").status_code for _ in range(20)] == [401] * 20
    assert notes(server, "authenticate")["not of the form of a key"] == 20


def test_calls_inside_the_process_are_not_limited(server: Served) -> None:
    """The owner of the directory cannot be locked out by whoever knocks at the doors."""
    for _ in range(30):
        server.owner.stats()
        with pytest.raises(UnauthenticatedError):
            server.engine.authenticate(wrong(server.admin_key))
    server.engine.authenticate(server.admin_key).stats()
