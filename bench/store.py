"""store(): durable, sealed, audited; beside a raw SQLite insert of the same bytes in the same run."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw
import numpy as np

import strongroom
from bench import _stores as stores
from bench import data
from bench._child import Child, State
from bench._harness import Options, Row, Spread, Timed, note
from strongroom.model import Field

_WRITERS = 8
_BATCH = 10_000
_SUBJECTS = 20  # known before the clock starts; the first memory of a new one is a row of its own
_LOADED = "the same into a namespace that is being searched"
_SINGLE = {
    "vector": "vector given",
    "queued": "embedding queued, worker elsewhere",
    "worker": "embedding queued, worker of this process busy",
    "subject": "vector given, each for a new data subject (a key is made and wrapped)",
}


_LOG_BYTES = 96 * 1024 * 1024
_WARM_UP = 10_000  # stores with vectors: more than the log holds, so that it has started over in place


class Raw:
    """The floor: one row of the same bytes, WAL and synchronous=FULL, committed one by one.

    ``in_place``: the log has its length before the clock starts and is overwritten, as Strongroom's is. A
    log that grows costs the file system a record of its new length at each fsync, twice the time of the
    commit itself; SQLite alone pays that until its log starts over for the first time.
    """

    def __init__(self, path: Path, sizes: list[int], *, in_place: bool = True) -> None:
        self._db = apsw.Connection(str(path))
        self._db.execute("PRAGMA journal_mode=WAL").fetchall()
        self._db.execute("PRAGMA synchronous=FULL").fetchall()
        if in_place:
            self._db.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        columns = ", ".join(f"c{i} BLOB" for i in range(len(sizes)))
        self._db.execute(f"CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, {columns})")
        self._insert = f"INSERT INTO t VALUES (NULL, {', '.join('?' * len(sizes))})"
        self._values = [os.urandom(n) for n in sizes]
        if in_place:
            with Path(f"{path}-wal").open("r+b") as log:  # zeros behind the last frame end the log
                log.seek(0, os.SEEK_END)
                for _ in range(_LOG_BYTES // 2**20):
                    log.write(bytes(2**20))
                log.flush()
                os.fsync(log.fileno())

    def insert(self) -> None:
        self._db.execute(self._insert, self._values)

    def insert_many(self, count: int, chunk: int = 1000) -> None:
        for start in range(0, count, chunk):
            with self._db:
                self._db.executemany(self._insert, [self._values] * min(chunk, count - start))

    def close(self) -> None:
        self._db.close()


def run(options: Options) -> list[Row]:
    count = 200 if options.quick else 500
    corpus = data.make(max(_BATCH, options.rows // 10), options.seed)
    items = [{**i, "subject": f"user:{n % _SUBJECTS}"} for n, i in enumerate(corpus.items("store/single"))]
    rows = [_single(options, items, name, count) for name in _SINGLE]
    rows.append(_writers(options, items, count))
    rows += _many(options, corpus)
    rows += _loads(options, corpus)
    rows.append(_sealing(options, items, count))
    return rows


def _open(options: Options, name: str, **more: Any) -> Any:
    directory = options.work / f"store-{name}"
    if not directory.exists():
        strongroom.init(directory, config=stores.config())
    return strongroom.open(directory, **more)


def _sizes(room: Any, memory: Any) -> list[int]:
    """Bytes that storing this memory wrote: its sealed rows and the audit entry."""
    ledger = room.engine.ledger
    ns = room.engine.registry.get(memory.namespace).ns
    rows = [ledger.get(ns, memory.memory_id.bytes, f) for f in (Field.MEMORY, Field.VECTOR)]
    audit = ledger.audit_entries(ledger.audit_count() - 1, 1)[0][1]
    return [len(r.sealed) for r in rows if r is not None] + [len(audit)]


def _single(options: Options, items: list[dict[str, Any]], kind: str, count: int) -> Row:
    """Single stores and raw inserts by turns."""
    note(f"store(), {_SINGLE[kind]}")
    room = _open(options, kind, worker=kind == "worker")
    drop = ("embedding",) if kind in ("queued", "worker") else ()
    given = [{k: v for k, v in i.items() if k not in drop} for i in items]
    _warm_up(room, items)
    for i in range(50):
        memory = room.store(**given[i])
    sizes = _sizes(room, memory)
    raw = Raw(options.work / f"raw-{kind}.db", sizes)
    growing = Raw(options.work / f"growing-{kind}.db", sizes, in_place=False)
    ours, theirs, grown = Timed(), Timed(), Timed()
    at = 50
    for _ in range(options.repeats):
        a, b, c = [], [], []
        for i in range(at, at + count):
            item = given[i % len(given)]
            if kind == "subject":
                item = {**item, "subject": f"new:{i}"}
            started = perf_counter()
            room.store(**item)
            middle = perf_counter()
            raw.insert()
            b.append(perf_counter() - middle)
            a.append(middle - started)
        for _ in range(count // 5):
            started = perf_counter()
            growing.insert()
            c.append(perf_counter() - started)
        at += count
        ours.repeats.append(a)
        theirs.repeats.append(b)
        grown.repeats.append(c)
    raw.close()
    growing.close()
    room.close()
    ratio = Spread.of(
        [float(np.median(x) / np.median(y)) for x, y in zip(ours.repeats, theirs.repeats, strict=True)]
    )
    p50 = ours.quantile(0.5).median
    row = Row(
        f"durable, sealed, audited store() in process, {_SINGLE[kind]}",
        ours.show(3),
        against=f"{ratio.show()} times raw SQLite FULL, both logs in place ({theirs.show(3)}); "
        f"raw with a log that grows: p50 {grown.quantile(0.5).show(1e3, 3)} ms",
        data={
            "store": ours.data(),
            "raw": theirs.data(),
            "raw_growing": grown.data(),
            "ratio": [ratio.low, ratio.median, ratio.high],
        },
    )
    if kind == "vector":
        row.target, row.met = "p50 < 1 ms, at most 2x raw", p50 < 0.001 and ratio.median <= 2.0
    return row


def _warm_up(room: Any, items: list[dict[str, Any]]) -> None:
    """Write until the log has started over, so that nothing that follows makes it longer."""
    given = [{**items[i % len(items)], "namespace": "store/warm-up"} for i in range(_WARM_UP)]
    room.store_many(given)


def _throughput(room: Any, given: list[dict[str, Any]], threads: int, count: int) -> float:
    def work(number: int) -> None:
        for i in range(number, count, threads):
            room.store(**given[i % len(given)])

    started = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return count / (perf_counter() - started)


def _writers(options: Options, items: list[dict[str, Any]], count: int) -> Row:
    note(f"{_WRITERS} writers and one")
    room = _open(options, "writers", worker=False)
    _warm_up(room, items)
    for item in items[:50]:
        room.store(**item)
    one, many = [], []
    for _ in range(options.repeats):
        one.append(_throughput(room, items, 1, count))
        many.append(_throughput(room, items, _WRITERS, count * 2))
    room.close()
    ratio = Spread.of([b / a for a, b in zip(one, many, strict=True)])
    return Row(
        f"{_WRITERS} concurrent writers, throughput against one",
        f"{ratio.show()} times",
        "at least 2x",
        ratio.median >= 2.0,
        f"{Spread.of(many).show(1, 0)}/s against {Spread.of(one).show(1, 0)}/s",
        {"one_per_s": one, "many_per_s": many},
    )


def _many(options: Options, corpus: data.Corpus) -> list[Row]:
    note(f"store_many of {_BATCH:,}")
    room = _open(options, "many", worker=False)
    with_vectors = corpus.items("x", 0, _BATCH)
    without = [{k: v for k, v in i.items() if k != "embedding"} for i in with_vectors]
    plain = [{"content": i["content"]} for i in with_vectors]
    cases = {
        "text alone, without embedding": plain,
        "all fields, 1,000 subjects, without embedding": without,
        "all fields, 1,000 subjects, vectors given": with_vectors,
        _LOADED: with_vectors,
    }
    memory = room.store_many([{**with_vectors[0], "namespace": "many/sizes"}])[0]
    raw = Raw(options.work / "raw-many.db", _sizes(room, memory), in_place=False)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    floor = []
    for repeat in range(options.repeats):
        for number, (name, items) in enumerate(cases.items()):
            namespace = f"many/n{repeat}-{number}"
            room.store("the first of its namespace", namespace=namespace, embedding=corpus.vectors[0])
            if name == _LOADED:
                room.search("a first question", namespaces=[namespace], mode="keyword")
            batch = [{**i, "namespace": namespace} for i in items]
            started = perf_counter()
            room.store_many(batch)
            rates[name].append(_BATCH / (perf_counter() - started))
        started = perf_counter()
        raw.insert_many(_BATCH)
        floor.append(_BATCH / (perf_counter() - started))
    raw.close()
    room.close()
    out = []
    for number, (name, found) in enumerate(rates.items()):
        spread = Spread.of(found)
        out.append(
            Row(
                f"store_many of {_BATCH:,}: {name}",
                f"{spread.show(1, 0)}/s",
                "> 20,000/s" if number == 0 else "",
                spread.median > 20_000 if number == 0 else None,
                f"raw SQLite, the bytes with vectors, 1,000 a transaction: {Spread.of(floor).show(1, 0)}/s",
                {"per_s": found, "raw_per_s": floor},
            )
        )
    return out


def _loads(options: Options, corpus: data.Corpus) -> list[Row]:
    """Loads large enough that starting processes does not decide, by turns with store_many and the floor."""
    count = _BATCH if options.quick else 4 * _BATCH
    note(f"loads of {count:,}")
    room = _open(options, "loads", worker=False)
    items = [i for _ in range(count // _BATCH) for i in corpus.items("loads/all", 0, _BATCH)]
    memory = room.store_many(items[:1])[0]
    raw = Raw(options.work / "raw-loads.db", _sizes(room, memory), in_place=False)
    ways = {
        "store_many, 10,000 a call": lambda: [
            room.store_many(items[at : at + _BATCH]) for at in range(0, count, _BATCH)
        ],
        "load, this process": lambda: room.load(items),
        f"load, {stores.WORKERS} workers, their start included": lambda: room.load(
            items, workers=stores.WORKERS
        ),
        "raw": lambda: raw.insert_many(count),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(options.repeats):
        for name, way in ways.items() if repeat % 2 else reversed(ways.items()):
            started = perf_counter()
            way()
            rates[name].append(count / (perf_counter() - started))
    raw.close()
    room.close()
    floor = rates.pop("raw")
    return [
        Row(
            f"{name}: {count:,}, all fields, 1,000 subjects, vectors given",
            f"{Spread.of(found).show(1, 0)}/s",
            "> 20,000/s" if "workers" in name else "",
            Spread.of(found).median > 20_000 if "workers" in name else None,
            f"raw SQLite, 1,000 a transaction: {Spread.of(floor).show(1, 0)}/s",
            {"per_s": found, "raw_per_s": floor},
        )
        for name, found in rates.items()
    ]


def _child_open(state: State, directory: Path) -> None:
    strongroom.init(directory, config=stores.config())
    state["room"] = strongroom.open(directory, worker=False)


def _child_store(state: State, items: list[dict[str, Any]]) -> list[float]:
    room = state["room"]
    seconds = []
    for item in items:
        started = perf_counter()
        room.store(**item)
        seconds.append(perf_counter() - started)
    return seconds


def _sealing(options: Options, items: list[dict[str, Any]], count: int) -> Row:
    note("store() with sealing and without")
    times = {True: Timed(), False: Timed()}
    with Child() as sealed, Child(sealed=False) as clear:
        children = {True: sealed, False: clear}
        for on, child in children.items():
            child.call(_child_open, options.work / f"store-sealing-{on}")
            child.call(_child_store, items[:50])
        for repeat in range(options.repeats):
            part = items[50 + repeat * count :][:count]
            for on in (True, False) if repeat % 2 else (False, True):
                times[on].repeats.append(children[on].call(_child_store, part))
    cost = Spread.of(
        [
            float(np.median(a) / np.median(b)) - 1
            for a, b in zip(times[True].repeats, times[False].repeats, strict=True)
        ]
    )
    return Row(
        "cost of sealing on store(), on versus off",
        cost.show(100, 1, " %"),
        against=f"off: {times[False].show(3)}",
        data={"on": times[True].data(), "off": times[False].data()},
    )
