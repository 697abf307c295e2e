"""SQL in process and over the Postgres wire, beside the bare engine and a real PostgreSQL of the same run.

``python -m bench.sql DIR`` measures on a store that is there already (namespace ``company_a/support``).
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from uuid import UUID

import numpy as np
import psycopg

from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, Row, Spread, Timed, machine, note, table

POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")
LOOKUP: Final = "SELECT content FROM memories WHERE memory_id = $1"
NEWEST: Final = (
    "SELECT memory_id, content, created_at FROM memories WHERE agent_id = $1"
    " ORDER BY created_at DESC LIMIT 10"
)
COUNT: Final = "SELECT count(*) FROM memories WHERE kind = $1 AND importance > $2"
MEANING: Final = (
    "SELECT memory_id, semantic_rank(content, $1) AS score FROM memories WHERE importance >= 0.8"
    " ORDER BY score DESC LIMIT 10"
)
EXACT: Final = (
    "SELECT memory_id, semantic_rank(content, $1) AS score FROM memories WHERE importance >= 0.8"
    " ORDER BY score + 0 DESC LIMIT 10"
)
GROUP: Final = "SELECT agent_id, count(*) AS n, avg(importance) AS mean FROM memories GROUP BY agent_id"
EVERY_WAY: Final = (
    "SELECT agent_id, kind, round(importance, 2), length(content) FROM memories WHERE kind = $1"
    " AND contains(content, 'refund') ORDER BY created_at DESC LIMIT 10"
)
_PGBENCH_STATEMENTS: Final = 50


@dataclass(frozen=True)
class Served:
    """Where the child serves."""

    port: int
    key: str
    ca: str
    certificate: str
    private_key: str
    ids: list[UUID]
    texts: list[str]

    def dsn(self) -> str:
        return (
            f"host=localhost hostaddr=127.0.0.1 port={self.port} user={self.key[8:20]} password={self.key}"
            f" dbname=strongroom sslmode=verify-full sslrootcert={self.ca}"
        )


# -- inside the child -------------------------------------------------------------------------------------
class _Wire:
    def __init__(self, engine: Any, certificate: Path, private_key: Path) -> None:
        from strongroom.servers.http import WorkerPool, make_log
        from strongroom.servers.pgwire import PgwireServer

        config = stores.config()
        workers = WorkerPool(config.server.workers_max, "wire")
        server = PgwireServer(
            engine, config, certificate=certificate, private_key=private_key, workers=workers,
            log=make_log(config.log),
        )  # fmt: skip
        bound = socket.create_server(("127.0.0.1", 0))
        self.port: int = bound.getsockname()[1]
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(server.start(bound))
            loop.run_forever()

        threading.Thread(target=run, daemon=True).start()


def _serve(state: State, directory: Path) -> Served:
    from strongroom.engine import Engine
    from strongroom.servers.serve import server_files
    from strongroom.servers.tls import create_local_ca

    tls = directory.with_name(directory.name + ".keys") / "tls"
    if not tls.exists():
        create_local_ca(tls)
    certificate, private_key = server_files(directory, stores.config())
    engine = state["engine"] = Engine.open(directory)
    session = state["session"] = engine.owner_session()
    session.search("a first question", namespaces=[stores.NAMESPACE])
    engine.indexes.wait_verified(stores.VERIFY_S)
    key = session.keys_create("bench", "read-only", [stores.NAMESPACE])[1]
    spread = "SELECT memory_id, content FROM memories WHERE hash(memory_id) % $1 = 7 LIMIT 400"
    sample = session.sql(spread, [max(1, session.stats().memories // 500)]).fetch(400)
    wire = _Wire(engine, certificate, private_key)
    texts = [" ".join(content.split(" ")[1:7]) for _, content in sample]
    ca = str(certificate.with_name("ca.pem"))
    ids = [memory_id for memory_id, _ in sample]
    return Served(wire.port, key, ca, str(certificate), str(private_key), ids, texts)


def _ask(state: State, statement: str, parameters: Sequence[Sequence[Any]]) -> list[float]:
    session, out = state["session"], []
    for values in parameters:
        started = perf_counter()
        list(session.sql(statement, values).rows())
        out.append(perf_counter() - started)
    return out


def _steps(state: State, statement: str, parameters: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Milliseconds a statement in the engine's own metrics, by step."""

    def totals() -> dict[str, float]:
        out = {}
        for metric in state["engine"].metrics.registry.collect():
            if metric.name in ("strongroom_step_seconds", "strongroom_operation_seconds"):
                for sample in metric.samples:
                    if sample.name.endswith("_sum"):
                        name = sample.labels.get("step") or sample.labels.get("operation", "")
                        out[name] = out.get(name, 0.0) + sample.value
        return out

    before = totals()
    _ask(state, statement, parameters)
    return {
        name: round((value - before.get(name, 0.0)) / len(parameters) * 1e3, 3)
        for name, value in totals().items()
        if value > before.get(name, 0.0)
    }


