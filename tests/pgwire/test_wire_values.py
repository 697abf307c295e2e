"""Values in both formats, both ways; tokens; names; the parser under arbitrary bytes."""

from __future__ import annotations

import math
import struct
import time as clock
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.config import PgwireConfig
from strongroom.errors import UnauthenticatedError
from strongroom.model import IN_PROCESS, SqlCancel, SqlColumn, SqlDescription
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire._budget import Budget, Share
from strongroom.servers.pgwire._catalog import Catalog
from strongroom.servers.pgwire._contract import Door
from strongroom.servers.pgwire._decode import decode
from strongroom.servers.pgwire._effects import Receive, Send, StartTls, TlsInfo, Work
from strongroom.servers.pgwire._encode import encoder
from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._queries import Queries
from strongroom.servers.pgwire._rewrite import Constants, rewrite
from strongroom.servers.pgwire._scan import split, tokens
from strongroom.servers.pgwire._session import Conversation
from strongroom.servers.pgwire._startup import Started, StartUp

TIMES = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))
VALUES = {
    16: st.booleans(),
    17: st.binary(max_size=64),
    20: st.integers(-(2**63), 2**63 - 1),
    21: st.integers(-(2**15), 2**15 - 1),
    23: st.integers(-(2**31), 2**31 - 1),
    25: st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    700: st.floats(width=32, allow_nan=False),
    701: st.floats(allow_nan=False),
    1082: TIMES.map(lambda t: t.date()),
    1083: st.times(),
    1114: TIMES,
    1184: TIMES.map(lambda t: t.replace(tzinfo=UTC)),
    1186: st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6)),
    1700: st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=8),
    2950: st.uuids(),
}
ARRAYS = {16: 1000, 17: 1001, 20: 1016, 23: 1007, 25: 1009, 701: 1022, 1184: 1185, 1700: 1231, 2950: 2951}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("oid", sorted(VALUES))
def test_values_come_back_as_they_went_out(oid: int, binary: bool) -> None:
    @settings(max_examples=60, deadline=None)
    @given(VALUES[oid])
    def check(value: object) -> None:
        back = decode(encoder(oid, binary)(value), oid, binary)
        if oid == 700:  # the shortest text that is the same in 32 bits
            back = struct.unpack("f", struct.pack("f", back))[0]
        assert back == value

    check()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("oid", sorted(ARRAYS))
def test_arrays_come_back_as_they_went_out(oid: int, binary: bool) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.none() | VALUES[oid], max_size=8))
    def check(values: list[object]) -> None:
        assert decode(encoder(ARRAYS[oid], binary)(values), ARRAYS[oid], binary) == values

    check()


@pytest.mark.parametrize(
    ("oid", "value", "shown"),
    [
        (16, True, b"t"),
        (701, 1.0, b"1"),
        (701, 1e300, b"1e+300"),
        (701, math.inf, b"Infinity"),
        (701, math.nan, b"NaN"),
        (700, struct.unpack("f", struct.pack("f", 0.1))[0], b"0.1"),
        (1700, Decimal("1E+3"), b"1000"),
        (1700, Decimal("0.10"), b"0.10"),
        (17, b"\x00\xff", b"\\x00ff"),
        (1114, datetime(2024, 1, 2, 3, 4, 5, 600_000), b"2024-01-02 03:04:05.6"),
        (1184, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), b"2024-01-02 03:04:05+00"),
        (1082, date(2024, 1, 2), b"2024-01-02"),
        (1083, time(3, 4, 5), b"03:04:05"),
        (1186, timedelta(days=-1, hours=2), b"-1 days 02:00:00"),
        (1186, (14, 3, 5_000_000_000), b"1 year 2 mons 3 days 00:00:05"),
        (1186, timedelta(0), b"00:00:00"),
        (114, {"a": [1, None]}, b'{"a": [1, null]}'),
        (1009, ["a", "", "NULL", 'q"\\', None, "a b", "x,y"], b'{a,"","NULL","q\\"\\\\",NULL,"a b","x,y"}'),
    ],
)
def test_text_is_written_as_postgresql_writes_it(oid: int, value: object, shown: bytes) -> None:
    assert encoder(oid, False)(value) == shown


