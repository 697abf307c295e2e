"""Stores to measure on, and what is done with them inside a child process."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import strongroom
from bench import data
from bench._child import State
from bench._harness import Options, note, resident_mib
from bench.streamed import ROWS_MIN, Streamed
from strongroom.config import CONFIG_NAME, Config, LogConfig, RecallConfig, load_config, to_toml

NAMESPACE = "company_a/support"
WORKERS = 2
_CHUNK = 10_000
_TOLD_ROWS = 500_000
VERIFY_S = 300.0


def config(rows: int = 0) -> Config:
    """The product's own configuration, without its log lines; for many ``rows`` its columns may take more."""
    recall = RecallConfig()
    if rows > 4_000_000:
        recall = replace(recall, memory_limit=f"{rows // 1_000_000}GB")
    return Config(log=LogConfig(level="error"), recall=recall)


def corpus(options: Options) -> data.Corpus:
    return data.make(options.rows, options.seed, queries=100 if options.quick else 200)


def large_corpus(options: Options) -> data.Corpus | Streamed:
    """``corpus``, block by block when it is large."""
    if options.rows < ROWS_MIN:
        return corpus(options)
    return Streamed(options.rows, options.seed, queries=100 if options.quick else 200)


def build(state: State, directory: Path, options: Options, workers: int = 1) -> float:
    """A store with the whole corpus in one namespace, left open in ``state["room"]``; rows per second.

    The time that a streamed corpus takes to be made is left out: with several workers each load gets what
    was made before. The start of workers is in the time, that of each load."""
    rows = large_corpus(options)
    strongroom.init(directory, config=config(options.rows))
    room = state["room"] = strongroom.open(directory)
    started, making_s = perf_counter(), 0.0
    if workers > 1 and not isinstance(rows, Streamed):
        parts = (rows.items(NAMESPACE, start, _CHUNK) for start in range(0, options.rows, _CHUNK))
        return room.load(chain.from_iterable(parts), workers=workers) / (perf_counter() - started)
    step = _TOLD_ROWS if workers > 1 else _CHUNK
    for start in range(0, options.rows, step):
        before, end = perf_counter(), min(start + step, options.rows)
        items = [i for at in range(start, end, _CHUNK) for i in rows.items(NAMESPACE, at, _CHUNK)]
        if isinstance(rows, Streamed):
            making_s += perf_counter() - before
        if workers > 1:
            room.load(items, workers=workers)
        else:
            room.store_many(items)
        if not end % _TOLD_ROWS:
            note(f"{end:,} stored, {end / (perf_counter() - started - making_s):,.0f}/s")
    return options.rows / (perf_counter() - started - making_s)


def large(options: Options, given: Path | None = None) -> Path:
    """The directory of the sealed store with the whole corpus: a copy of ``given``, or made."""
    from bench._child import Child

    directory = options.work / "large"
    if given is not None:
        note("copying the store")
        shutil.copytree(given, directory)
        shutil.copytree(given.with_name(given.name + ".keys"), directory.with_name("large.keys"))
        return directory
    if not (options.work / "large.built").exists():
        with Child() as child:
            child.call(build, directory, options)
        (options.work / "large.built").touch()
    return directory


def perhaps_unverified() -> None:
    """With ``STRONGROOM_BENCH_UNVERIFIED`` set rows are not compared with the snapshot, where there is no
    time to wait for that: what is measured afterwards does not depend on it."""
    if os.environ.get("STRONGROOM_BENCH_UNVERIFIED"):
        from strongroom.engine._keeper import Keeper

        Keeper._verify = lambda *_: None  # type: ignore[method-assign]


def open_store(state: State, directory: Path) -> dict[str, float]:
    """Open it and ask one question; seconds of both, and memory."""
    perhaps_unverified()
    before = resident_mib()
    started = perf_counter()
    room = state["room"] = strongroom.open(directory)
    opened = perf_counter()
    room.search("a first question", namespaces=[NAMESPACE])
    answered = perf_counter()
    room.engine.indexes.wait_verified(VERIFY_S)  # what follows is measured without that in the background
    return {
        "open_s": opened - started,
        "first_answer_s": answered - opened,
        "verified_s": perf_counter() - answered,
        "rss_before_mib": before,
        "rss_after_mib": resident_mib(),
    }


def is_settled(room: Any) -> bool:
    """Whether an open store has done what comes after loading: rows compared, lists made where there are to
    be any, all of it in a snapshot; and nothing of that is going on."""
    engine = room.engine
    entry = engine.registry.get(NAMESPACE)
    index = engine.indexes.loaded_index(entry.ns)
    if index is None or index.vectors is None or engine.indexes.is_busy(entry.ns):
        return False
    if index.vectors.is_building or index.vectors._wants_rebuild():
        return False
    kept = engine.indexes._keeper._of(entry.ns)
    return kept.seq is not None and kept.lists >= index.vectors.standing[0]


def search_block(state: State, queries: list[str], **options: Any) -> tuple[list[float], list[list[bytes]]]:
    """Durations of one search per query, and the ids that each found."""
    room = state["room"]
    seconds, found = [], []
    for query in queries:
        started = perf_counter()
        hits = room.search(query, namespaces=[NAMESPACE], k=10, **options)
        seconds.append(perf_counter() - started)
        found.append([h.memory.memory_id.bytes for h in hits])
    return seconds, found


def steps(state: State) -> dict[str, tuple[float, float]]:
    """(seconds in all, how often) of each step and operation so far, from the engine's own metrics."""
    out: dict[str, tuple[float, float]] = {}
    for metric in state["room"].engine.metrics.registry.collect():
        if metric.name in ("strongroom_step_seconds", "strongroom_operation_seconds"):
            for sample in metric.samples:
                name = sample.labels.get("step") or "operation " + sample.labels.get("operation", "")
                total, count = out.get(name, (0.0, 0.0))
                if sample.name.endswith("_sum"):
                    out[name] = (total + sample.value, count)
                elif sample.name.endswith("_count"):
                    out[name] = (total, count + sample.value)
    return out


def resident(state: State) -> float:
    return resident_mib()


def set_recall(directory: Path, **changes: Any) -> None:
    """Change settings of ``[recall]`` in the configuration of a store."""
    found = load_config(directory)
    changed = replace(found, recall=replace(found.recall, **changes))
    (directory / CONFIG_NAME).write_text(to_toml(changed), "utf-8")


def exact_copy(directory: Path, to: Path) -> Path:
    """A copy that searches every vector, for the ground truth."""
    shutil.copytree(directory, to)
    shutil.copytree(directory.with_name(directory.name + ".keys"), to.with_name(to.name + ".keys"))
    set_recall(to, exact_rows_max=10**9)
    return to
