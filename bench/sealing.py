"""What sealing costs on store() and search(): pairs of short blocks, with and without it, by turns.

A figure of two long runs says more about what else the machine did. Here the two sides alternate every few
operations, hundreds of times; each pair gives one ratio, and the interval is that of the median of all
ratios (95 %, by resampling). Times are of the processor, of all threads of the process: the wait for the disk
is the same on both sides and would only dilute the ratio. Wall time is given beside it.
"""

from __future__ import annotations

import time
from typing import Any

from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, Row, median_interval, note
from bench.store import _child_open

_QUERIES = 8
_STORES = 10


def _search(state: State, queries: list[str]) -> tuple[float, float]:
    return _timed(lambda: stores.search_block(state, queries))


def _store(state: State, items: list[dict[str, Any]]) -> tuple[float, float]:
    def work() -> None:
        for item in items:
            state["room"].store(**item)

    return _timed(work)


def _timed(work: Any) -> tuple[float, float]:
    """(processor seconds, seconds)"""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def _pairs(on: Child, off: Child, work: Any, parts: list[Any]) -> tuple[list[float], list[float]]:
    """The ratios of processor time and of wall time, on to off, pair by pair."""
    processor, wall = [], []
    for number, part in enumerate(parts):
        first, second = (on, off) if number % 2 else (off, on)
        a, b = first.call(work, part), second.call(work, part)
        with_it, without = (a, b) if number % 2 else (b, a)
        processor.append(with_it[0] / without[0])
        wall.append(with_it[1] / without[1])
    return processor, wall


def _row(name: str, found: tuple[list[float], list[float]], seed: int) -> Row:
    shown = []
    for ratios in found:
        middle, low, high = (100 * (x - 1) for x in median_interval(ratios, seed))
        shown.append(f"{middle:.1f} % ({low:.1f} to {high:.1f})")
    high = median_interval(found[0], seed)[2] - 1
    return Row(
        f"cost of sealing on {name}, processor time, {len(found[0])} pairs by turns: median (95 % interval)",
        shown[0],
        "< 10 %",
        high < 0.10,
        f"wall time: {shown[1]}",
        {"processor": found[0], "wall": found[1]},
    )


def run(options: Options) -> list[Row]:
    pairs = 60 if options.quick else 300
    corpus = stores.corpus(options)
    queries = corpus.queries
    items = [{**i, "subject": f"user:{n % 20}"} for n, i in enumerate(corpus.items("store/sealing", 0, 4000))]
    with Child() as on, Child(sealed=False) as off:
        note("building the two stores")
        for child, name in ((on, "sealing-on"), (off, "sealing-off")):
            child.call(stores.build, options.work / name, options)
            child.call(stores.search_block, queries[:50])
        note("search by turns")
        asked = [[queries[(n * _QUERIES + i) % len(queries)] for i in range(_QUERIES)] for n in range(pairs)]
        searched = _pairs(on, off, _search, asked)
    with Child() as on, Child(sealed=False) as off:
        note("store by turns")
        for child, name in ((on, "sealing-store-on"), (off, "sealing-store-off")):
            child.call(_child_open, options.work / name)
            child.call(_store, items[:200])
        parts = [[items[(n * _STORES + i) % len(items)] for i in range(_STORES)] for n in range(pairs)]
        stored = _pairs(on, off, _store, parts)
    return [
        _row(f"hybrid search, {options.rows:,} memories", searched, options.seed),
        _row("store() with a vector", stored, options.seed),
    ]