@pytest.mark.parametrize(
    ("raw", "oid", "value"),
    [
        (b"yes", 16, True),
        (b" 12 ", 23, 12),
        (b"1e3", 701, 1000.0),
        (b"\\001a", 17, b"\x01a"),
        (b"2024-01-02", 1114, datetime(2024, 1, 2)),
        (b"2024-01-02 03:04:05+02", 1184, datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)),
        (b"2024-01-02T03:04:05.25Z", 1184, datetime(2024, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)),
        (b"1 day 02:00:00.5", 1186, timedelta(days=1, hours=2, milliseconds=500)),
        (b'{1,NULL,"3"}', 1007, [1, None, 3]),
        (b"{}", 1009, []),
        (b"{00000000-0000-0000-0000-000000000001}", 2951, [UUID(int=1)]),
    ],
)
def test_text_is_read_as_postgresql_reads_it(raw: bytes, oid: int, value: object) -> None:
    assert decode(raw, oid, False) == value


@pytest.mark.parametrize(
    ("raw", "oid", "binary", "code"),
    [
        (b"x", 23, False, "22P02"),
        (b"99999999999", 23, False, "22003"),
        (b"nope", 1184, False, "22007"),
        (b"\xff", 25, False, "22021"),
        (b"\0\0", 23, True, "22P03"),
        (b"{1", 1007, False, "22P02"),
        (struct.pack("!iiIii", 1, 0, 23, 2**30, 1), 1007, True, "54000"),
        (struct.pack("!iiIii", 2, 0, 23, 1, 1), 1007, True, "0A000"),
        (struct.pack("!qii", 0, 0, 1), 1186, True, "0A000"),
        (struct.pack("!q", 2**62), 1114, True, "22008"),
        (b"1e999999999", 1700, False, "22003"),
    ],
)
def test_values_that_are_none_are_refused_with_their_code(
    raw: bytes, oid: int, binary: bool, code: str
) -> None:
    with pytest.raises(PgError) as refused:
        decode(raw, oid, binary)
    assert refused.value.sqlstate == code


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*VALUES, 1007, 1009, 1231, 1700, 3802, 1266, 18]), st.binary(max_size=80), st.booleans()
)
def test_arbitrary_values_are_read_or_refused(oid: int, raw: bytes, binary: bool) -> None:
    try:
        decode(raw, oid, binary)
    except PgError as e:
        assert len(e.sqlstate) == 5


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab'\"$/*-;.()[]:1e\\ \n\t,xXuU&"), max_size=80))
def test_tokens_are_the_text_cut_into_pieces(sql: str) -> None:
    assert "".join(t.text for t in tokens(sql)) == sql
    for statement in split(sql):
        assert sql[statement.start :].startswith(statement.text)
        rewrite(statement, Constants(lambda _: "x", lambda _: "x"))


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("select 1; select 2;", ["select 1", "select 2"]),
        ("select ';' ; select $a$;$a$", ["select ';'", "select $a$;$a$"]),
        ('select 1 -- ;\n; /* ; /* ; */ ; */ select ";"', ["select 1", 'select ";"']),
        ("select e'\\';' ; x", ["select e'\\';'", "x"]),
        ("select 'unfinished ; x", ["select 'unfinished ; x"]),
    ],
)
def test_statements_are_split_outside_of_quotes_and_comments(sql: str, parts: list[str]) -> None:
    assert [s.text for s in split(sql)] == parts


def test_long_hostile_texts_are_cut_in_linear_time() -> None:
    for sql in (
        "'" * 100_001,
        "/*" * 50_000,
        "$a$" * 33_333,
        "((" * 50_000,
        "1." * 50_000,
        "e'" + "\\" * 99_999,
    ):
        started = clock.process_time()
        split(sql)
        assert clock.process_time() - started < 5


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ('SELECT "public"."memories"."content" FROM "public"."memories"',
         'SELECT "memories"."content" FROM "memories"'),
        ("SELECT version(), 1 FROM memories", "SELECT 'v', 1 FROM memories"),
        ("SELECT 'version()' FROM memories", "SELECT 'version()' FROM memories"),
        ("SELECT content FROM memories WHERE kind = 'pg_class'",
         "SELECT content FROM memories WHERE kind = 'pg_class'"),
        ("SELECT metadata::jsonb FROM memories", "SELECT metadata::json FROM memories"),
    ],
)  # fmt: skip
def test_only_names_are_rewritten(sql: str, text: str) -> None:
    ready = rewrite(split(sql)[0], Constants(lambda _: "v", lambda _: None))
    assert (ready.text, ready.catalog) == (text, False)


