"""What the slow searches of an opened store wait for: ``python -m bench.slow DIR COUNT [AFTER_S]``.

Each step of COUNT hybrid searches is stamped: wall time, processor time of the caller's thread, how long it
waited for a processor, the collector, and which other threads were alive. The table shows the middle half
beside the slowest fiftieth, so that what makes the difference stands out. ``AFTER_S``: seconds after the
first answer at which it begins, for what happens once a minute. Questions are those of the bench's corpus.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import strongroom
from bench import _stores as stores
from bench._harness import Options, load_average
from strongroom.engine import _call, _indexes, _models, _search
from strongroom.ledger import SqliteLedger
from strongroom.recall import NamespaceIndex
from strongroom.recall import search as recall_search

_STEPS: tuple[tuple[Any, str, str], ...] = (
    (_search, "chosen_namespaces", "access"),
    (_indexes.Indexes, "ready", "take in changes"),
    (NamespaceIndex, "prepare", "take over changes"),
    (recall_search._Search, "lanes", "both lanes"),
    (_models.Models, "embed_query", "model"),
    (recall_search._Search, "by_meaning", "vector lane"),
    (recall_search._Search, "by_keyword", "keyword lane"),
    (recall_search._Search, "answers", "fusion"),
    (_search, "open_answer", "rows opened"),
    (_call.Call, "entry", "audit entry made"),
    (SqliteLedger, "commit", "audit entry durable"),
)
_SLOWEST = 50
_Stamps = dict[str, float]


class _Stamped:
    """Seconds of each step of the search that runs now."""

    def __init__(self) -> None:
        self.now: _Stamps = {}
        for place, name, step in _STEPS:
            setattr(place, name, self._timed(getattr(place, name), step))
        gc.callbacks.append(self._collected)

    def _timed(self, work: Callable[..., Any], step: str) -> Callable[..., Any]:
        def timed(*args: Any, **given: Any) -> Any:
            started, busy = perf_counter(), time.thread_time()
            try:
                return work(*args, **given)
            finally:
                now, cpu = self.now, step + ", processor"
                now[step] = now.get(step, 0.0) + perf_counter() - started
                now[cpu] = now.get(cpu, 0.0) + time.thread_time() - busy

        return timed

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        sign = -1.0 if phase == "start" else 1.0
        self.now["collector"] = self.now.get("collector", 0.0) + sign * perf_counter()


def _scheduled() -> tuple[float, float]:
    """Seconds that this thread has run, and that it has waited for a processor (Linux)."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    ran, waited, _ = path.read_text("ascii").split()
    return int(ran) / 1e9, int(waited) / 1e9


def _asked(room: Any, questions: list[str], count: int) -> tuple[list[_Stamps], list[list[str]]]:
    stamped, found, threads = _Stamped(), list[_Stamps](), list[list[str]]()
    for number in range(count):
        stamped.now = {}
        ran, waited = _scheduled()
        started = perf_counter()
        room.search(questions[number % len(questions)], namespaces=[stores.NAMESPACE], k=10)
        whole = perf_counter() - started
        after = _scheduled()
        own = {"search": whole, "search, processor": after[0] - ran, "waiting to run": after[1] - waited}
        found.append({**own, **stamped.now})
        threads.append([t.name for t in threading.enumerate()])
    return found, threads


def _show(found: list[_Stamps], threads: list[list[str]]) -> None:
    whole = np.array([f["search"] for f in found])
    order = np.argsort(whole)
    middle, slow = order[len(order) // 4 : -(len(order) // 4)], order[-max(5, len(order) // _SLOWEST) :]
    print(f"{'ms':30} {'p50':>7} {'p90':>7} {'p99':>7} {'most':>8} {'middle half':>12} {'slowest 2 %':>12}")
    for step in dict.fromkeys(name for f in found for name in f):
        ms = np.array([f.get(step, 0.0) for f in found]) * 1e3
        p50, p90, p99 = np.quantile(ms, (0.5, 0.9, 0.99))
        row = f"{p50:7.2f} {p90:7.2f} {p99:7.2f} {ms.max():8.2f} {ms[middle].mean():12.2f}"
        print(f"{step:30} {row} {ms[slow].mean():12.2f}")
    everywhere = Counter(name for names in threads for name in set(names))
    often = Counter(name for number in slow for name in set(threads[number]))
    for name, count in often.most_common():
        share, usual = count / len(slow), everywhere[name] / len(found)
        print(f"{name}: alive beside {share:.0%} of the slowest, {usual:.0%} of all")


def main(directory: Path, count: int, after_s: float) -> None:
    questions = stores.corpus(Options(directory, rows=100_000)).queries
    before = load_average()
    stores.perhaps_unverified()
    with strongroom.open(directory) as room:
        room.search(questions[0], namespaces=[stores.NAMESPACE])
        begin = perf_counter() + after_s
        room.engine.indexes.wait_verified(stores.VERIFY_S)
        stores.search_block({"room": room}, questions)
        time.sleep(max(0.0, begin - perf_counter()))
        _show(*_asked(room, questions, count))
    print(f"load {before} to {load_average()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
