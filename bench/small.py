"""Many small namespaces in one store: their first answers, the memory each takes, and a budget for all."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import strongroom
from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, Row, Spread, Timed, note, resident_mib
from bench.reopen import start

EACH = 10  # memories of a namespace
_WARM = 50  # namespaces that are asked before anything is measured
_FEW = 10  # namespaces of the store that the start is compared with
_SOME = 1_000  # namespaces that are asked again, and with a filter
_SHARE = 10  # one namespace in so many fits into the budget
_ROUNDS = 2
_REST_S = 3.0  # what was let go is closed by then
_WHERE = "importance >= 0.0"


def run(options: Options) -> list[Row]:
    count = max(_WARM * 4, options.rows // EACH)
    many, few = options.work / "small-many", options.work / "small-few"
    with Child() as child:
        made_s = child.call(_build, many, options, count)
    with Child() as child:
        child.call(_build, few, options, _FEW)
    rows = [
        Row(
            f"{count:,} namespaces of {EACH} memories made",
            f"{count / made_s:,.0f}/s",
            against="keys, names and memories, vectors given",
        ),
        _starting(options, many, few, count),
    ]
    found = [_asked(many, count, options.seed + turn) for turn in range(options.repeats)]
    rows += _of_answers(found, count)
    budget = int(Spread.of([f["counted"] for f in found]).median * count / _SHARE)
    return [*rows, _within(many, count, budget, options.seed)]


def name_of(number: int) -> str:
    return f"company_{number % 100}/user_{number}"


def _build(state: State, directory: Path, options: Options, count: int) -> float:
    """Seconds that ``count`` namespaces with their memories took."""
    corpus = stores.corpus(options)
    strongroom.init(directory, config=stores.config())
    with strongroom.open(directory, worker=False) as room:
        started = perf_counter()
        for first in range(0, count, 200):
            batch: list[dict[str, Any]] = []
            for number in range(first, min(first + 200, count)):
                batch += corpus.items(name_of(number), number * EACH % (options.rows - EACH + 1), EACH)
            room.store_many(batch)
        return perf_counter() - started


def _starting(options: Options, many: Path, few: Path, count: int) -> Row:
    """New processes on both stores, by turns."""
    note("starting new processes")
    whole: dict[Path, list[float]] = {many: [], few: []}
    opened: dict[Path, list[float]] = {many: [], few: []}
    for turn in range(max(options.repeats, 3) + 1):
        for directory in (many, few):
            found = start(directory, name_of(turn))
            if turn:  # the first one of each reads its files
                whole[directory].append(found["whole"])
                opened[directory].append(found["import and open"])
    return Row(
        f"new process to its first answer, {count:,} namespaces",
        Spread.of(whole[many]).show(1, 2, " s"),
        against=f"with {_FEW}: {Spread.of(whole[few]).show(1, 2, ' s')}; import and open "
        f"{Spread.of(opened[many]).show(1, 2)} and {Spread.of(opened[few]).show(1, 2)}",
        data={"whole_s": list(whole.values()), "opened_s": list(opened.values())},
    )


def _asked(directory: Path, count: int, seed: int) -> dict[str, Any]:
    note("asking every namespace for the first time")
    with Child() as child:
        return child.call(_ask_all, directory, count, seed)  # type: ignore[no-any-return]


def _ask_all(state: State, directory: Path, count: int, seed: int) -> dict[str, Any]:
    """Every namespace once, some again and with a filter; durations, and bytes of a namespace."""
    stores.set_recall(directory, resident_bytes_max=0)
    room = state["room"] = strongroom.open(directory, worker=False)
    order = np.random.default_rng(seed).permutation(count).tolist()
    _searched(room, order[:_WARM])
    _searched(room, order[:_WARM], where=_WHERE)  # the columnar engine takes memory with its first statement
    rest, residency = order[_WARM:], room.engine.indexes.residency
    before = _resident(room)
    first = _searched(room, rest)
    asked = _resident(room)
    some = rest[:_SOME]
    again = _searched(room, some)
    at_rest = _resident(room)
    filtered = _searched(room, some, where=_WHERE)
    after = _resident(room)
    return {
        "first": first,
        "again": again,
        "filtered": filtered,
        "resident": (asked[0] - before[0]) / len(rest),
        "counted": (asked[1] - before[1]) / len(rest),
        "resident_filtered": (after[0] - at_rest[0]) / len(some),
        "counted_filtered": (after[1] - at_rest[1]) / len(some),
        "loaded": room.engine.indexes.loaded(),
        "whole_mib": asked[0] / 2**20,
        "before_mib": before[0] / 2**20,
        "total": residency.total_bytes(),
    }


def _searched(room: Any, numbers: Iterable[int], **options: Any) -> list[float]:
    seconds = []
    for number in numbers:
        started = perf_counter()
        hits = room.search("who asked for a discount", namespaces=[name_of(number)], k=10, **options)
        seconds.append(perf_counter() - started)
        if len(hits) != EACH:
            raise RuntimeError("an answer is not whole")
    return seconds


def _resident(room: Any) -> tuple[float, int]:
    """Bytes of the process, and those that the product counts; measured when what was let go is closed."""
    time.sleep(_REST_S)
    residency = room.engine.indexes.residency
    residency.tend()
    return resident_mib() * 2**20, residency.total_bytes()


def _of_answers(found: list[dict[str, Any]], count: int) -> list[Row]:
    rows = []
    searches = {"first": "first search", "again": "second search", "filtered": "first search with a filter"}
    for what, shown in searches.items():
        timed = Timed([f[what] for f in found])
        rows.append(Row(f"{shown} of a namespace, {count:,} in memory", timed.show(), data=timed.data()))

    def kib(name: str) -> str:
        return Spread.of([f[name] for f in found]).show(1 / 1024, 1, " KiB")

    return [
        *rows,
        Row(
            "memory of a namespace that was searched",
            kib("resident"),
            against=f"counted: {kib('counted')}; the process {found[-1]['before_mib']:,.0f} MiB before, "
            f"{found[-1]['whole_mib']:,.0f} with all",
            data={k: [f[k] for f in found] for k in ("resident", "counted", "whole_mib", "before_mib")},
        ),
        Row(
            "more for one that was filtered as well",
            kib("resident_filtered"),
            against=f"counted: {kib('counted_filtered')}",
        ),
    ]


def _within(directory: Path, count: int, budget: int, seed: int) -> Row:
    """All namespaces in a circle while one in ``_SHARE`` may stay."""
    note("all of them within a budget")
    with Child() as child:
        found = child.call(_circle, directory, count, budget, seed)
    rounds = found["resident_mib"]
    shown = ", ".join(f"{mib:,.0f}" for mib in rounds)
    most = max(found["counted_mib"])
    timed = Timed(found["seconds"])
    return Row(
        f"{count:,} namespaces in a circle within {budget / 2**20:,.0f} MiB",
        timed.show(),
        against=f"the process {found['before_mib']:,.0f} MiB before, after each round {shown}; counted at "
        f"most {most:,.1f} MiB; {found['loaded']:,} loaded, {found['evicted']:,.0f} let go",
        data={k: v for k, v in found.items() if k != "seconds"} | timed.data(),
    )


def _circle(state: State, directory: Path, count: int, budget: int, seed: int) -> dict[str, Any]:
    stores.set_recall(directory, resident_bytes_max=budget)
    room = state["room"] = strongroom.open(directory, worker=False)
    order = np.random.default_rng(seed).permutation(count).tolist()
    _searched(room, order[:_WARM])
    engine = room.engine
    out: dict[str, Any] = {"seconds": [], "resident_mib": [], "counted_mib": [], "before_mib": resident_mib()}
    for _ in range(_ROUNDS):
        seconds: list[float] = []
        for first in range(0, count, 100):
            seconds += _searched(room, order[first : first + 100])
            out["counted_mib"].append(engine.indexes.residency.total_bytes() / 2**20)
        out["seconds"].append(seconds)
        out["resident_mib"].append(resident_mib())
    out["loaded"] = engine.indexes.loaded()
    out["evicted"] = next(s.value for m in engine.metrics.evicted.collect() for s in m.samples)
    return out