def _found(state: State, statement: str, parameters: Sequence[Sequence[Any]]) -> list[set[Any]]:
    return [{row[0] for row in state["session"].sql(statement, values).rows()} for values in parameters]


def _fill_bare(state: State) -> None:
    """The columns of the statements in a plain table of a plain engine."""
    import duckdb

    engine = state["engine"]
    index = engine.indexes.ready(engine.registry.get(stores.NAMESPACE))
    table = index.table.qualified  # waits for the columns, after a start from a snapshot
    with closing(engine.indexes._columnar.sql_cursor()) as cursor:
        rows = cursor.sql(f"SELECT kind, agent_id, importance FROM {table}").to_arrow_table()
    bare = state["bare"] = duckdb.connect(":memory:", config={"threads": "2"})
    bare.register("arriving", rows)
    bare.execute("CREATE TABLE memories AS SELECT * FROM arriving")
    bare.unregister("arriving")


def _ask_bare(state: State, statement: str, count: int) -> list[float]:
    out = []
    for _ in range(count):
        started = perf_counter()
        state["bare"].execute(statement).fetchall()
        out.append(perf_counter() - started)
    return out


def _front(state: State, count: int) -> tuple[list[float], list[float]]:
    """Cost of the front end alone, for a statement that it knows and for one that it does not."""
    from strongroom.engine._sql import NO_EXTENSION

    front = state["engine"].indexes.sql.front
    known, unknown = [], []
    for i in range(count):
        text = EVERY_WAY + f" -- {perf_counter()} {i}"
        for out in (unknown, known):
            started = perf_counter()
            front.plan(text, NO_EXTENSION.offer)
            out.append(perf_counter() - started)
    return known, unknown


