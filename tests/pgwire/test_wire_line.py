"""Connections after signing in: each has a thread of its own, which ends whatever the client does."""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pgwire.raw import Raw, kinds, message, sqlstate, startup, text, tls
from tests.pgwire.wired import Wired, wired

from strongroom.servers.pgwire import _line

LONG = "SELECT count(*) FROM range(1000000000) AS a, range(1000000000) AS b"


def lines() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("strongroom-pgwire-")}


def wait_until_gone(threads: set[threading.Thread], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not any(t.is_alive() for t in threads)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Wired]:
    with wired(tmp_path / "data", send_timeout_ms=500) as wire:
        yield wire


def signed_in(wire: Wired) -> tuple[Raw, set[threading.Thread]]:
    before = lines()
    raw = Raw(wire.port)
    raw.start_tls(tls(wire.ca))
    raw.sign_in(wire.admin_key)
    return raw, lines() - before


def test_a_statement_of_a_client_that_has_hung_up_is_cancelled(own: Wired) -> None:
    """The client is killed while its statement runs: it ends long before its own limit of 30 s."""
    raw, mine = signed_in(own)
    raw.send(message(b"Q", text(LONG)))
    time.sleep(0.3)
    raw.socket.close()
    wait_until_gone(mine, 10)
    assert [e.outcome for e in own.owner.audit(limit=3) if e.surface == "pgwire"][-1] == "timeout"


def test_a_client_that_takes_no_answer_is_dropped(own: Wired) -> None:
    """It asks for much and reads nothing: after the time limit for sending its thread is gone."""
    raw, mine = signed_in(own)
    statement = "SELECT a.content, b.content FROM memories AS a, memories AS b, range(13)"  # 4 MB
    raw.send(message(b"Q", text(statement)) * 8)
    wait_until_gone(mine, 20)
    raw.socket.close()


def test_what_is_sent_together_with_the_credential_is_answered(own: Wired) -> None:
    """Statements that arrive with the last bytes of signing in are not lost between event loop and thread."""
    with Raw(own.port) as raw:
        raw.start_tls(tls(own.ca))
        raw.send(startup(user="anybody", database="strongroom"))
        raw.one()
        asked = message(b"Q", text("SELECT count(*) FROM memories"))
        raw.send(message(b"p", text(own.admin_key)) + asked + asked)
        raw.until(b"Z")
        for _ in range(2):
            assert kinds(raw.until(b"Z")) == "TDCZ"


