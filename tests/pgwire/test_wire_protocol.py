"""The conversation after start-up, message by message."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from tests.pgwire.raw import Raw, kinds, message, sqlstate, text, tls
from tests.pgwire.wired import Wired

SYNC = message(b"S")
FLUSH = message(b"H")


@pytest.fixture
def raw(wire: Wired) -> Iterator[Raw]:
    with Raw(wire.port) as client:
        client.start_tls(tls(wire.ca))
        client.sign_in(wire.admin_key)
        yield client


def parse(sql: str, name: str = "", *types: int) -> bytes:
    body = text(name) + text(sql) + struct.pack("!H", len(types))
    return message(b"P", body + b"".join(struct.pack("!I", t) for t in types))


def bind(portal: str = "", name: str = "", values: tuple[bytes | None, ...] = (), *results: int) -> bytes:
    body = text(portal) + text(name) + struct.pack("!HH", 0, len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    results = results or (0,)
    return message(b"B", body + struct.pack(f"!H{len(results)}h", len(results), *results))


def describe(kind: bytes, name: str = "") -> bytes:
    return message(b"D", kind + text(name))


def execute(portal: str = "", limit: int = 0) -> bytes:
    return message(b"E", text(portal) + struct.pack("!i", limit))


def query(raw: Raw, sql: str) -> list[tuple[bytes, bytes]]:
    raw.send(message(b"Q", text(sql)))
    return raw.until(b"Z")


def errors(found: list[tuple[bytes, bytes]]) -> list[str]:
    return [sqlstate(body) for kind, body in found if kind == b"E"]


def tags(found: list[tuple[bytes, bytes]]) -> list[str]:
    return [body[:-1].decode() for kind, body in found if kind == b"C"]


def test_the_session_begins_with_what_clients_look_for(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        found = raw.sign_in(wire.admin_key, application_name="my app", options="-c statement_timeout=5s")
        said = dict(body[:-1].split(b"\0") for kind, body in found if kind == b"S")
        assert said[b"server_version"] == b"15.0"
        assert said[b"client_encoding"] == b"UTF8"
        assert said[b"application_name"] == b"my app"
        assert said[b"TimeZone"] == b"UTC"
        assert tags(query(raw, "SHOW statement_timeout")) == ["SHOW"]


def test_a_prepared_statement_answers_in_the_formats_of_each_bind(raw: Raw) -> None:
    """Text, binary, one of each and text again: description and row follow; formats for another number of
    columns are refused, for a query and for SHOW, and the session goes on."""
    raw.send(parse("SELECT 7 AS a, 'x' AS b", "s") + parse("SHOW server_version", "v") + SYNC)
    raw.until(b"Z")
    for formats, first in (
        ((0,), b"7"),
        ((1,), struct.pack("!i", 7)),
        ((1, 0), struct.pack("!i", 7)),
        ((0,), b"7"),
    ):
        raw.send(bind("", "s", (), *formats) + describe(b"P") + execute() + SYNC)
        found = raw.until(b"Z")
        assert kinds(found) == "2TDCZ"
        told, row = found[1][1], found[2][1]
        said = [told[at + 17] for at in (told.index(b"a\0") + 2, told.index(b"b\0") + 2)]
        assert said == list(formats * 2)[:2]
        assert row == struct.pack("!Hi", 2, len(first)) + first + struct.pack("!i", 1) + b"x"
    for name in ("s", "v"):
        raw.send(bind("", name, (), 0, 0, 1) + describe(b"P") + execute() + SYNC)
        assert errors(raw.until(b"Z")) == ["08P01"], name
    assert tags(query(raw, "SELECT 1")) == ["SELECT 1"]


def test_several_statements_of_one_query_answer_in_turn_and_stop_at_the_first_error(raw: Raw) -> None:
    found = query(raw, "SELECT 1; SELECT 'a;b'; /* ; */ SELECT nope FROM memories; SELECT 2")
    assert kinds(found) == "TDCTDCEZ"
    assert errors(found) == ["42703"]
    assert found[-1][1] == b"I"


def test_an_empty_query_has_an_answer_of_its_own(raw: Raw) -> None:
    assert kinds(query(raw, " ; -- nothing\n")) == "IZ"


def test_rows_are_handed_out_in_portions_until_the_portal_is_done(raw: Raw) -> None:
    raw.send(parse("SELECT content FROM memories") + bind("p") + execute("p", 25) + execute("p", 25) + FLUSH)
    first = raw.until(b"s") + raw.until(b"s")
    raw.send(execute("p", 25) + SYNC)
    last = raw.until(b"Z")
    assert kinds(first) == "12" + "D" * 25 + "s" + "D" * 25 + "s"
    assert kinds(last) == "D" * 10 + "CZ"
    assert tags(last) == ["SELECT 10"]


def test_a_portal_outside_a_transaction_ends_with_sync(raw: Raw) -> None:
    raw.send(parse("SELECT 1") + bind("p") + SYNC)
    raw.until(b"Z")
    raw.send(execute("p") + SYNC)
    assert errors(raw.until(b"Z")) == ["34000"]


def test_a_portal_inside_a_transaction_lives_until_its_end(raw: Raw) -> None:
    query(raw, "BEGIN")
    raw.send(parse("SELECT content FROM memories") + bind("p") + execute("p", 5) + SYNC)
    raw.until(b"Z")
    raw.send(execute("p", 5) + SYNC)
    assert kinds(raw.until(b"Z")) == "DDDDDsZ"
    query(raw, "COMMIT")
    raw.send(execute("p") + SYNC)
    assert errors(raw.until(b"Z")) == ["34000"]


def test_after_an_error_everything_up_to_sync_is_skipped(raw: Raw) -> None:
    wrong = parse("SELECT nope FROM memories") + bind() + execute()
    raw.send(
        wrong + parse("SELECT 1") + bind() + execute() + SYNC + parse("SELECT 2") + bind() + execute() + SYNC
    )
    assert kinds(raw.until(b"Z")) == "12EZ"
    assert kinds(raw.until(b"Z")) == "12DCZ"


def test_an_error_reaches_a_client_that_sent_flush_only(raw: Raw) -> None:
    raw.send(parse("SELECT nope FROM memories", "s") + describe(b"S", "s") + FLUSH)
    assert errors(raw.until(b"E")) == ["42703"]
    raw.send(SYNC)
    assert kinds(raw.until(b"Z")) == "Z"


def test_statements_are_described_with_inferred_types(raw: Raw) -> None:
    sql = (
        "SELECT content, importance, tags FROM memories WHERE access_count = $1 AND agent_id = $2"
        " AND importance > $3 AND agent_id = ANY($4) AND memory_id = $5::uuid AND created_at < $6 LIMIT $7"
    )
    raw.send(parse(sql, "s") + describe(b"S", "s") + SYNC)
    found = dict(raw.until(b"Z"))
    oids = struct.unpack("!H7I", found[b"t"])[1:]
    assert oids == (20, 25, 701, 1009, 2950, 1184, 20)
    assert found[b"T"].startswith(struct.pack("!H", 3) + b"content\0")


def test_names_of_columns_are_those_of_postgresql(raw: Raw) -> None:
    sql = (
        "SELECT 1, upper('x') AS up, 'a'::text, importance::int, max(m.importance) OVER (), lower(kind),"
        " m.content, CASE WHEN true THEN 1 END, (SELECT 1), true, DATE '2024-01-01' FROM memories m"
    )
    found = dict(query(raw, sql))
    body, names = found[b"T"][2:], []
    while body:
        name, _, rest = body.partition(b"\0")
        names.append(name.decode())
        body = rest[18:]
    assert names == [
        "?column?", "up", "text", "importance", "max", "lower", "content", "case", "?column?", "bool", "date"
    ]  # fmt: skip
    assert b"count\0" in dict(query(raw, "SELECT count(*) FROM memories"))[b"T"]


def test_the_same_statement_may_not_be_made_twice_but_closed_and_made_anew(raw: Raw) -> None:
    raw.send(parse("SELECT 1", "s") + SYNC)
    raw.until(b"Z")
    raw.send(parse("SELECT 2", "s") + SYNC)
    assert errors(raw.until(b"Z")) == ["42P05"]
    raw.send(message(b"C", b"S" + text("s")) + parse("SELECT 2", "s") + SYNC)
    assert kinds(raw.until(b"Z")) == "31Z"
    assert tags(query(raw, "DEALLOCATE s")) == ["DEALLOCATE"]
    raw.send(bind("", "s") + SYNC)
    assert errors(raw.until(b"Z")) == ["26000"]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM nope", "42P01"),
        ("SELECT nope FROM memories", "42703"),
        ("SELEC 1", "42601"),
        ("SELECT nofunction(1)", "42883"),
        ("SELECT 'x'::int", "22P02"),
        ("INSERT INTO memories VALUES (1)", "25006"),
        ("DROP TABLE memories", "25006"),
        ("COPY memories FROM STDIN", "25006"),
        ("COPY memories TO '/tmp/x'", "42501"),
        ("SET nope = 1", "42704"),
        ("SHOW nope", "42704"),
        ("SET client_encoding = latin1", "22023"),
        ("SET server_version = '9'", "55P02"),
        ("SET default_transaction_read_only = off", "25006"),
        ("BEGIN READ WRITE", "25006"),
        ("SAVEPOINT a", "25P01"),
        ("FETCH 1 FROM nope", "34000"),
        ("DECLARE c CURSOR FOR SELECT 1", "25P01"),
        ("SELECT * FROM pg_catalog.pg_nope", "42P01"),
        ("SELECT current_setting('nope')", "42704"),
    ],
)
def test_errors_have_the_code_that_clients_expect(raw: Raw, sql: str, code: str) -> None:
    found = query(raw, sql)
    assert errors(found) == [code]


def test_a_syntax_error_tells_its_place_in_the_whole_query(raw: Raw) -> None:
    found = dict(query(raw, "SELECT 1; SELEC 2"))
    fields = {part[:1]: part[1:] for part in found[b"E"].split(b"\0") if part}
    assert fields[b"P"] == b"11"


def test_a_failed_transaction_takes_nothing_but_its_end(raw: Raw) -> None:
    assert query(raw, "BEGIN")[-1][1] == b"T"
    assert query(raw, "SELECT nope FROM memories")[-1][1] == b"E"
    for sql in ("SELECT 1", "SHOW search_path", "SAVEPOINT a", "COPY (SELECT 1) TO STDOUT"):
        assert errors(query(raw, sql)) == ["25P02"]
    found = query(raw, "COMMIT")
    assert (tags(found), found[-1][1]) == (["ROLLBACK"], b"I")


def test_savepoints_bring_a_failed_transaction_back(raw: Raw) -> None:
    query(raw, "BEGIN; SAVEPOINT a; SAVEPOINT b")
    assert query(raw, "SELECT nope FROM memories")[-1][1] == b"E"
    assert query(raw, "ROLLBACK TO SAVEPOINT a")[-1][1] == b"T"
    assert errors(query(raw, "RELEASE b")) == ["3B001"]
    assert tags(query(raw, "ROLLBACK; SELECT 1")) == ["ROLLBACK", "SELECT 1"]


def test_settings_follow_transactions(raw: Raw) -> None:
    def show(name: str) -> bytes:
        return dict(query(raw, f"SHOW {name}"))[b"D"][6:]

    found = query(raw, "SET application_name = 'one'")
    assert b"application_name\0one\0" in dict(found)[b"S"]
    query(raw, "BEGIN; SET application_name = 'two'; ROLLBACK")
    assert show("application_name") == b"one"
    query(raw, "BEGIN; SET LOCAL search_path = other; COMMIT")
    assert show("search_path") == b'"$user", public'
    query(raw, "SET my.own = 'x'")
    assert show("my.own") == b"x"
    query(raw, "RESET ALL")
    assert show("application_name") == b""


def test_times_stay_in_utc_and_that_is_said(raw: Raw) -> None:
    found = query(raw, "SET TimeZone = 'Europe/Berlin'")
    assert kinds(found) == "NCZ"
    assert dict(query(raw, "SHOW TIME ZONE"))[b"D"][6:] == b"UTC"
    assert errors(query(raw, "SET TimeZone = 'Nowhere/At All'")) == ["22023"]


def test_cursors_of_sql_are_fetched_in_portions(raw: Raw) -> None:
    found = query(raw, "BEGIN; DECLARE c CURSOR FOR SELECT content FROM memories; FETCH 3 FROM c;"
                       " MOVE 50 IN c; FETCH ALL FROM c; CLOSE c; COMMIT")  # fmt: skip
    assert tags(found) == [
        "BEGIN",
        "DECLARE CURSOR",
        "FETCH 3",
        "MOVE 50",
        "FETCH 7",
        "CLOSE CURSOR",
        "COMMIT",
    ]
    query(raw, "DECLARE h CURSOR WITH HOLD FOR SELECT 1")
    assert tags(query(raw, "FETCH h; CLOSE ALL")) == ["FETCH 1", "CLOSE CURSOR ALL"]
    assert errors(query(raw, "BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH BACKWARD FROM c")) == ["55000"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", b"1\ta\\tb\t\\N\n"),
        ("WITH (FORMAT csv, HEADER)", b'x,y,z\n1,a\tb,\n'),
        ("CSV DELIMITER ';' NULL 'none' FORCE QUOTE y", b'1;"a\tb";none\n'),
    ],
)  # fmt: skip
def test_copy_writes_text_and_csv(raw: Raw, options: str, expected: bytes) -> None:
    found = query(raw, f"COPY (SELECT 1 AS x, e'a\\tb' AS y, NULL AS z) TO STDOUT {options}")
    assert b"".join(body for kind, body in found if kind == b"d") == expected
    assert (kinds(found)[0], kinds(found)[-3:], tags(found)) == ("H", "cCZ", ["COPY 1"])


def test_copy_writes_a_table_in_binary(raw: Raw) -> None:
    found = query(raw, "COPY memories (importance) TO STDOUT (FORMAT binary)")
    data = b"".join(body for kind, body in found if kind == b"d")
    assert data.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8) + struct.pack("!hi", 1, 8))
    assert data.endswith(b"\xff\xff")
    assert len(data) == 19 + 60 * 14 + 2


def test_a_statement_timeout_cancels_and_the_session_goes_on(raw: Raw) -> None:
    query(raw, "SET statement_timeout = '200ms'")
    long = "SELECT count(*) FROM memories a, memories b, memories c, memories d, memories e, memories f"
    found = query(raw, long)
    assert errors(found) == ["57014"]
    assert b"statement timeout" in dict(found)[b"E"]
    assert tags(query(raw, "SELECT 1")) == ["SELECT 1"]


def test_a_client_that_does_not_read_holds_a_bounded_part_of_its_answer(wire: Wired) -> None:
    """Twenty megabytes are asked for; while nobody reads them, the server stops making them."""
    import resource

    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.sign_in(wire.admin_key)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        raw.send(
            message(b"Q", text("SELECT a.content FROM memories a, memories b, memories c LIMIT 100000")) * 5
        )
        assert raw.one()[0] == b"T"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 100_000  # KiB
        for _ in range(5):
            raw.until(b"Z")


def test_a_long_answer_arrives_whole(raw: Raw) -> None:
    found = query(raw, "SELECT a.content FROM memories a, memories b, memories c LIMIT 50000")
    assert tags(found) == ["SELECT 50000"]
    assert kinds(found).count("D") == 50_000


def test_a_message_beyond_its_limit_ends_the_connection(raw: Raw) -> None:
    raw.send(b"Q" + struct.pack("!I", 2**31 - 1))
    kind, body = raw.one()
    assert (kind, sqlstate(body)) == (b"E", "08P01")


def test_what_is_no_message_ends_the_connection(raw: Raw) -> None:
    raw.send(b"\xff\0\0\0\x04")
    assert sqlstate(raw.one()[1]) == "08P01"


def test_function_calls_of_the_old_protocol_are_refused(raw: Raw) -> None:
    raw.send(message(b"F", bytes(8)))
    assert sqlstate(raw.one()[1]) == "08P01"


def test_prepared_statements_are_bounded(wire: Wired) -> None:
    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.sign_in(wire.admin_key)
        raw.send(b"".join(parse("SELECT 1", f"s{n}") for n in range(1_001)) + SYNC)
        assert errors(raw.until(b"Z")) == ["53400"]


def test_a_caller_sees_the_rows_of_its_grants_alone(wire: Wired) -> None:
    key = wire.key("read-only", "company_b/*")
    with Raw(wire.port) as raw:
        raw.start_tls(tls(wire.ca))
        raw.sign_in(key)
        found = query(raw, "SELECT DISTINCT namespace FROM memories UNION SELECT namespace FROM namespaces")
        rows = [body[6:].decode() for kind, body in found if kind == b"D"]
        assert rows
        assert all(name.startswith("company_b/") for name in rows)