# -- PostgreSQL -------------------------------------------------------------------------------------------
@contextmanager
def postgres(work: Path, served: Served, rows: int) -> Iterator[str]:
    """A PostgreSQL of its own with as many rows under a primary key; its conninfo, with TLS."""
    data = work / "postgres"
    data.mkdir()
    for name in ("certificate", "private_key"):
        shutil.copy(getattr(served, name), data / name)
    user = ["runuser", "-u", "postgres", "--"] if _is_root() else []
    if user:
        subprocess.run(["chown", "-R", "postgres", str(data)], check=True)
        for parent in (work, *work.parents):
            if parent != Path("/") and parent.stat().st_uid == 0 and parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    (data / "certificate").chmod(0o600)
    (data / "private_key").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    base = [
        *user,
        str(POSTGRES / "initdb"),
        "-D",
        str(data / "db"),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*base, "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    settings = [
        f"-p {port} -k {data} -h 127.0.0.1 -c ssl=on -c ssl_cert_file={data / 'certificate'}"
        f" -c ssl_key_file={data / 'private_key'} -c ssl_min_protocol_version=TLSv1.3 -c shared_buffers=1GB"
    ]
    control = [*user, str(POSTGRES / "pg_ctl"), "-D", str(data / "db"), "-w", "-l", str(data / "log")]
    subprocess.run([*control, "-o", settings[0], "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        info = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=require"
        with psycopg.connect(info, autocommit=True) as connection:
            connection.execute("CREATE TABLE memories (memory_id uuid PRIMARY KEY, content text NOT NULL)")
            connection.execute(
                "INSERT INTO memories SELECT gen_random_uuid(), repeat(md5(g::text), 5)"
                f" FROM generate_series(1, {rows - len(served.ids)}) AS g"
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO memories VALUES (%s, %s)",
                    [(i, "a row of the sample " * 8) for i in served.ids],
                )
            connection.execute("VACUUM ANALYZE memories")
        yield info
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL, cwd="/")


def _is_root() -> bool:
    import os

    return os.geteuid() == 0


def pgbench(info: str, script: Path, ids: Sequence[UUID], transactions: int) -> float:
    """Seconds a statement, by pgbench, one connection, prepared."""
    names = [f"id{i}" for i in range(_PGBENCH_STATEMENTS)]
    script.write_text("".join(f"SELECT content FROM memories WHERE memory_id = :{n};\n" for n in names))
    given = [x for n, i in zip(names, ids, strict=False) for x in ("-D", f"{n}={i}")]
    done = subprocess.run(
        [str(POSTGRES / "pgbench"), "-n", "-c", "1", "-M", "prepared", "-t", str(transactions),
         "-f", str(script), *given, info],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = next((x for x in done.stdout.splitlines() if x.startswith("latency average")), None)
    if done.returncode or line is None or "number of failed transactions: 0" not in done.stdout:
        raise RuntimeError(f"pgbench: {done.stdout}\n{done.stderr}")
    return float(line.split("=")[1].split()[0]) / 1e3 / _PGBENCH_STATEMENTS


# -- the measurement --------------------------------------------------------------------------------------
def _over_wire(connection: Any, statement: str, parameters: Sequence[Sequence[Any]]) -> list[float]:
    text = statement
    for number in (1, 2):
        text = text.replace(f"${number}", "%s")
    out = []
    for values in parameters:
        started = perf_counter()
        connection.execute(text, values, prepare=True).fetchall()
        out.append(perf_counter() - started)
    return out


def run(options: Options) -> list[Row]:
    return measured(stores.large(options), options)


def measured(directory: Path, options: Options) -> list[Row]:
    with Child() as child:
        note("opening")
        served: Served = child.call(_serve, directory)
        child.call(_fill_bare)
        total = len(served.ids)
        cases: dict[str, tuple[str, list[list[Any]]]] = {
            "lookup": (LOOKUP, [[i] for i in served.ids]),
            "newest": (NEWEST, [[f"agent-{i % 7}"] for i in range(total)]),
            "count": (COUNT, [["fact", 0.3 + (i % 60) / 100] for i in range(total)]),
            "general": (EVERY_WAY, [["fact"] for _ in range(20)]),
        }
        times = {f"{name}{way}": Timed() for name in cases for way in ("", " wire")}
        times |= {name: Timed() for name in ("meaning", "group", "bare", "known", "unknown")}
        questions = [[text] for text in served.texts[: 40 if options.quick else 100]]
        wire_ms, postgres_ms, ratios = [], [], []
        with (
            psycopg.connect(served.dsn(), autocommit=True) as connection,
            postgres(options.work, served, options.rows) as info,
        ):
            for statement, parameters in cases.values():
                child.call(_ask, statement, parameters[:30])
                _over_wire(connection, statement, parameters[:30])
            child.call(_ask, MEANING, questions[:20])
            for _ in range(options.repeats):
                note("a repeat")
                for name, (statement, parameters) in cases.items():
                    times[name].repeats.append(child.call(_ask, statement, parameters))
                    times[f"{name} wire"].repeats.append(_over_wire(connection, statement, parameters))
                times["meaning"].repeats.append(child.call(_ask, MEANING, questions))
                times["group"].repeats.append(child.call(_ask, GROUP, [[]] * 20))
                times["bare"].repeats.append(child.call(_ask_bare, GROUP, 20))
                known, unknown = child.call(_front, 100)
                times["known"].repeats.append(known)
                times["unknown"].repeats.append(unknown)
                script = options.work / "lookup.sql"
                real = pgbench(info, script, served.ids, 40)
                ours = pgbench(served.dsn(), script, served.ids, 10)
                postgres_ms.append(real)
                wire_ms.append(ours)
                ratios.append(ours / real)
        steps = {name: child.call(_steps, s, p[:100]) for name, (s, p) in cases.items()}
        steps["meaning"] = child.call(_steps, MEANING, questions)
        note("recall")
        found = child.call(_found, MEANING, questions[:40])
        exact = child.call(_found, EXACT, questions[:40])
        recall = float(np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found, exact, strict=True)]))
    return _rows(options, times, recall, steps, Spread.of(wire_ms), Spread.of(postgres_ms), Spread.of(ratios))