def test_many_connections_are_answered_side_by_side_and_leave_no_thread(own: Wired) -> None:
    """Twenty clients ask at once, more than the pool has places; afterwards their threads are gone."""
    before = lines()
    failed: list[BaseException] = []

    def client() -> None:
        import psycopg

        try:
            with psycopg.connect(own.dsn(user="anybody"), autocommit=True) as c:
                for _ in range(5):
                    assert c.execute("SELECT count(*) FROM memories").fetchone() == (60,)
        except BaseException as e:
            failed.append(e)

    clients = [threading.Thread(target=client) for _ in range(20)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert not failed
    wait_until_gone(lines() - before, 20)
    deadline = time.monotonic() + 20
    while own.engine.metrics.registry.get_sample_value("strongroom_pgwire_connections"):  # soon after
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_time_limit_that_comes_late_cancels_nothing_that_came_after() -> None:
    """The timer fires when its statement has just ended: the next one is left alone."""
    cancelled: list[str] = []
    limit = _line._Limit(cancelled.append, 60_000)
    limit._reached()
    assert cancelled == ["statement timeout"]
    limit.over()
    limit._reached()
    assert cancelled == ["statement timeout"]
    assert not limit._timer.is_alive() or limit._timer.finished.is_set()


def test_without_a_thread_to_keep_its_limit_a_statement_is_refused_and_the_session_goes_on(
    own: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of threads a statement with a time limit of its own does not run without one."""
    raw, _ = signed_in(own)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def asked(statement: str) -> str:
        raw.send(message(b"Q", text(statement)))
        return kinds(raw.until(b"Z"))

    with raw:
        assert asked("SELECT count(*) FROM memories; SET statement_timeout = '5s'") == "TDCCZ"
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert asked("SELECT count(*) FROM memories") == "EZ"
        assert asked("SELECT count(*) FROM memories") == "TDCZ"


def test_a_cancellation_is_heard_while_every_place_is_taken(own: Wired) -> None:
    """Two callers fill the pool with long statements: whoever wants one stopped does not wait for a place."""
    import psycopg

    statement = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b"

    ended: list[str] = []

    def long(c: psycopg.Connection) -> None:
        try:
            c.execute(statement)
        except psycopg.Error as e:
            ended.append(str(e.sqlstate))

    other = own.key("admin", "*")
    callers = [own.admin_key] * 3 + [other] * 3
    connections = [psycopg.connect(own.dsn(key), autocommit=True) for key in callers]
    threads = [threading.Thread(target=long, args=(c,)) for c in connections]
    for thread in threads:
        thread.start()
    time.sleep(1)
    began = time.monotonic()
    for c in connections:
        c.cancel_safe(timeout=20)
    for thread in threads:
        thread.join(60)
    for c in connections:
        c.close()
    assert ended == ["57014"] * 6
    assert time.monotonic() - began < 20  # each has 30 s


def test_statements_that_are_remembered_follow_settings_and_types(own: Wired) -> None:
    """The same text again, after a setting it reads or the type of its parameter has changed."""
    import psycopg

    with psycopg.connect(own.dsn(user="anybody"), autocommit=True) as c:
        for name in ("one", "two"):
            c.execute(f"SET application_name = '{name}'")
            for _ in range(2):
                assert c.execute("SELECT current_setting('application_name')").fetchone() == (name,)
        for _ in range(2):
            c.execute("SET application_name = 'before'")
            assert c.execute("SELECT set_config('application_name', 'after', false)").fetchone() == ("after",)
            assert c.execute("SHOW application_name").fetchone() == ("after",)
        for value in (1, "text", 2.5, True, 1):
            assert c.execute("SELECT %s AS x", [value]).fetchone() == (value,)
        for _ in range(2):
            assert c.execute("SELECT count(*) FROM memories WHERE kind = %s", ["fact"]).fetchone() == (12,)
            found = c.execute(
                "SELECT count(*) FROM pg_class AS c, memories AS m WHERE c.relname = 'memories'"
            )
            assert found.fetchone() == (60,)


def test_set_config_sets_and_its_local_form_ends_with_the_transaction(own: Wired) -> None:
    """What the function says it has set is set: the client is told, and a value that cannot be is refused."""
    import psycopg

    def shown(c: psycopg.Connection) -> object:
        return c.execute("SHOW application_name").fetchone()

    with psycopg.connect(own.dsn(user="anybody"), autocommit=True) as c:
        c.execute("SELECT set_config('application_name', 'mine', false)")
        assert c.info.parameter_status("application_name") == "mine" and shown(c) == ("mine",)
        c.execute("SELECT set_config('application_name', 'gone', true)")
        assert shown(c) == ("mine",)
        with c.transaction():
            c.execute("SELECT set_config('application_name', 'inside', true)")
            assert shown(c) == ("inside",)
        assert shown(c) == ("mine",)
        with pytest.raises(psycopg.Error) as refused:
            c.execute("SELECT set_config('transaction_read_only', 'off', false)")
        assert refused.value.sqlstate == "25006"
        c.execute("SELECT set_config('strongroom.purpose', 'audit', false), count(*) FROM memories")
        assert c.execute("SELECT count(*) FROM memories").fetchone() == (60,)
    asked = [e for e in own.owner.audit(limit=20) if e.surface == "pgwire" and e.action == "sql"]
    assert dict(asked[-1].details)["purpose"] == "audit"


def test_what_a_connection_holds_open_is_bounded_and_given_back(tmp_path: Path) -> None:
    """Prepared statements, parameters, portals and cursors count in bytes: over the limit 53400."""
    import psycopg

    big = "SELECT range AS a, range AS b FROM range(60000)"  # about a megabyte
    long = "SELECT " + "1, " * 4_000 + "1"

    def refused(c: psycopg.Connection, statement: str) -> str | None:
        with pytest.raises(psycopg.Error) as caught:
            for n in range(12):
                c.execute(statement.format(n))
        return caught.value.sqlstate

    with wired(tmp_path / "data", held_bytes_max=4_000_000) as wire:
        with psycopg.connect(wire.dsn(user="anybody")) as c:
            assert refused(c, f"DECLARE c{{}} CURSOR FOR {big}") == "53400"
            c.rollback()
            for n in range(12):  # to the end: such a one holds nothing
                c.execute(f"DECLARE c{n} CURSOR FOR {big}")
                c.execute(f"MOVE ALL c{n}")
            c.rollback()
            assert refused(c, f"PREPARE s{{}} AS {long}") == "53400"
            c.rollback()
            c.execute("DEALLOCATE ALL")
            c.execute(f"PREPARE again AS {long}")
        value = b"x" * 1_000_000
        raw, _ = signed_in(wire)
        with raw:
            raw.send(message(b"P", b"s\0" + text("SELECT $1::text") + b"\0\0"))
            given = b"s\0\0\0" + struct.pack("!HI", 1, len(value)) + value + b"\0\0"
            for n in range(6):
                raw.send(message(b"B", text(f"p{n}") + given))
            raw.send(message(b"S"))
            found = raw.until(b"Z")
            assert kinds(found) == "1222EZ"
            assert b"53400" in dict(found)[b"E"]
            raw.send(message(b"B", text("again") + given) + message(b"S"))
            assert kinds(raw.until(b"Z")) == "2Z"


def test_answers_that_no_sync_ever_follows_are_sent_and_not_kept(own: Wired) -> None:
    """A client that describes for ever and neither reads nor syncs is dropped; nothing piles up for it."""
    raw, mine = signed_in(own)
    many = ", ".join(f"{n} AS a_column_with_a_name_{n}" for n in range(500))
    raw.send(message(b"P", b"s\0" + text(f"SELECT {many}") + b"\0\0") + message(b"D", b"Ss\0") * 2000)
    wait_until_gone(mine, 30)  # 40 MB of descriptions, of which the socket takes few
    raw.socket.close()


def test_what_a_looked_up_row_holds_is_told_without_a_table(
    own: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on what a connection holds costs a look-up no Arrow table."""
    import psycopg

    from strongroom.recall.sql.few import FewRows

    made: list[FewRows] = []
    arrow = FewRows.arrow

    def watched(self: FewRows) -> object:
        made.append(self)
        return arrow(self)

    monkeypatch.setattr(FewRows, "arrow", watched)
    memory = own.owner.list(namespaces=["*"], limit=1).memories[0]
    with psycopg.connect(own.dsn(user="anybody"), autocommit=True) as c:
        for _ in range(3):
            found = c.execute("SELECT content FROM memories WHERE memory_id = %s", [memory.memory_id])
            assert found.fetchone() == (memory.content,)
    assert not made


@pytest.mark.parametrize("where", ["os.dup", "socket.socket.dup"])
def test_who_comes_when_there_are_no_descriptors_left_is_told_53300(
    own: Wired, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Signed in, but the process may open no more files: a refusal that clients know; the next gets in."""

    def full(*_: object) -> int:
        monkeypatch.undo()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Raw(own.port) as raw:
        raw.start_tls(tls(own.ca))
        raw.send(startup(user="anybody", database="strongroom"))
        raw.one()
        monkeypatch.setattr(where, full)
        raw.send(message(b"p", text(own.admin_key)))
        kind, body = raw.one()
        assert (kind, sqlstate(body)) == (b"E", "53300")
        assert raw.read() == b""
    with Raw(own.port) as raw:
        raw.start_tls(tls(own.ca))
        assert kinds(raw.sign_in(own.admin_key))[-1] == "Z"
    assert not any(line["event"] == "unexpected_error" for line in own.log_lines())