# -- the whole protocol as a generator, fed with arbitrary bytes --------------------------------------------
class NoEngine:
    """Refuses everybody; answers no SQL."""

    context = IN_PROCESS

    def authenticate(self, *_: object, **__: object) -> None:
        raise UnauthenticatedError

    def scram_offer(self, user: str) -> object:
        class Offer:
            salt = bytes(16)
            iterations = 4096

        return Offer()

    def authenticate_scram(self, *_: object, **__: object) -> None:
        raise UnauthenticatedError

    def cancel(self, *_: object) -> None:
        return None

    def whoami(self) -> None:
        return None

    stood = None

    def check_standing(self, since: object = None) -> None:
        return None

    def sql(self, *_: object, cancel: SqlCancel | None = None) -> None:
        raise UnauthenticatedError if cancel is None else PgError("0A000", "no SQL here")

    def sql_describe(self, *_: object) -> SqlDescription:
        return SqlDescription((), (SqlColumn("a", "BIGINT"),))


CATALOG = Catalog()


def drive(steps: object, chunks: list[bytes]) -> int:
    """Feed chunks until they end; how many bytes were answered. Everything but PgError is a crash."""
    answer: object = None
    written = 0
    feed = iter(chunks)
    error: BaseException | None = None
    while True:
        try:
            effect = steps.send(answer) if error is None else steps.throw(error)  # type: ignore[attr-defined]
        except StopIteration:
            return written
        except PgError as e:
            assert e.fatal or len(e.sqlstate) == 5
            return written
        answer, error = None, None
        if isinstance(effect, Receive):
            answer = next(feed, b"")
        elif isinstance(effect, Send):
            written += len(effect.data)
        elif isinstance(effect, StartTls):
            answer = TlsInfo("TLSv1.3", "postgresql")
        elif isinstance(effect, Work):
            try:
                answer = effect.run()
            except (PgError, UnauthenticatedError) as e:
                error = e


def converse(data: list[bytes]) -> None:
    engine = NoEngine()
    config = PgwireConfig(message_bytes_max=4_096)
    door = Door(engine, config, bytes(32), engine, CATALOG)  # type: ignore[arg-type]
    drive(StartUp(m.Inbox(), door).run(), data)
    inbox = m.Inbox()
    started = Started(engine, "x", {}, 1, b"1234")  # type: ignore[arg-type]
    share = Share(Budget(2**30), "x", lambda: None)
    talk = Conversation(inbox, started, config, lambda s: Queries(engine, CATALOG, s, "x", 1), share)  # type: ignore[arg-type]
    drive(talk.run(), data)
    assert len(inbox) <= 4_200 + sum(map(len, data[-1:]))


SQLS = st.sampled_from(
    ["SELECT 1", "BEGIN", "COMMIT", "ROLLBACK TO a", "SAVEPOINT a", "SHOW ALL", "SET x TO y", "", "FETCH a",
     "CLOSE ALL", "DECLARE a CURSOR FOR SELECT 1", "COPY (SELECT 1) TO STDOUT", "SELECT oid FROM pg_class",
     "DISCARD ALL", ";;", "'"]
) | st.text(max_size=30)  # fmt: skip
FRAMES = st.builds(
    lambda kind, body: bytes([kind]) + struct.pack("!I", len(body) + 4) + body,
    st.sampled_from(sorted(m.KNOWN)),
    st.binary(max_size=60)
    | SQLS.map(lambda s: s.encode("utf-8", "replace").replace(b"\0", b"") + b"\0")
    | SQLS.map(lambda s: b"\0" + s.encode("utf-8", "replace").replace(b"\0", b"") + b"\0\0\0")
    | st.sampled_from([b"S\0", b"P\0", b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\0"]),
)
PACKETS = st.builds(
    lambda code, body: struct.pack("!II", len(body) + 8, code) + body,
    st.sampled_from([3 << 16, 3 << 16 | 2, 80877102, 80877103, 80877104, 2 << 16]),
    st.binary(max_size=60) | st.just(b"user\0x\0\0"),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAMES | PACKETS | st.binary(max_size=40), max_size=12))
def test_arbitrary_bytes_neither_crash_nor_hang_nor_pile_up(data: list[bytes]) -> None:
    converse(data)