_WORDS: Final = {
    "lookup": "point lookup by memory_id",
    "newest": "newest 10 of one agent",
    "count": "count with two filters",
    "general": "ten newest rows whose text holds a word (no short form)",
}


def _rows(
    options: Options,
    times: dict[str, Timed],
    recall: float,
    steps: dict[str, dict[str, float]],
    wire: Spread,
    real: Spread,
    ratio: Spread,
) -> list[Row]:
    def p50(name: str) -> Spread:
        return times[name].quantile(0.5)

    def shown(parts: dict[str, float]) -> str:
        return "ms: " + ", ".join(f"{k} {v}" for k, v in sorted(parts.items(), key=lambda kv: -kv[1])[:5])

    rows = []
    for name, words in _WORDS.items():
        for way, target, limit in (("", "p50 < 2 ms", 0.002), (" wire", "p50 < 3 ms", 0.003)):
            aimed = name != "general"
            where = "through psycopg, prepared, TLS 1.3" if way else "in process"
            rows.append(
                Row(
                    f"SQL {words}, {options.rows:,} memories, {where}",
                    times[name + way].show(),
                    target if aimed else "",
                    p50(name + way).median < limit if aimed else None,
                    "" if way else shown(steps[name]),
                    times[name + way].data(),
                )
            )
    bare = [
        float(np.median(ours)) / float(np.median(plain))
        for ours, plain in zip(times["group"].repeats, times["bare"].repeats, strict=True)
    ]
    return [
        *rows,
        Row(
            f"SQL semantic_rank top 10, filter 20 %, {options.rows:,} memories, text embedded in the call",
            times["meaning"].show(),
            "p50 < 5 ms, recall@10 >= 0.98",
            p50("meaning").median < 0.005 and recall >= 0.98,
            f"recall@10 {recall:.4f} against exact; {shown(steps['meaning'])}",
            {**times["meaning"].data(), "recall": recall},
        ),
        Row(
            f"SQL group by agent over {options.rows:,} memories, against the bare engine",
            f"{Spread.of(bare).show()} times",
            "at most 1.3x",
            Spread.of(bare).median <= 1.3,
            f"ours {times['group'].show()}; bare {times['bare'].show()}",
            {"ours": times["group"].data(), "bare": times["bare"].data()},
        ),
        Row(
            "SQL front end's own cost, statement known",
            times["known"].show(),
            "< 0.1 ms",
            p50("known").median < 0.0001,
        ),
        Row(
            "SQL front end's own cost, statement new",
            times["unknown"].show(),
            "< 1.5 ms",
            p50("unknown").median < 0.0015,
        ),
        Row(
            "pgbench, lookup by primary key, one connection, prepared, TLS 1.3, against PostgreSQL 15",
            f"{ratio.show()} times",
            "within 3x",
            ratio.median <= 3,
            f"ours {wire.show(1e3, 3)} ms a statement (audited durably), PostgreSQL {real.show(1e3, 3)} ms",
            {"ours": wire.median, "postgres": real.median},
        ),
    ]


def main() -> int:
    """On a store that is there already."""
    import tempfile

    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with tempfile.TemporaryDirectory() as work:
        options = replace(Options(Path(work)), rows=count, repeats=repeats)
        print(table(measured(directory, options)))
        print(machine(directory)["processor"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
