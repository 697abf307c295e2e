"""What all connections together may hold, and that no caller keeps the interpreter from the others."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.pgwire.raw import Raw, message, sqlstate, text, tls
from tests.pgwire.wired import Wired, wired

from strongroom.recall.sql import Turns
from strongroom.servers.pgwire import _budget, _session
from strongroom.servers.pgwire._budget import FREE_BYTES, Budget, Share
from strongroom.servers.pgwire._decode import decode_all
from strongroom.servers.pgwire._errors import PgError

LARGE = "SELECT a.content, b.content FROM memories AS a, memories AS b, range(27)"  # 6.6 MB


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    """All connections together may hold 9 MB."""
    with wired(tmp_path_factory.mktemp("narrow") / "data", all_held_bytes_max=9_000_000) as out:
        yield out


def signed_in(wire: Wired, key: str) -> Raw:
    raw = Raw(wire.port)
    raw.start_tls(tls(wire.ca))
    raw.sign_in(key)
    return raw


def held(wire: Wired) -> float:
    found = wire.engine.metrics.registry.get_sample_value("strongroom_pgwire_held_bytes")
    assert found is not None
    return found


def suspended(sql: str) -> bytes:
    """Begin a transaction and fetch one row of a portal, which stays open."""
    parts = [
        message(b"Q", text("BEGIN")),
        message(b"P", text("") + text(sql) + struct.pack("!H", 0)),
        message(b"B", text("p") + text("") + struct.pack("!HHH", 0, 0, 0)),
        message(b"E", text("p") + struct.pack("!i", 1)),
        message(b"S"),
    ]
    return b"".join(parts)


def parse(name: str, sql: str, types: int = 0) -> bytes:
    declared = struct.pack("!H", types) + struct.pack("!I", 23) * types
    return message(b"P", text(name) + text(sql) + declared)


def failed(raw: Raw) -> str:
    """The SQLSTATE of the next error."""
    while True:
        kind, body = raw.one()
        if kind == b"E":
            return sqlstate(body)
        assert kind != b"Z"


def test_who_holds_most_is_refused_and_a_small_question_is_not(narrow: Wired) -> None:
    """Two suspended answers of one key do not fit: 53200 for the second, which can go on asking for less."""
    key = narrow.key()
    with signed_in(narrow, key) as first, signed_in(narrow, key) as second:
        first.send(suspended(LARGE))
        first.until(b"Z")
        assert first.until(b"Z")[-2][0] == b"s"
        assert held(narrow) > 4_500_000
        second.send(message(b"Q", text(LARGE)))
        assert failed(second) == "53200"
        second.until(b"Z")
        second.send(message(b"Q", text("SELECT count(*) FROM memories")))
        assert [k for k, _ in second.until(b"Z")] == [b"T", b"D", b"C", b"Z"]
        first.send(message(b"Q", text("ROLLBACK")))
        first.until(b"Z")
        assert held(narrow) == 0
        second.send(message(b"Q", text(LARGE)))
        assert second.until(b"Z")[-2][0] == b"C"


def test_an_idle_connection_of_whoever_holds_most_makes_room_for_another(narrow: Wired) -> None:
    """One key holds an answer that it does not fetch: 53200 ends it when another key needs the room."""
    with signed_in(narrow, narrow.key()) as greedy, signed_in(narrow, narrow.key()) as other:
        greedy.send(suspended(LARGE))
        greedy.until(b"Z")
        greedy.until(b"Z")
        other.send(message(b"Q", text(LARGE)))
        assert other.until(b"Z")[-2][0] == b"C"
        assert failed(greedy) == "53200"
        assert greedy.read() == b""
    deadline = time.monotonic() + 10
    while held(narrow) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert held(narrow) == 0


def test_who_takes_no_answer_makes_room_for_another(narrow: Wired) -> None:
    """One key asks by the simple protocol and reads nothing: its answer counts, and its connection goes."""
    with Raw(narrow.port) as greedy, signed_in(narrow, narrow.key()) as other:
        greedy.start_tls(tls(narrow.ca))
        greedy.sign_in(narrow.key())
        greedy.send(message(b"Q", text(LARGE)) * 8)
        deadline = time.monotonic() + 10
        while held(narrow) < 4_500_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        while True:  # until the buffers between server and client are full, it is at work
            other.send(message(b"Q", text(LARGE)))
            if other.until(b"Z")[-2][0] == b"C":
                break
            assert time.monotonic() < deadline
        greedy.read()  # whatever was on its way, up to the end of the connection


def test_copy_and_cursors_count(narrow: Wired) -> None:
    """A cursor holds its rows, and COPY is refused while there is no room for it."""
    key = narrow.key()
    with psycopg.connect(narrow.dsn(key)) as first, psycopg.connect(narrow.dsn(key)) as second:
        first.execute(f"DECLARE held CURSOR FOR {LARGE}")
        with (
            pytest.raises(psycopg.errors.OutOfMemory),
            second.cursor().copy(f"COPY ({LARGE}) TO STDOUT") as out,
        ):
            out.read()
        first.rollback()
        second.rollback()
        with second.cursor().copy(f"COPY ({LARGE}) TO STDOUT") as out:
            assert sum(1 for _ in out) > 1


def test_messages_that_are_never_whole_count(narrow: Wired) -> None:
    """Megabytes of a message whose end does not come: the connection ends with 53200."""
    with signed_in(narrow, narrow.key()) as raw:
        raw.send(b"Q" + struct.pack("!I", 16_000_000) + b"x" * 12_000_000)
        assert failed(raw) == "53200"
        assert raw.read() == b""


def test_names_and_declared_types_are_bounded(tmp_path: Path) -> None:
    """A thousand statements with names of megabytes, or with all types that fit, would be gigabytes."""
    with wired(tmp_path / "data", held_bytes_max=4_000_000) as wire, signed_in(wire, wire.admin_key) as raw:
        for kind in (
            parse("n" * 2_000, "SELECT 1"),
            b"".join(parse(f"s{n}", "SELECT 1", 65_535) for n in range(3)),
        ):
            raw.send(kind + message(b"S"))
            assert failed(raw) == ("42622" if b"nnn" in kind else "53400")
            raw.until(b"Z")
        raw.send(message(b"B", text("p" * 2_000) + text("") + bytes(6)) + message(b"S"))
        assert failed(raw) in ("42622", "26000")
        raw.until(b"Z")


def test_elements_of_array_parameters_are_bounded() -> None:
    """They take fifty times the room of their text: the millionth is not made."""
    array = ("{" + ",".join("1" * 90_000) + "}").encode()
    assert decode_all([array, None], (1007, 25), (0, 0))[1] == 90_000
    with pytest.raises(PgError) as refused:
        decode_all([array] * 20, (1007,) * 20, (0,) * 20)
    assert refused.value.sqlstate == "54000"


def test_answers_about_the_catalogue_are_bounded(narrow: Wired) -> None:
    """Rows of the catalogue multiplied with each other end at a limit of bytes, with 54000."""
    with psycopg.connect(narrow.dsn(), autocommit=True) as c:
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            c.execute(
                "SELECT a.*, b.*, c.* FROM pg_type AS a, pg_type AS b, pg_class AS c LIMIT 99000"
            ).fetchall()
        assert c.execute("SELECT count(*) FROM pg_class").fetchone() is not None


# -- the count by itself -------------------------------------------------------------------------------------
def shares(budget: Budget, *callers: str) -> tuple[list[Share], list[Share]]:
    ended: list[Share] = []
    made = [Share(budget, caller, lambda: None) for caller in callers]
    for share in made:
        share.end = lambda s=share: ended.append(s)  # type: ignore[misc]
    return made, ended


def test_the_longest_waiting_connection_of_the_largest_caller_goes_first() -> None:
    """Of two idle connections of the largest caller the one goes that has waited longer, and no small one."""
    budget = Budget(1_000)
    (a, b, small, asking), ended = shares(budget, "greedy", "greedy", "small", "other")
    for share, count in ((a, 400), (b, 400), (small, 150)):
        share.hold(FREE_BYTES + count)
        share.wait()
    asking.hold(FREE_BYTES + 300)
    assert (ended, budget.bytes) == ([a], 850)
    with pytest.raises(PgError) as gone:
        a.hold(0)
    assert (gone.value.sqlstate, gone.value.fatal) == ("53200", True)
    budget.leave(a)
    assert budget.bytes == 850


def test_nobody_goes_for_a_request_that_does_not_fit_anyway() -> None:
    """A request larger than all there is, or while the largest caller works, is refused and ends nobody."""
    budget = Budget(1_000)
    (busy, idle, asking), ended = shares(budget, "greedy", "greedy", "other")
    busy.hold(FREE_BYTES + 600)
    idle.hold(FREE_BYTES + 300)
    idle.wait()
    for more in (2_000, 500):
        with pytest.raises(PgError):
            asking.hold(FREE_BYTES + more)
    assert (ended, budget.bytes, asking.bytes) == ([], 900, 0)


def test_a_callers_own_connections_make_room_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that forgets its open cursors gets its answers again, once those have been idle for long."""
    budget = Budget(1_000)
    (forgotten, asking), ended = shares(budget, "one", "one")
    forgotten.hold(FREE_BYTES + 900)
    forgotten.wait()
    with pytest.raises(PgError):
        asking.hold(FREE_BYTES + 500)
    monkeypatch.setattr(_budget, "_PATIENCE_S", -1.0)
    asking.hold(FREE_BYTES + 500)
    assert ended == [forgotten]


