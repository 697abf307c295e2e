"""search() in a large namespace: latency by mode and filter, recall against exact, what sealing costs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bench import _stores as stores
from bench import data
from bench._child import Child
from bench._harness import Options, Row, Spread, Timed, note

_CASES: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "semantic": {"mode": "semantic"},
    "keyword": {"mode": "keyword"},
    **{f"hybrid, filter {name}": given for name, given in data.FILTERS.items()},
}


def run(options: Options) -> list[Row]:
    corpus = stores.corpus(options)
    queries = corpus.queries
    rows: list[Row] = []
    sealed_at, clear_at = options.work / "large", options.work / "clear"
    with Child() as sealed, Child(sealed=False) as clear:
        note("building the two stores")
        rates = _built(sealed, clear, sealed_at, clear_at, options)
    (options.work / "large.built").touch()
    with Child() as sealed, Child(sealed=False) as clear:
        note("ground truth by exact search")
        truth = _truth(sealed_at, options.work / "exact", queries)
        opened = sealed.call(stores.open_store, sealed_at)
        clear.call(stores.open_store, clear_at)
        for child in (sealed, clear):
            child.call(stores.search_block, queries[:50])
        note("searching")
        times, found, off, steps = _ask(sealed, clear, queries, options.repeats)
        memory = sealed.call(stores.resident)
    for name, timed in times.items():
        recall = _recall(found[name], truth[name])
        rows.append(_row(name, timed, recall, options))
    rows.append(_cost(times["hybrid"], off, steps))
    rows.append(
        Row(
            "memory of a process with the namespace loaded",
            f"{memory:,.0f} MiB resident after the searches",
            against=f"{opened['rss_before_mib']:,.0f} MiB before it was opened; "
            f"vectors alone as float32: {options.rows * data.DIMENSIONS * 4 / 2**20:,.0f} MiB",
            data={**opened, "rss_end_mib": memory},
        )
    )
    rows.append(
        Row(
            f"building the store: store_many of {options.rows:,} with vectors, 1,000 subjects",
            f"{rates[0]:,.0f}/s",
            against=f"{rates[1]:,.0f}/s with the pass-through",
            data={"sealed_per_s": rates[0], "pass_through_per_s": rates[1], "corpus": corpus.report},
        )
    )
    shutil.rmtree(clear_at, ignore_errors=True)
    return rows


def _built(sealed: Child, clear: Child, at: Path, clear_at: Path, options: Options) -> tuple[float, float]:
    return sealed.call(stores.build, at, options), clear.call(stores.build, clear_at, options)


def _truth(directory: Path, copy: Path, queries: list[str]) -> dict[str, list[list[bytes]]]:
    """What a search over every vector finds, in the same engine."""
    stores.exact_copy(directory, copy)
    with Child() as child:
        child.call(stores.open_store, copy)
        found = {name: child.call(stores.search_block, queries, **given)[1] for name, given in _CASES.items()}
    shutil.rmtree(copy)
    return found


def _ask(
    sealed: Child, clear: Child, queries: list[str], repeats: int
) -> tuple[dict[str, Timed], dict[str, list[list[bytes]]], Timed, dict[str, float]]:
    """All cases in turn, each repeat anew; hybrid without sealing beside hybrid with it."""
    times = {name: Timed() for name in _CASES}
    off = Timed()
    found: dict[str, list[list[bytes]]] = {}
    spent: dict[str, list[float]] = {}
    for repeat in range(repeats):
        for name, given in _CASES.items():
            before = sealed.call(stores.steps) if name == "hybrid" else {}
            first_off = name == "hybrid" and repeat % 2 == 1
            if first_off:
                off.repeats.append(clear.call(stores.search_block, queries)[0])
                before = sealed.call(stores.steps)
            seconds, found[name] = sealed.call(stores.search_block, queries, **given)
            times[name].repeats.append(seconds)
            if name == "hybrid":
                for step, (total, count) in sealed.call(stores.steps).items():
                    was = before.get(step, (0.0, 0.0))
                    if count > was[1]:
                        spent.setdefault(step, []).append((total - was[0]) / (count - was[1]))
                if not first_off:
                    off.repeats.append(clear.call(stores.search_block, queries)[0])
    return times, found, off, {step: float(np.median(x)) for step, x in spent.items()}


def _recall(found: list[list[bytes]], truth: list[list[bytes]]) -> float:
    """Share of the exact top 10 that was found; an answer of fewer than the exact one counts as missing."""
    shares = [len(set(f) & set(t)) / len(t) for f, t in zip(found, truth, strict=True) if t]
    return float(np.mean(shares))


def _row(name: str, timed: Timed, recall: float, options: Options) -> Row:
    p50, p99 = timed.quantile(0.5), timed.quantile(0.99)
    row = Row(
        f"search() {name}, {options.rows:,} memories, query text embedded in the call",
        timed.show(),
        against=f"recall@10 {recall:.4f} against exact",
        data={**timed.data(), "recall_at_10": recall},
    )
    if name == "hybrid":
        row.target = "p50 < 5 ms, p99 < 15 ms, recall@10 >= 0.98"
        row.met = p50.median < 0.005 and p99.median < 0.015 and recall >= 0.98
    elif name == "keyword":
        row.name = f"search() {name}, {options.rows:,} memories"
    return row


def _cost(on: Timed, off: Timed, steps: dict[str, float]) -> Row:
    pairs = zip(on.repeats, off.repeats, strict=True)
    cost = Spread.of([float(np.median(a) / np.median(b)) - 1 for a, b in pairs])
    shown = ", ".join(f"{k} {v * 1e3:.2f}" for k, v in sorted(steps.items(), key=lambda x: -x[1]))
    return Row(
        "cost of sealing on hybrid search, on versus off",
        cost.show(100, 1, " %"),
        "< 10 %",
        cost.median < 0.10,
        f"off: {off.show()}; steps in ms: {shown}",
        {
            "cost": [cost.low, cost.median, cost.high],
            "off": off.data(),
            "steps_ms": {k: v * 1e3 for k, v in steps.items()},
        },
    )
