"""Rights that end while a session over the wire is open: nothing more comes out of what was begun."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pgwire.raw import Raw, kinds, message, sqlstate, text, tls
from tests.pgwire.test_wire_protocol import FLUSH, SYNC, bind, describe, execute, parse, query
from tests.pgwire.wired import Wired, wired

from strongroom.config import AccessConfig

ROWS = "SELECT content FROM memories WHERE namespace LIKE 'company_a/%'"


@pytest.fixture
def key(wire: Wired) -> str:
    return wire.key("read-only", "company_a/*")


@pytest.fixture
def raw(wire: Wired, key: str) -> Iterator[Raw]:
    with Raw(wire.port) as client:
        client.start_tls(tls(wire.ca))
        client.sign_in(key)
        yield client


def revoke(wire: Wired, key: str) -> None:
    wire.owner.keys_revoke(wire.key_id(key))


def the_rest(raw: Raw) -> tuple[str, list[str]]:
    """What comes until the connection ends: kinds of messages, and SQLSTATEs."""
    found: list[tuple[bytes, bytes]] = []
    try:
        while True:
            found.append(raw.one())
    except (EOFError, OSError):
        return kinds(found), [sqlstate(body) for kind, body in found if kind == b"E"]


def is_denied(wire: Wired, key: str) -> bool:
    last = list(wire.owner.audit(limit=5))[-1]
    return (last.principal, last.outcome) == (wire.key_id(key), "denied") and "revoked" in last.reason


def test_a_suspended_portal_gives_no_more_rows_after_the_revocation(wire: Wired, key: str, raw: Raw) -> None:
    """Rows that the server holds ready already are not given either."""
    raw.send(parse(ROWS) + bind("p") + execute("p", 3) + FLUSH)
    assert kinds(raw.until(b"s")) == "12DDDs"
    revoke(wire, key)
    raw.send(execute("p", 3) + SYNC)
    assert the_rest(raw) == ("E", ["28000"])
    assert is_denied(wire, key)


def test_a_described_portal_gives_no_rows_after_the_revocation(wire: Wired, key: str, raw: Raw) -> None:
    """Describing has opened the query; what it found is not given to a key that is revoked before Execute."""
    raw.send(parse(ROWS) + bind("p") + describe(b"P", "p") + FLUSH)
    assert kinds(raw.until(b"T")) == "12T"
    revoke(wire, key)
    raw.send(execute("p") + SYNC)
    assert the_rest(raw) == ("E", ["28000"])
    assert is_denied(wire, key)


def test_a_cursor_that_was_never_fetched_from_gives_nothing_after_the_revocation(
    wire: Wired, key: str, raw: Raw
) -> None:
    """DECLARE has run the query; the first FETCH looks at the credential like all that follow."""
    query(raw, f"BEGIN; DECLARE c CURSOR FOR {ROWS}")
    revoke(wire, key)
    raw.send(message(b"Q", text("FETCH 5 FROM c")))
    assert the_rest(raw) == ("E", ["28000"])
    assert is_denied(wire, key)


def test_a_prepared_statement_is_refused_after_the_revocation(wire: Wired, key: str, raw: Raw) -> None:
    """Bound or not, by message or by name."""
    raw.send(parse(ROWS, "s") + describe(b"S", "s") + bind("p", "s") + SYNC)
    raw.until(b"Z")
    revoke(wire, key)
    raw.send(bind("p", "s") + execute("p") + SYNC)
    kinds_seen, states = the_rest(raw)
    assert "D" not in kinds_seen and states == ["28000"]
    assert is_denied(wire, key)


def test_a_copy_under_way_ends_soon_after_the_revocation(wire: Wired, key: str) -> None:
    """A client that stops reading, and reads on after the revocation, gets what was on its way alone."""
    wire.owner.store_many([{"content": "x " * 8_000, "namespace": "company_a/big"}] * 20)
    memories = wire.owner.stats(["company_a/*"]).memories
    big = "SELECT a.content FROM memories a, memories b WHERE a.namespace = 'company_a/big'"
    with Raw(wire.port) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.start_tls(tls(wire.ca))
        raw.sign_in(key)
        raw.send(message(b"Q", text(f"COPY ({big}) TO STDOUT")))
        assert raw.one()[0] == b"H"
        whole = 1
        revoke(wire, key)
        last = b""
        while True:
            try:
                kind, body = raw.one()
            except (EOFError, OSError):
                break
            whole += kind == b"d"
            last = body if kind == b"E" else last
        assert sqlstate(last) == "28000"
    assert whole < 20 * memories
    assert is_denied(wire, key)


PERMIT = '@id("all") permit (principal, action, resource);'


def test_other_policies_end_an_open_cursor(tmp_path: Path) -> None:
    """What a cursor found under policies that are not in force any more is not given."""
    folder = tmp_path / "data" / "policies"
    folder.mkdir(parents=True)
    (folder / "a.cedar").write_text(PERMIT)
    with (
        wired(tmp_path / "data", access=AccessConfig(policy_directory="policies")) as wire,
        Raw(wire.port) as raw,
    ):
        raw.start_tls(tls(wire.ca))
        raw.sign_in(wire.key("read-only", "company_a/*"))
        query(raw, f"BEGIN; DECLARE c CURSOR FOR {ROWS}")
        assert kinds(query(raw, "FETCH 2 FROM c")) == "TDDCZ"
        (folder / "a.cedar").write_text(
            '@id("none") forbid (principal, action == Action::"search", resource);' + PERMIT
        )
        wire.engine.policies._look_at = 0.0
        found = query(raw, "FETCH 2 FROM c")
        assert kinds(found) == "TEZ" and sqlstate(found[1][1]) == "42501"
        last = list(wire.owner.audit(limit=1))[-1]
        assert (last.action, last.outcome) == ("sql", "denied") and "has changed" in last.reason


def test_an_elevation_that_ends_ends_the_cursor_that_it_opened(wire: Wired, key: str, raw: Raw) -> None:
    """What was found by rights that were lent is not given when they are taken back; new ones end nothing."""
    session = wire.engine.authenticate(key)
    query(raw, f"BEGIN; DECLARE before CURSOR FOR {ROWS}")
    lent = wire.owner.elevations_approve(
        session.elevations_request("read-only", ["company_b/*"], "incident", minutes=5).id
    )
    query(raw, "DECLARE during CURSOR FOR SELECT content FROM memories WHERE namespace LIKE 'company_b/%'")
    assert kinds(query(raw, "FETCH 1 FROM before")) == "TDCZ"
    assert kinds(query(raw, "FETCH 1 FROM during")) == "TDCZ"
    wire.owner.elevations_revoke(lent.id)
    assert kinds(query(raw, "FETCH 1 FROM before")) == "TDCZ"
    assert kinds(query(raw, "FETCH 1 FROM during")) == "TEZ"
