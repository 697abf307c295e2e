"""SQL in process and over the Postgres wire, beside the bare engine and a real PostgreSQL of the same run.

``python -m bench.sql DIR ROWS [REPEATS [PART...]]`` measures on a store that is there already (namespace
``company_a/support``): all parts, or those named. It makes a key there, and audit entries; it stores no
memory. The part ``learn`` measures nothing: it asks questions from which searches learn how far to look, and
closes the store, so that a snapshot keeps that.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from uuid import UUID

import numpy as np
import psycopg

from bench import _postgres, _wire_floor
from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, Row, Spread, Timed, load_average, machine, note, table
from strongroom.engine._large_pages import collapse, may_be_asked_for, own_blocks
from strongroom.recall.vectors import SAMPLE_QUESTIONS

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
GROUP_GENERAL: Final = (  # no everyday form: the columnar engine answers it
    "SELECT agent_id, count(*) AS n, avg(importance) AS mean, max(importance) AS most FROM memories"
    " GROUP BY agent_id"
)
EVERY_WAY: Final = (
    "SELECT agent_id, kind, round(importance, 2), length(content) FROM memories WHERE kind = $1"
    " AND contains(content, 'refund') ORDER BY created_at DESC LIMIT 10"
)
_PGBENCH_RUNS: Final = 40  # of the script; each statement is prepared once
_ASKED: Final = 100  # questions that are measured


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

    stores.perhaps_unverified()
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


def _embed(state: State, parameters: Sequence[Sequence[Any]]) -> list[float]:
    engine, out = state["engine"], []
    entry = engine.registry.get(stores.NAMESPACE)
    for (text,) in parameters:
        started = perf_counter()
        engine.models.embed_query(entry, text)
        out.append(perf_counter() - started)
    return out


def _curve(state: State) -> tuple[int, ...]:
    """How many lists are looked at for the best 10, 50, 200, 800."""
    engine = state["engine"]
    curve: tuple[int, ...] = engine.indexes.ready(engine.registry.get(stores.NAMESPACE)).vectors._reach.curve
    return curve


def _audit_alone(state: State, count: int) -> list[float]:
    """Seconds of the commit of one sealed audit entry, durable."""
    from strongroom.engine._call import Call
    from strongroom.ledger import WriteBatch

    engine, out = state["engine"], []
    call = Call(
        engine, "owner", "bench", "0" * 16, "sql", namespaces=(stores.NAMESPACE,), reason="a statement"
    )
    for _ in range(count):
        entry = call.entry("ok")
        started = perf_counter()
        engine.ledger.commit(WriteBatch(audit=[entry]))
        out.append(perf_counter() - started)
    return out


def _found(state: State, statement: str, parameters: Sequence[Sequence[Any]]) -> list[set[Any]]:
    return [{row[0] for row in state["session"].sql(statement, values).rows()} for values in parameters]


def _fill_bare(state: State) -> None:
    """The columns of the statements in a plain table of a plain engine, compressed as ours are."""
    import duckdb

    engine = state["engine"]
    index = engine.indexes.ready(engine.registry.get(stores.NAMESPACE))
    table = index.table.qualified  # waits for the columns, after a start from a snapshot
    with closing(engine.indexes._columnar.sql_cursor()) as cursor:
        rows = cursor.sql(f"SELECT kind, agent_id, importance FROM {table}").to_arrow_table()
    bare = state["bare"] = duckdb.connect(":memory:", config={"threads": "2"})
    bare.execute("ATTACH ':memory:' AS plain (COMPRESS)")
    bare.execute("USE plain")
    bare.register("arriving", rows)
    bare.execute("CREATE TABLE memories AS SELECT * FROM arriving")
    bare.execute("CHECKPOINT plain")
    bare.unregister("arriving")
    if may_be_asked_for():  # the engine asks for its own tables some time after it has loaded them
        for block in own_blocks():
            collapse(block)


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
    directory = stores.large(options)
    learn(directory)
    return measured(directory, options)


def learn(directory: Path) -> None:
    """Ask by meaning, with the filter, other texts than those that are measured."""
    with Child() as child:
        note("opening, learning")
        served: Served = child.call(_serve, directory)
        child.call(_learn, served.texts[_ASKED:])
        child.call(_end)


def _learn(state: State, texts: Sequence[str]) -> None:
    engine = state["engine"]
    index = engine.indexes.ready(engine.registry.get(stores.NAMESPACE))
    while index.vectors.is_building:
        index.vectors.wait_built(1.0)
    for start in range(0, len(texts), SAMPLE_QUESTIONS):
        _ask(state, MEANING, [[text] for text in texts[start : start + SAMPLE_QUESTIONS]])
        index.vectors._sample_at_s = 0.0  # otherwise every few seconds
        index.vectors.tend()
        index.wait_idle()


def _end(state: State) -> None:
    """Have a snapshot written and close, at leisure: at the end of a child process there is a minute."""
    engine = state.pop("engine")
    state.pop("session")
    keeper = engine.indexes._keeper
    keeper.tend()
    if keeper._writer is not None:
        keeper._writer.join()
    engine.close()


@dataclass
class Measuring:
    """A store that is served, and what was measured of it."""

    child: Child
    connection: Any
    served: Served
    options: Options
    times: dict[str, Timed] = field(default_factory=dict)

    def note(self, name: str, seconds: list[float]) -> None:
        self.times.setdefault(name, Timed()).repeats.append(seconds)


def measured(directory: Path, options: Options, parts: Sequence[str] = ()) -> list[Row]:
    """The rows of ``parts`` (none: all)."""
    with Child() as child:
        note("opening")
        served: Served = child.call(_serve, directory)
        with psycopg.connect(served.dsn(), autocommit=True) as connection:
            rows = []
            for name in parts or PARTS:
                note(name)
                rows += PARTS[name](Measuring(child, connection, served, options))
            return rows


def _everyday(m: Measuring) -> list[Row]:
    ids = m.served.ids
    cases: dict[str, tuple[str, list[list[Any]]]] = {
        "lookup": (LOOKUP, [[i] for i in ids]),
        "newest": (NEWEST, [[f"agent-{i % 7}"] for i in range(len(ids))]),
        "count": (COUNT, [["fact", 0.3 + (i % 60) / 100] for i in range(len(ids))]),
        "general": (EVERY_WAY, [["fact"] for _ in range(20)]),
    }
    for statement, parameters in cases.values():
        m.child.call(_ask, statement, parameters)  # the file is read once
        _over_wire(m.connection, statement, parameters[:30])
    for _ in range(m.options.repeats):
        for name, (statement, parameters) in cases.items():
            m.note(name, m.child.call(_ask, statement, parameters))
            m.note(f"{name} wire", _over_wire(m.connection, statement, parameters))
    rows = []
    for name, (statement, parameters) in cases.items():
        steps = _shown(m.child.call(_steps, statement, parameters[:100]))
        for way, limit in (("", 0.002), (" wire", 0.003)):
            aimed = name != "general"
            where = "through psycopg, prepared, TLS 1.3" if way else "in process"
            timed = m.times[name + way]
            rows.append(
                Row(
                    f"SQL {_WORDS[name]}, {m.options.rows:,} memories, {where}",
                    timed.show(),
                    f"p50 < {limit * 1e3:g} ms" if aimed else "",
                    timed.quantile(0.5).median < limit if aimed else None,
                    "" if way else steps,
                    timed.data(),
                )
            )
    return rows


def _meaning(m: Measuring) -> list[Row]:
    questions = [[text] for text in m.served.texts[: 40 if m.options.quick else _ASKED]]
    m.child.call(_ask, MEANING, questions[:20])
    for _ in range(m.options.repeats):
        m.note("meaning", m.child.call(_ask, MEANING, questions))
        m.note("embedding", m.child.call(_embed, questions))
    timed, steps = m.times["meaning"], _shown(m.child.call(_steps, MEANING, questions))
    note("recall")
    found, exact = (m.child.call(_found, s, questions) for s in (MEANING, EXACT))
    recall = float(np.mean([len(a & b) / max(1, len(b)) for a, b in zip(found, exact, strict=True)]))
    return [
        Row(
            f"SQL semantic_rank top 10, filter 20 %, {m.options.rows:,} memories, text embedded in the call",
            timed.show(),
            "p50 < 5 ms, recall@10 >= 0.98",
            timed.quantile(0.5).median < 0.005 and recall >= 0.98,
            f"recall@10 {recall:.4f} against exact ({len(questions)} questions); {steps};"
            f" embedding alone {m.times['embedding'].show()}; lists probed {m.child.call(_curve)}",
            {**timed.data(), "recall": recall},
        )
    ]


def _group(m: Measuring) -> list[Row]:
    m.child.call(_fill_bare)
    cases = {"an everyday form": GROUP, "with a maximum, no short form": GROUP_GENERAL}
    for statement in cases.values():
        m.child.call(_ask, statement, [[]] * 3)
    for _ in range(m.options.repeats):
        for name, statement in cases.items():
            m.note(name, m.child.call(_ask, statement, [[]] * 20))
            m.note(f"bare, {name}", m.child.call(_ask_bare, statement, 20))
    rows = []
    for name in cases:
        ours, bare = m.times[name], m.times[f"bare, {name}"]
        ratios = Spread.of(
            [
                float(np.median(mine)) / float(np.median(plain))
                for mine, plain in zip(ours.repeats, bare.repeats, strict=True)
            ]
        )
        rows.append(
            Row(
                f"SQL group by agent over {m.options.rows:,} memories, {name}, against the bare engine",
                f"{ratios.show()} times",
                "at most 1.3x",
                ratios.median <= 1.3,
                f"ours {ours.show()}; bare {bare.show()}",
                {"ours": ours.data(), "bare": bare.data()},
            )
        )
    return rows


def _front_end(m: Measuring) -> list[Row]:
    for _ in range(m.options.repeats):
        known, unknown = m.child.call(_front, 100)
        m.note("known", known)
        m.note("new", unknown)
    return [
        Row(
            f"SQL front end's own cost, statement {name}",
            m.times[name].show(),
            f"< {limit * 1e3:g} ms",
            m.times[name].quantile(0.5).median < limit,
        )
        for name, limit in (("known", 0.0001), ("new", 0.0015))
    ]


def _pgbench(m: Measuring) -> list[Row]:
    script = m.options.work / "lookup.sql"
    wire, real, least, ratios, entry = [], [], [], [], Timed()
    files = Path(m.served.certificate), Path(m.served.private_key)
    with (
        _postgres.running(m.options.work, files, m.served.ids, m.options.rows) as info,
        _wire_floor.floor(*files) as nothing,
    ):
        for dsn in (info, m.served.dsn(), nothing):
            _postgres.pgbench(dsn, script, m.served.ids, 10)
        for _ in range(m.options.repeats):
            real.append(_postgres.pgbench(info, script, m.served.ids, _PGBENCH_RUNS))
            wire.append(_postgres.pgbench(m.served.dsn(), script, m.served.ids, _PGBENCH_RUNS))
            least.append(_postgres.pgbench(nothing, script, m.served.ids, _PGBENCH_RUNS))
            ratios.append(wire[-1] / real[-1])
            entry.repeats.append(m.child.call(_audit_alone, 300))
    return [
        Row(
            "pgbench, lookup by primary key, one connection, prepared, TLS 1.3, against PostgreSQL 15",
            f"{Spread.of(ratios).show()} times",
            "within 3x",
            Spread.of(ratios).median <= 3,
            f"ours {Spread.of(wire).show(1e3, 3)} ms a statement (audited durably), PostgreSQL"
            f" {Spread.of(real).show(1e3, 3)} ms; a durable audit entry alone {entry.show()}; an asyncio"
            f" server that answers and does nothing {Spread.of(least).show(1e3, 3)} ms",
            {"ours": wire, "postgres": real, "entry": entry.data(), "nothing": least},
        )
    ]


def _shown(parts: dict[str, float]) -> str:
    return "ms: " + ", ".join(f"{k} {v}" for k, v in sorted(parts.items(), key=lambda kv: -kv[1])[:5])


_WORDS: Final = {
    "lookup": "point lookup by memory_id",
    "newest": "newest 10 of one agent",
    "count": "count with two filters",
    "general": "ten newest rows whose text holds a word (no short form)",
}
PARTS: Final[dict[str, Callable[[Measuring], list[Row]]]] = {
    "everyday": _everyday,
    "meaning": _meaning,
    "group": _group,
    "front": _front_end,
    "pgbench": _pgbench,
}


def main() -> int:
    """On a store that is there already."""
    import tempfile

    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    parts = sys.argv[4:]
    if parts == ["learn"]:
        learn(directory)
        return 0
    with tempfile.TemporaryDirectory() as work:
        options = replace(Options(Path(work)), rows=count, repeats=repeats)
        before = load_average()
        print(table(measured(directory, options, parts)))
        print(f"{machine(directory)['processor']}; load average {before} before, {load_average()} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
