"""What is missing from an answer is said with it, on every surface; nothing is left out in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.pgwire.wired import wired
from tests.servers.served import served
from tests.support.database import ledger_file
from tests.support.word_model import WordModel

import strongroom
from strongroom.engine import Engine, Session
from strongroom.errors import DecryptionError, StrongroomError

NS = "company_a/support"
CODES = ["unreadable_memories"]


def damage(directory: Path, memory_id: bytes) -> None:
    """Flip a bit of the sealed content of one memory."""
    db = ledger_file(directory)
    sealed = bytearray(
        db.execute("SELECT sealed FROM record WHERE memory_id=? AND field=0", (memory_id,)).fetchone()[0]  # type: ignore[index]
    )
    sealed[70] ^= 1
    db.execute("UPDATE record SET sealed=? WHERE memory_id=? AND field=0", (bytes(sealed), memory_id))
    db.close()


def fill(session: Session) -> list[bytes]:
    """Three memories of one namespace and one of another."""
    ids = [session.store(f"memory number {i}", namespace=NS).memory_id.bytes for i in range(3)]
    session.store("memory elsewhere", namespace="company_b/support")
    session.flush()
    return ids


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    with served(tmp_path / "data") as running:
        damage(running.directory, fill(running.owner)[0])
        yield running


def codes(answer: Any) -> list[str]:
    return [notice.code for notice in answer.notices]


@pytest.mark.parametrize("restarted", [False, True], ids=["in a running process", "after a restart"])
def test_a_damaged_memory_is_left_out_of_answers_and_they_say_so(
    tmp_path: Path, open_engine: Any, restarted: bool
) -> None:
    """Searches, lists and SQL give the others; what was asked of another namespace has no notice."""
    engine = open_engine()
    session = engine.owner_session("test")
    ids = fill(session)
    assert codes(session.search("memory number", namespaces=[NS])) == []
    damage(tmp_path / "data", ids[0])
    if restarted:
        engine.close()
        session = open_engine().owner_session("test")
    for _ in range(2):
        hits = session.search("memory number", namespaces=[NS])
        assert (len(hits), codes(hits)) == (2, CODES)
        assert hits.notices[0].namespace == NS and hits.notices[0].hint
        page = session.list(namespaces=["*"])
        assert (len(page.memories), codes(page)) == (3, CODES)
        rows = session.sql("SELECT content FROM memories", namespaces=[NS])
        assert (len(rows), codes(rows)) == (2, CODES)
    assert codes(session.search("memory", namespaces=["company_b/support"])) == []
    assert codes(session.sql("SELECT 1")) == []
    with pytest.raises(DecryptionError):
        session.get(UUID(bytes=ids[0]), namespace=NS)
    assert session.delete(UUID(bytes=ids[0]), namespace=NS)
    assert codes(session.search("memory number", namespaces=[NS])) == []
    assert codes(session.list(namespaces=[NS])) == []


def test_a_hybrid_search_without_the_model_says_that_it_went_by_words(open_engine: Any) -> None:
    model = WordModel()
    session = open_engine(provider=model).owner_session("test")
    fill(session)
    model.down = True
    hits = session.search("memory number 2", namespaces=[NS])
    assert (
        hits and codes(hits) == ["query_not_embedded"] and "embedding_unavailable" in hits.notices[0].message
    )
    assert codes(session.search("memory", namespaces=[NS], mode="keyword")) == []
    with pytest.raises(StrongroomError, match="embedding"):
        session.search("memory", namespaces=[NS], mode="semantic")
    model.down = False
    assert codes(session.search("memory number 2", namespaces=[NS])) == []


def test_rest_mcp_and_the_client_hand_notices_on(server: Any) -> None:
    with server.http() as http:
        question = {"query": "memory number", "namespaces": [NS]}
        for path, body in (
            ("/v1/memories:search", question),
            ("/v1/memories:list", {"namespaces": [NS]}),
            ("/v1/sql", {"statement": "SELECT content FROM memories"}),
        ):
            answer = http.post(path, json=body)
            assert [n["code"] for n in answer.json()["notices"]] == CODES, path
            assert answer.json()["notices"][0]["namespace"] == NS
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        for tool, arguments in (
            ("search_memory", question),
            ("list_memories", {"namespaces": [NS]}),
            ("query_memories", {"statement": "SELECT content FROM memories"}),
        ):
            answer = http.post(
                "/mcp",
                json={**call, "params": {"name": tool, "arguments": arguments}},
                headers={"accept": "application/json, text/event-stream"},
            )
            text = answer.text if answer.text.startswith("{") else answer.text.partition("data: ")[2]
            found = json.loads(text)["result"]["structuredContent"]
            assert [n["code"] for n in found["notices"]] == CODES, tool
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca) as remote:
        assert codes(remote.search("memory number", namespaces=[NS])) == CODES
        assert codes(remote.list(namespaces=[NS])) == CODES
        assert codes(remote.sql("SELECT content FROM memories")) == CODES


def test_the_wire_sends_a_warning_before_the_end_of_the_answer(tmp_path: Path) -> None:
    """SELECT, a cursor and COPY alike, beside the sixty memories of this server."""
    with wired(tmp_path / "data") as wire:
        damage(wire.directory, fill(wire.owner)[0])
        told: list[tuple[str, str]] = []
        with psycopg.connect(wire.dsn()) as db:
            db.add_notice_handler(lambda d: told.append((d.sqlstate or "", d.message_primary or "")))
            assert len(db.execute("SELECT content FROM memories").fetchall()) == 63
            assert told == [("01000", f"some memories are damaged and take no part ({NS})")]
            db.execute("DECLARE c CURSOR FOR SELECT content FROM memories")
            assert len(told) == 2
            with db.cursor().copy("COPY (SELECT content FROM memories) TO STDOUT") as copy:
                assert len(list(copy.rows())) == 63
            assert len(told) == 3
            db.execute("SELECT 1").fetchall()
            assert len(told) == 3


@pytest.fixture
def open_engine(tmp_path: Path) -> Iterator[Any]:
    """Opens the store of this test, which is made at first."""
    opened: list[Engine] = []

    def start(provider: Any = None) -> Engine:
        if not (tmp_path / "data").exists():
            strongroom.init(tmp_path / "data")
        engine = Engine.open(tmp_path / "data", provider=provider or WordModel(384))
        opened.append(engine)
        return engine

    yield start
    for engine in opened:
        engine.close()
