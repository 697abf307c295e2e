"""Real clients of PostgreSQL against the wire. One that is not installed skips and says so."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import threading
import uuid
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.pgwire.wired import Wired
from tests.servers.judges import NODE_DIR

HERE = Path(__file__).parent
JARS = [Path("/usr/share/java") / f"{n}.jar" for n in
        ("postgresql", "scram-client", "scram-common", "saslprep", "stringprep")]  # fmt: skip


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: script/test installs it when root")
    return found


def library(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: it is in requirements-dev.lock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)


def run(command: list[str], wire: Wired, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "PGPASSWORD": wire.admin_key, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(wire.ca),
        "PGHOST": "localhost", "PGPORT": str(wire.port), "PGUSER": wire.key_id(wire.admin_key),
        "PGDATABASE": "strongroom", "LC_ALL": "C.UTF-8", **more,
    }  # fmt: skip
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )


# -- psql -------------------------------------------------------------------------------------------------
PSQL = {
    r"\d": ["memories", "access_stats"],
    r"\dt": ["public|memories|table|strongroom"],
    r"\dt+": ["Memories of the namespaces that the caller may read"],
    r"\d memories": ["memory_id|uuid||not null", "content|text||not null", "tags|text[]||not null",
                     "created_at|timestamp with time zone",
                     '"memories_pkey" PRIMARY KEY, btree (namespace, memory_id)'],
    r"\d+ audit": ["at|timestamp with time zone"],
    r"\d memories_pkey": ["namespace|text|yes|namespace"],
    r"\l": ["strongroom|strongroom|UTF8"],
    r"\dn": ["public|strongroom"],
    r"\df": ["semantic_rank|double precision|content text, query text|func"],
    r"\di": ["memories_pkey|index"],
    r"\dp": ["public|memories|table|=r/strongroom"],
    r"\dx": [], r"\dv": [], r"\dT": [], r"\db": ["pg_default"], r"\dO": [], r"\dA": ["heap"], r"\ds": [],
    r"\conninfo": ['"strongroom" as user'],
}  # fmt: skip


@pytest.mark.parametrize("command", PSQL)
def test_psql_describes_what_is_here(wire: Wired, command: str) -> None:
    done = run([tool("psql"), "-XAq", "-c", command], wire)
    assert (done.returncode, done.stderr) == (0, "") or "Did not find any" in done.stderr
    for part in PSQL[command]:
        assert part in done.stdout


def test_psql_shows_the_role_of_the_caller_alone(wire: Wired) -> None:
    done = run([tool("psql"), "-XAtq", "-c", r"\du"], wire)
    assert done.stdout.split("|")[0] == wire.key_id(wire.admin_key)
    assert len(done.stdout.splitlines()) == 1


def test_psql_copies_to_a_file(wire: Wired, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    copy = rf"\copy (SELECT content FROM memories ORDER BY importance LIMIT 2) TO '{target}' CSV HEADER"
    done = run([tool("psql"), "-Xq", "-c", copy], wire)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "content\nmemory number 0 about travel\nmemory number 1 about invoices\n"


def test_psql_runs_a_script_with_variables_and_several_statements(wire: Wired, tmp_path: Path) -> None:
    script = tmp_path / "script.sql"
    script.write_text(
        "\\set agent 'agent-1'\nBEGIN;\nSELECT count(*) FROM memories WHERE agent_id = :'agent';\n"
        "COMMIT;\nSELECT 1 AS a \\gdesc\n"
    )
    done = run([tool("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", str(script)], wire)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["20", "a|integer"]


def test_pgbench_runs_a_script_of_its_own_in_every_mode(wire: Wired, tmp_path: Path) -> None:
    # not the wrapper of the same name, which is there without it too
    bench = next((str(p) for p in Path("/usr/lib/postgresql").glob("*/bin/pgbench")), None)
    if bench is None:
        pytest.skip("pgbench is not installed: script/test installs it when root")
    script = tmp_path / "script.sql"
    script.write_text("\\set n random(0, 59)\nSELECT content FROM memories WHERE importance = :n / 100.0;\n")
    for mode in ("simple", "extended", "prepared"):
        done = run([bench, "-n", "-f", str(script), "-t", "10", "-c", "2", "-M", mode], wire)
        assert done.returncode == 0, done.stderr
        assert "number of transactions actually processed: 20/20" in done.stdout


# -- Python -----------------------------------------------------------------------------------------------
def test_psycopg_reads_every_type_in_text_and_in_binary(wire: Wired) -> None:
    psycopg = library("psycopg")
    sql = (
        "SELECT 5, 'x', memory_id, created_at, importance, tags, metadata, 1.25::decimal(10,2),"
        " TIME '10:00:01.5',"
        " DATE '1999-01-01', INTERVAL '3 days', true, [1, 2], '\\xab'::blob, 7::hugeint, NULL, 5::smallint,"
        " 1.5::float, 2::bigint, TIMESTAMP '2024-01-02 03:04:05'"
        " FROM memories ORDER BY importance DESC LIMIT 1"
    )
    with psycopg.connect(wire.dsn()) as c:
        found = [c.cursor(binary=b).execute(sql).fetchone() for b in (False, True)]
    assert found[0] == found[1]
    assert isinstance(found[0][2], uuid.UUID)
    assert found[0][4:] == (
        0.59, ["t1", "it's"], {"n": 59, "even": False}, Decimal("1.25"), dt.time(10, 0, 1, 500_000),
        dt.date(1999, 1, 1), dt.timedelta(days=3), True, [1, 2], b"\xab", 7, None, 5, 1.5, 2,
        dt.datetime(2024, 1, 2, 3, 4, 5),
    )  # fmt: skip


def test_psycopg_sends_parameters_of_every_type_in_both_formats(wire: Wired) -> None:
    psycopg = library("psycopg")
    values = (
        5, 2**40, "x", uuid.UUID(int=7), dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        1.5, b"ab\0", True, Decimal("12.340"), dt.time(1, 2, 3), dt.timedelta(days=2), None,
    )  # fmt: skip
    types = [
        "int",
        "int8",
        "text",
        "uuid",
        "date",
        "timestamptz",
        "float8",
        "bytea",
        "bool",
        "numeric",
        "time",
    ]
    types += ["interval", "text"]
    with psycopg.connect(wire.dsn()) as c:
        for mark in ("%t", "%b"):
            sql = "SELECT " + ", ".join(f"{mark}::{t}" for t in types)
            assert c.execute(sql, values).fetchone() == values
            count = f"SELECT count(*) FROM memories WHERE agent_id = ANY({mark})"
            assert c.execute(count, (["agent-1", "agent-2"],)).fetchone() == (40,)


def test_psycopg_pipelines_cursors_copies_and_cancels(wire: Wired) -> None:
    psycopg = library("psycopg")
    with psycopg.connect(wire.dsn()) as c, c.cursor("portions") as cursor:
        cursor.execute("SELECT content FROM memories ORDER BY importance")
        assert len(cursor.fetchmany(7)) == 7
        assert len(cursor.fetchall()) == 53
    with psycopg.connect(wire.dsn(), autocommit=True) as c:
        with c.pipeline():
            cursors = [c.execute("SELECT %s::int", [n]) for n in range(20)]
        assert [k.fetchone()[0] for k in cursors] == list(range(20))
        with c.cursor().copy(
            "COPY (SELECT content, importance FROM memories) TO STDOUT (FORMAT binary)"
        ) as copy:
            copy.set_types(["text", "float8"])
            assert ("memory number 0 about travel", 0.0) in list(copy.rows())
        timer = threading.Timer(0.3, c.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            c.execute(
                "SELECT count(*) FROM memories a, memories b, memories c, memories d, memories e, memories f"
            )
        timer.join()
        assert c.execute("SELECT 1").fetchone() == (1,)


def test_psycopg_nests_transactions(wire: Wired) -> None:
    psycopg = library("psycopg")
    with psycopg.connect(wire.dsn()) as c, c.transaction():
        with pytest.raises(psycopg.errors.UndefinedColumn), c.transaction():
            c.execute("SELECT nope FROM memories")
        assert c.execute("SELECT 2").fetchone() == (2,)


def test_asyncpg_sends_integers_and_reads_in_binary(wire: Wired) -> None:
    asyncpg = library("asyncpg")
    context = ssl.create_default_context(cafile=str(wire.ca))
    options = {"host": "localhost", "port": wire.port, "user": wire.key_id(wire.admin_key),
               "password": wire.admin_key, "database": "strongroom", "ssl": context}  # fmt: skip

    async def work() -> None:
        c = await asyncpg.connect(**options)
        assert tuple(await c.fetchrow("SELECT $1::int + 1, $2::text", 5, "x")) == (6, "x")
        sql = "SELECT count(*) FROM memories WHERE access_count >= $1 AND importance > $2"
        assert await c.fetchval(sql, 0, 0.1) == 49
        assert len(await c.fetch("SELECT * FROM memories LIMIT $1 OFFSET $2", 7, 1)) == 7
        assert await c.fetchval("SELECT count(*) FROM memories WHERE agent_id = ANY($1)", ["agent-1"]) == 20
        row = await c.fetchrow(
            "SELECT derived_from, tags, [1, NULL] AS l, 1.5::decimal(5,2) AS d FROM memories"
        )
        assert (row["derived_from"], row["l"], row["d"]) == ([], [1, None], Decimal("1.50"))
        async with c.transaction():
            assert len([r async for r in c.cursor("SELECT content FROM memories", prefetch=7)]) == 60
        with pytest.raises(asyncpg.UndefinedColumnError):
            await c.fetch("SELECT nope FROM memories")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await c.execute("DELETE FROM memories")
        await c.close()
        async with asyncpg.create_pool(**options, min_size=1, max_size=2) as pool:
            for n in range(3):  # a returned connection is reset
                assert await pool.fetchval("SELECT $1::int", n) == n

    asyncio.run(work())


def engine_of(wire: Wired) -> Any:
    sa = library("sqlalchemy")
    library("psycopg")
    key = wire.admin_key
    url = f"postgresql+psycopg://{wire.key_id(key)}:{key}@localhost:{wire.port}/strongroom"
    return sa, sa.create_engine(
        f"{url}?sslmode=verify-full&sslrootcert={wire.ca}", poolclass=sa.pool.NullPool
    )


def test_sqlalchemy_reflects_and_queries(wire: Wired) -> None:
    sa, engine = engine_of(wire)
    look = sa.inspect(engine)
    assert set(look.get_schema_names()) == {"public", "information_schema"}
    assert look.get_pk_constraint("memories")["constrained_columns"] == ["namespace", "memory_id"]
    assert look.get_table_comment("memories")["text"]
    assert not look.has_table("nope")
    for ask in (
        look.get_foreign_keys,
        look.get_indexes,
        look.get_unique_constraints,
        look.get_check_constraints,
    ):
        assert ask("memories") == []
    metadata = sa.MetaData()
    metadata.reflect(engine)
    assert set(metadata.tables) == {"memories", "namespaces", "access_stats", "embedding_queue", "audit"}
    memories = metadata.tables["memories"]
    assert [str(c.type) for c in memories.c][:6] == ["UUID", "TEXT", "TEXT", "TEXT", "JSON", "ARRAY"]
    with engine.connect() as c:
        chosen = sa.select(memories.c.content, memories.c.tags).where(
            memories.c.agent_id == "agent-1",
            memories.c.kind.in_(["fact"]),
            memories.c.created_at < sa.func.now(),
        )
        assert len(c.execute(chosen).all()) == 4
        grouped = sa.select(memories.c.agent_id, sa.func.count()).group_by(memories.c.agent_id)
        assert dict(c.execute(grouped).all()) == {"agent-0": 20, "agent-1": 20, "agent-2": 20}
        some = c.execution_options(yield_per=7).execute(sa.select(memories))
        assert len(list(some)) == 60


def test_pandas_reads_sql(wire: Wired) -> None:
    pandas = library("pandas")
    sa, engine = engine_of(wire)
    with engine.connect() as c:
        sql = sa.text("SELECT agent_id, importance, created_at FROM memories WHERE importance > :x")
        frame = pandas.read_sql(sql, c, params={"x": 0.3})
        assert frame.shape == (29, 3)
        assert str(frame["created_at"].dtype).startswith("datetime64")
        parts = pandas.read_sql(sa.text("SELECT content FROM memories"), c, chunksize=25)
        assert [len(p) for p in parts] == [25, 25, 10]


# -- Java and Node ------------------------------------------------------------------------------------------
def test_jdbc_metadata_and_queries(wire: Wired) -> None:
    java = tool("java")
    missing = [j.name for j in JARS if not j.exists()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}: script/test installs them when root")
    probe = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False)
    if "jdk.compiler" not in probe.stdout:
        pytest.skip("java comes without its compiler: script/test installs default-jdk-headless when root")
    key = wire.admin_key
    arguments = [str(HERE / "Metadata.java"), str(wire.port), str(wire.ca), wire.key_id(key), key]
    done = run([java, "-cp", ":".join(map(str, JARS)), *arguments], wire)
    assert done.returncode == 0, done.stderr
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert "write!25006" in done.stdout.splitlines()
    assert said == {
        "version": "PostgreSQL 15",
        "catalogs": "[strongroom]",
        "schemas": "[information_schema, pg_catalog, public]",
        "tables": "[access_stats, audit, embedding_queue, memories, namespaces]",
        "columns": "20",
        "types": "[_text]",
        "key": "[namespace, memory_id]",
        "indexes": "[memories_pkey, memories_pkey]",
        "imported": "[]",
        "functions": "[hybrid_rank, keyword_match, keyword_rank, semantic_match, semantic_rank]",
        "function columns": "[returnValue, content, query]",
        "type info": "true",
        "privileges": "[SELECT]",
        "keywords": "true",
        "row": "UUID|memory number 52 about travel|0.52|[]|0",
        "uuid": "[0]",
        "portions": "60",
        "savepoint": "[1]",
        "valid": "true",
    }


def test_the_drivers_of_node(wire: Wired) -> None:
    node = NODE_DIR / "bin" / "node"
    if not node.exists() or not (NODE_DIR / "node_modules" / "pg").exists():
        pytest.skip("node with pg and postgres is not installed: script/test installs it")
    key = wire.admin_key
    arguments = [str(NODE_DIR), str(wire.port), str(wire.ca), wire.key_id(key), key]
    done = run([str(node), str(HERE / "clients.mjs"), *arguments], wire)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    named = [{"content": "memory number 0 about travel", "tags": [], "metadata": {"n": 0, "even": True}}]
    assert found == [
        ["pg", [{"count": "16", "x": 5}]],
        ["named", named],
        ["named", named],
        ["any", [{"count": "40"}]],
        ["several", [[{"a": 1}], [{"b": 2}]]],
        ["error", "error 42703"],
        ["postgres", [{"content": "memory number 52 about travel", "tags": []}]],
        ["in", [{"count": "40"}]],
        ["cursor", 60],
        ["begin", [{"x": 1}]],
        ["wrong", "error 42703"],
    ]
