"""Samples, their spread, the rows of the table, and what machine it was."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
_RESAMPLED = 2000
_VERSIONS = (
    "strongroom", "apsw", "cryptography", "duckdb", "faiss-cpu", "httpx", "mcp", "numpy", "onnxruntime",
    "uvicorn",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How large and how often. ``work``: an empty directory on the file system to be measured."""

    work: Path
    quick: bool = False
    rows: int = 100_000
    repeats: int = 5
    seed: int = 7

    @classmethod
    def parse(cls, text: str) -> Options:
        raw = json.loads(text)
        return cls(**{**raw, "work": Path(raw["work"])})

    def text(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "work": str(self.work)})


@dataclass(frozen=True)
class Spread:
    """The median over repeats, and the least and greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(float(np.median(values)), float(min(values)), float(max(values)))

    def show(self, scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
        low, mid, high = (round(x * scale, digits) for x in (self.low, self.median, self.high))
        return f"{mid:,.{digits}f}{unit} ({low:,.{digits}f} to {high:,.{digits}f})"


@dataclass
class Timed:
    """Durations in seconds, one list per repeat."""

    repeats: list[list[float]] = field(default_factory=list)

    def quantile(self, q: float) -> Spread:
        return Spread.of([float(np.quantile(r, q)) for r in self.repeats])

    def show(self, digits: int = 2) -> str:
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return f"p50 {p50.show(1e3, digits)}, p99 {p99.show(1e3, digits)} ms"

    def data(self) -> dict[str, Any]:
        flat = [x for r in self.repeats for x in r]
        quartiles = [float(np.quantile(flat, q)) * 1e3 for q in (0.25, 0.75)]
        return {
            "unit": "ms",
            "samples": len(flat),
            "p50": _ms(self.quantile(0.5)),
            "p99": _ms(self.quantile(0.99)),
            "quartiles": quartiles,
            "max": max(flat) * 1e3,
        }


def _ms(spread: Spread) -> list[float]:
    return [round(x * 1e3, 4) for x in (spread.low, spread.median, spread.high)]


@dataclass
class Row:
    """One line of the table. ``target``: as issue and docs word it; ``met``: None when there is none."""

    name: str
    measured: str
    target: str = ""
    met: bool | None = None
    against: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def measure(work: Callable[[int], object], count: int, *, first: int = 0) -> list[float]:
    """Durations of ``work(i)`` for ``count`` values of i."""
    out = []
    for i in range(first, first + count):
        started = perf_counter()
        work(i)
        out.append(perf_counter() - started)
    return out


def median_interval(values: Sequence[float], seed: int) -> tuple[float, float, float]:
    """The median, and its 95 % interval: percentiles of the medians of resampled values (bootstrap)."""
    given = np.asarray(values)
    picks = np.random.default_rng(seed).integers(0, len(given), (_RESAMPLED, len(given)))
    medians = np.median(given[picks], axis=1)
    return float(np.median(given)), float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def resident_mib() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def machine(work: Path) -> dict[str, Any]:
    """Processor, memory, file system and versions."""
    model = next(
        (x.split(":")[1].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")),
        platform.processor(),
    )
    total = next((int(x.split()[1]) for x in _lines("/proc/meminfo") if x.startswith("MemTotal")), 0)
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "source"
    import apsw

    versions["sqlite"] = apsw.sqlite_lib_version()
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(total / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(work),
        "python": platform.python_version(),
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _file_system(path: Path) -> str:
    best = ("", "unknown")
    for line in _lines("/proc/mounts"):
        _, mount, kind, *_ = line.split(" ")
        if str(path.resolve()).startswith(mount) and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = [
        "| | target | measured: median (min to max of the repeats) | against | met |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {r.name} | {r.target} | {r.measured} | {r.against} | {words[r.met]} |" for r in rows]
    return "\n".join(lines)


def note(text: str) -> None:
    """A line of progress, on stderr."""
    print(f"   {text}", file=sys.stderr, flush=True)


def options_of(argv: Sequence[str] | None = None) -> tuple[Options, Path | None, bool, list[str]]:
    """Options of the command line: (options, where results go, keep the stores, names)."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="measurements to run; all of them without names")
    parser.add_argument("--quick", action="store_true", help="a tenth of the scale, two repeats")
    parser.add_argument("--rows", type=int, help="memories in the large namespace")
    parser.add_argument("--repeats", type=int)
    parser.add_argument(
        "--dir", type=Path, help="where the stores are made; default: the temporary directory"
    )
    parser.add_argument("--list", action="store_true", help="the names of the measurements")
    parser.add_argument("--keep", action="store_true", help="leave the stores there")
    given = parser.parse_args(argv)
    if given.list:
        return Options(Path()), None, False, ["--list"]
    options = Options(
        work=given.dir or Path(),
        quick=given.quick,
        rows=given.rows or (10_000 if given.quick else 100_000),
        repeats=given.repeats or (2 if given.quick else 5),
    )
    return options, given.dir, given.keep, given.names