# -- turns ---------------------------------------------------------------------------------------------------
def test_the_turn_of_a_caller_is_one_and_is_not_kept() -> None:
    """The same lock for the same caller while somebody has it; no list of callers that grows."""
    turns = Turns()
    mine, same, other = turns.of("a"), turns.of("a"), turns.of("b")
    assert mine is same
    assert mine is not other
    del mine, same, other
    assert not turns._locks


@pytest.mark.parametrize("keys", [1, 2])
def test_messages_of_one_caller_are_read_one_after_the_other(
    narrow: Wired, monkeypatch: pytest.MonkeyPatch, keys: int
) -> None:
    """Two connections send Parse: of one key one at a time is at it, of two keys both are."""
    at, most, plan, both = [0], [0], _session.plan, threading.Event()

    def slow(*args: object) -> object:
        at[0] += 1
        most[0] = max(most[0], at[0])
        if at[0] == 2:
            both.set()
        both.wait(0.3)
        at[0] -= 1
        return plan(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(_session, "plan", slow)
    names = [narrow.key() for _ in range(keys)] * 2
    with signed_in(narrow, names[0]) as first, signed_in(narrow, names[1]) as second:
        for raw in (first, second):
            raw.send(parse("", "SELECT 1") + message(b"S"))
        for raw in (first, second):
            raw.until(b"Z")
    assert most == [keys]
