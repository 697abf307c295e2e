"""A million memories in one namespace: latency, recall by filter, memory, warm start, stores beside searches.

``script/bench scale --rows 1000000`` runs all parts, each in a process of its own. Recall of the vector lane
is against exact cosines of the float32 vectors; recall of hybrid answers is against the same engine with
every list probed. How far to look is learnt from other questions than those that are measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import sys
import threading
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import _stores as stores
from bench import data, reopen
from bench._child import Child, State
from bench._harness import Options, Row, Spread, Timed, load_average, note, resident_mib
from bench.streamed import ROWS_MIN, Streamed
from strongroom.recall._reach import SAMPLES_MAX
from strongroom.recall.vectors import SAMPLE_QUESTIONS

_CASES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "semantic": {"mode": "semantic"},
    "keyword": {"mode": "keyword"},
    **{f"hybrid, filter {name}": given for name, given in data.FILTERS.items()},
}
_STORES = 600
_TRUE = 10
_SEARCHES_PER_S = 20


def run(options: Options) -> list[Row]:
    if options.rows >= ROWS_MIN:  # ten minutes after each start
        os.environ["STRONGROOM_BENCH_UNVERIFIED"] = "1"
    return [row for part in PARTS.values() for row in part(options)]


def _build(options: Options) -> list[Row]:
    """Build the store, unless it is there."""
    built = options.work / "large.built"
    if built.exists():
        return []
    with Child() as child:
        rate = child.call(stores.build, options.work / "large", options, stores.WORKERS)
    built.touch()
    return [
        Row(
            f"load of {options.rows:,} by {stores.WORKERS} workers: vectors, all fields, 1,000 subjects",
            f"{rate:,.0f}/s",
            "> 20,000/s",
            rate > 20_000,
            data={"rows_per_s": rate},
        )
    ]


def _bulk(options: Options) -> list[Row]:
    """Build the store, open it from its rows, let it learn, and leave a snapshot."""
    rows = _build(options)
    note("opening from the rows, learning")
    shutil.rmtree(options.work / "large" / "snapshots", ignore_errors=True)
    with Child() as child:
        found = child.call(_learn, options)
    rows.append(
        Row(
            f"opening {options.rows:,} from the rows to the first answer",
            f"{found['first_answer_s']:,.1f} s",
            against=f"{found['settled_s']:,.1f} s more for the lists; {found['peak_mib']:,.0f} MiB at most",
            data=found,
        )
    )
    return rows


def _learn(state: State, options: Options) -> dict[str, Any]:
    """Open, wait for the lists, and ask other questions than those that are measured."""
    found = stores.open_store(state, options.work / "large")
    started = stores.perf_counter()
    index = _index(state)
    while index.vectors.is_building or not index.wait_idle(1.0):
        index.vectors.wait_built(1.0)
    settled_s = stores.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the bench's own corpus comes
    questions = _learning_questions(state, options)
    for start in range(0, len(questions), SAMPLE_QUESTIONS):
        for question in questions[start : start + SAMPLE_QUESTIONS]:
            index.vectors.search(question, 10)
        index.vectors._sample_at_s = 0.0  # otherwise every 20 s
        index.vectors.tend()
        index.wait_idle()
    return {**found, "settled_s": settled_s, "peak_mib": peak, "curve": index.vectors._reach.curve}


def _searches(options: Options) -> list[Row]:
    corpus = stores.large_corpus(options)
    with Child() as child:
        child.call(stores.open_store, options.work / "large")
        child.call(stores.search_block, corpus.queries)
        note("searching")
        times = {name: Timed() for name in _CASES}
        floor = Timed()
        for _ in range(options.repeats):
            floor.repeats.append(child.call(_embedding, corpus.queries))
            for name, given in _CASES.items():
                times[name].repeats.append(child.call(stores.search_block, corpus.queries, **given)[0])
        few = 40 if isinstance(corpus, Streamed) else 100  # every list probed: half a second at ten million
        recall = child.call(_hybrid_recall, corpus.queries[:few])
    rows = [Row("embedding of a question alone", floor.show(), data=floor.data())]
    for name, timed in times.items():
        row = Row(f"search() {name}, {options.rows:,} memories", timed.show(), data=timed.data())
        if name in recall:
            row.against = f"recall@10 {recall[name]:.4f} against every list probed"
        if name == "hybrid":
            p50, p99 = timed.quantile(0.5), timed.quantile(0.99)
            row.target, row.met = "p50 < 4, p99 < 12 ms", p50.median < 0.004 and p99.median < 0.012
        rows.append(row)
    return rows


def _vector_lane(options: Options) -> list[Row]:
    queries = stores.large_corpus(options).queries
    with Child() as child:
        child.call(stores.open_store, options.work / "large")
        note("the vector lane alone")
        lane = child.call(_lane, options, queries)
    return [_lane_row(name, found, options) for name, found in lane.items()]


def _resident(options: Options) -> list[Row]:
    queries = stores.large_corpus(options).queries
    with Child() as child:
        opened = child.call(stores.open_store, options.work / "large")
        child.call(stores.search_block, queries, **data.FILTERS["5 %"])
        memory = child.call(_memory)
    return [
        Row(
            f"memory of a process with {options.rows:,} memories, from a snapshot",
            f"{memory['resident']:,.0f} MiB resident",
            "< 3 GB",
            memory["resident"] < 3e9 / 2**20,
            f"{opened['rss_before_mib']:,.0f} MiB before; by the index's own count, MiB: {memory['parts']}",
            memory,
        )
    ]


def _stores_beside(options: Options) -> list[Row]:
    queries = stores.large_corpus(options).queries
    timed = Timed()
    with Child() as child:
        child.call(stores.open_store, options.work / "large")
        note("stores beside searches")
        timed.repeats = child.call(_beside, options, queries)
    p50, p99 = timed.quantile(0.5), timed.quantile(0.99)
    return [
        Row(
            f"store() with a vector beside {_SEARCHES_PER_S} searches a second, {options.rows:,} memories",
            timed.show(),
            "p50 < 1, p99 < 5 ms",
            p50.median < 0.001 and p99.median < 0.005,
            data=timed.data(),
        )
    ]


def _warm_starts(options: Options) -> list[Row]:
    directory = options.work / "large"
    note("opening in new processes")
    reopen.start(directory)  # its modules are compiled, and it takes in what came since the snapshot
    rows = []
    for cold in (False, True):
        whole, parts = [], []
        for _ in range(options.repeats):
            forgotten = reopen._forget(directory) if cold else True
            found = reopen.start(directory)
            whole.append(found.pop("whole"))
            parts.append(found)
        spread = Spread.of(whole)
        shown = ", ".join(f"{k} {Spread.of([p.get(k, 0.0) for p in parts]).median:.2f}" for k in parts[0])
        where = "its files dropped from the page cache" if cold and forgotten else "page cache warm"
        rows.append(
            Row(
                f"warm start with {options.rows:,} to the first answer, new process, {where}",
                spread.show(1, 2, " s"),
                "< 2.5 s",
                spread.median < 2.5,
                f"seconds: {shown}",
                {"seconds": whole, "parts": parts},
            )
        )
    return rows


def _index(state: State) -> Any:
    engine = state["room"].engine
    entry = engine.registry.get(stores.NAMESPACE)
    return engine.indexes.ready(entry)


def _embedding(state: State, queries: list[str]) -> list[float]:
    """Seconds of each embedding."""
    engine = state["room"].engine
    entry = engine.registry.get(stores.NAMESPACE)
    seconds = []
    for query in queries:
        started = stores.perf_counter()
        engine.models.embed_query(entry, query)
        seconds.append(stores.perf_counter() - started)
    return seconds


def _embedded(state: State, queries: list[str]) -> NDArray[np.float32]:
    engine = state["room"].engine
    entry = engine.registry.get(stores.NAMESPACE)
    return np.stack([engine.models.embed_query(entry, query) for query in queries])


def _lane(state: State, options: Options, queries: list[str]) -> dict[str, Any]:
    """Seconds of each search and recall@10, by filter."""
    from strongroom.model import Filter

    index, asked = _index(state), _embedded(state, queries)
    index.wait_idle()
    rid_of = _rids(state, index)
    out: dict[str, Any] = {}
    note("exact cosines")
    truths = _truths(options, asked)
    now_us = state["room"].engine.now_us()
    for name, truth in truths.items():
        wanted = Filter(**data.FILTERS[name]) if name else Filter()
        timed, shares = Timed(), []
        for repeat in range(options.repeats):
            seconds = []
            for number, question in enumerate(asked):
                with index.lock.read:
                    started = stores.perf_counter()
                    found, _ = index.vectors.search(question, 10, index.allowed(wanted, now_us))
                    seconds.append(stores.perf_counter() - started)
                if not repeat:
                    shares.append(len(set(found.tolist()) & set(rid_of[truth[number]].tolist())) / 10)
            timed.repeats.append(seconds)
        reach = index.vectors._reach
        learnt = f"lists {reach.curve}; by short codes {reach.coded}, rows looked at {reach.again}"
        out[name] = {"timed": timed, "recall": float(np.mean(shares)), "learnt": learnt}
    return out


def _learning_questions(state: State, options: Options) -> NDArray[np.float32]:
    """Other questions than those that are measured, made in the same way."""
    rng = np.random.default_rng(options.seed + 9)
    return _embedded(state, stores.large_corpus(options).other_questions(SAMPLES_MAX, rng))


def _rids(state: State, index: Any) -> NDArray[np.int64]:
    """The row of the index for each row of the corpus, told by the ticket in the metadata."""
    index.table.flush()  # after an opening from the rows some wait for the first question about columns
    with state["room"].engine.indexes._columnar.cursor() as cursor:
        ticket = "CAST(json_extract_string(metadata, '$.ticket') AS BIGINT)"
        found = cursor.execute(f"SELECT rid, {ticket} t FROM {index.table.qualified}").fetchnumpy()
    out = np.zeros(int(found["t"].max()) - 10_000 + 1, np.int64)
    out[found["t"] - 10_000] = found["rid"]
    return out


def _truths(options: Options, asked: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
    """For each filter the ten nearest rows of each question, by exact cosines; kept for a streamed corpus."""
    corpus = stores.large_corpus(options)
    names = ["", *data.FILTERS]
    path = None
    if isinstance(corpus, Streamed):
        path = data.kept(f"truth-{corpus.name}-{sha256(asked.tobytes()).hexdigest()[:16]}.npz")
        if path.exists():
            with np.load(path) as stored:
                return {name: stored[str(i)] for i, name in enumerate(names)}
    truths = nearest(asked, corpus.blocks(), {name: corpus.passes(name) for name in names})
    if path is not None:
        kept: dict[str, Any] = {str(i): truths[name] for i, name in enumerate(names)}
        np.savez(path, **kept)
    return truths


def nearest(
    asked: NDArray[np.float32],
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    masks: Mapping[str, NDArray[np.bool_]],
) -> dict[str, NDArray[np.int64]]:
    """For each mask the ten rows that are nearest to each question, by exact cosines, in no order.

    ``blocks``: the number of their first row, and vectors.
    """
    best = {name: _Best(len(asked)) for name in masks}
    for start, vectors in blocks:
        scores = asked @ vectors.T
        for name, mask in masks.items():
            best[name].take(scores, start, np.flatnonzero(mask[start : start + len(vectors)]))
    return {name: found.rows for name, found in best.items()}


class _Best:
    """The ten best rows of each question so far."""

    def __init__(self, questions: int) -> None:
        self._scores = np.full((questions, 0), -np.inf, np.float32)
        self.rows = np.zeros((questions, 0), np.int64)

    def take(self, scores: NDArray[np.float32], start: int, places: NDArray[np.int64]) -> None:
        """Further rows: ``places`` among the columns of ``scores``, the first of which is row ``start``."""
        if self.rows.shape[1] == _TRUE:  # what is no better anywhere need not be sorted
            places = places[(scores[:, places] > self._scores.min(axis=1)[:, None]).any(axis=0)]
        both = np.concatenate([self._scores, scores[:, places]], axis=1)
        new = np.broadcast_to(start + places, (len(scores), len(places)))
        rows = np.concatenate([self.rows, new], axis=1)
        if rows.shape[1] > _TRUE:
            keep = np.argpartition(-both, _TRUE, axis=1)[:, :_TRUE]
            both, rows = np.take_along_axis(both, keep, 1), np.take_along_axis(rows, keep, 1)
        self._scores, self.rows = both, rows


def _hybrid_recall(state: State, queries: list[str]) -> dict[str, float]:
    from strongroom.recall._reach import Reach

    index = _index(state)
    lane = index.vectors
    out = {}
    for name, given in _CASES.items():
        if name == "keyword":
            continue
        learnt = lane._reach
        found = stores.search_block(state, queries, **given)[1]
        lane._reach = Reach((lane._lists.lists,) * len(learnt.curve))
        truth = stores.search_block(state, queries, **given)[1]
        lane._reach = learnt
        shares = [len(set(f) & set(t)) / len(t) for f, t in zip(found, truth, strict=True) if t]
        out[name] = float(np.mean(shares))
    return out


def _memory(state: State) -> dict[str, Any]:
    index = _index(state)
    parts = {
        "vectors": index.vectors.memory_bytes(),
        "keywords": index.keywords.memory_bytes(),
        "ids and numbers": index._roster.memory_bytes(),
        "columns (estimate)": index.table.memory_bytes(),
    }
    shown = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items())
    return {"resident": resident_mib(), "parts": shown}


def _beside(state: State, options: Options, queries: list[str]) -> list[list[float]]:
    """Seconds of single stores while another thread searches at a steady rate; a list per repeat."""
    room = state["room"]
    corpus = stores.large_corpus(options)
    out = []
    for repeat in range(options.repeats):
        stop = threading.Event()

        def ask() -> None:
            number = 0
            while not stop.wait(1 / _SEARCHES_PER_S):  # noqa: B023 - joined before the next one
                room.search(queries[number % len(queries)], namespaces=[stores.NAMESPACE])
                number += 1

        thread = threading.Thread(target=ask)
        thread.start()
        seconds = []
        for number in range(_STORES):
            vector = corpus.vector(repeat * _STORES + number * 7)
            started = stores.perf_counter()
            room.store(f"beside {repeat} {number}", namespace=stores.NAMESPACE, embedding=vector)
            seconds.append(stores.perf_counter() - started)
            stop.wait(0.005)
        stop.set()
        thread.join()
        out.append(seconds)
    return out


def _lane_row(name: str, found: dict[str, Any], options: Options) -> Row:
    timed: Timed = found["timed"]
    limit_s = 0.004 if name else 0.0015
    return Row(
        f"vector lane{', filter ' + name + ' included' if name else ' alone'}, {options.rows:,} memories",
        timed.show(),
        f"p50 < {limit_s * 1e3:g} ms at recall@10 >= 0.98",
        timed.quantile(0.5).median < limit_s and found["recall"] >= 0.98,
        f"recall@10 {found['recall']:.4f} against exact cosines; {found['learnt']}",
        {**timed.data(), "recall_at_10": found["recall"]},
    )


PARTS = {
    "bulk": _bulk,
    "starts": _warm_starts,
    "lane": _vector_lane,
    "searches": _searches,
    "resident": _resident,
    "beside": _stores_beside,
}


PARTS_ALONE = {**PARTS, "build": _build}  # the first half of the first


if __name__ == "__main__":  # python -m bench.scale PART OPTIONS OUT: one part, for a machine that is shared
    name, given, out = sys.argv[1:4]
    os.environ["STRONGROOM_BENCH_UNVERIFIED"] = "1"
    before = load_average()
    made = PARTS_ALONE[name](Options.parse(given))
    result = {"rows": [dataclasses.asdict(r) for r in made], "load_average": [before, load_average()]}
    Path(out).write_text(json.dumps(result), "utf-8")
    for row in made:
        print(
            row.name, "|", row.measured, "|", row.against, f"| load {before} to {load_average()}", flush=True
        )
