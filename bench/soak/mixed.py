"""Mixed load with kills: ``script/soak mixed-load --minutes 30 --rows 1000000``, or this module by itself.

Several processes search, store, change and delete in one store at a steady rate. Every few minutes one of
them is killed (SIGKILL), at times all but the first at once, and comes back; the first, the witness, lives
to the end, so that its memory can be watched, and is then killed with the rest. What every process was told
is durable is in its book (``_book``). At the end the disk is searched for contents and vectors, the store is
opened again, everything that was touched is compared, and the recall is measured against exact cosines.

Exit status 1: something was lost, wrong, short or readable, recall fell, memory grew, or a process ended by
itself. The report goes to stdout, its figures as JSON to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import _stores as stores
from bench._child import Child
from bench._harness import Options, load_average, note
from bench.soak import _prove
from bench.soak._book import Book
from strongroom.lifecycle.noise_scan import scan_directory

_GROWTH_MAX = 0.10  # of the witness's memory, from the fifth of the time after it came to rest to the last
_MINUTES_MIN = 5.0  # of a run that has to say something of memory
_PEAK_MAX = 0.35  # ... above that, while a snapshot is written: lists that change meanwhile are copied first
_RECALL_MIN = 0.97  # searches learn to find 0.99 of the sampled questions' neighbours; others find less
_RECALL_FALL_MAX = 0.01
_LOOK_S = 2.0
_ROWS_MIN = 20_000  # below, a data subject has fewer memories than a search asks for


@dataclass
class Watched:
    """What the supervisor saw: (seconds, seat, resident MiB) and (seconds, MiB on disk)."""

    memory: list[tuple[float, int, float]] = field(default_factory=list)
    disk: list[tuple[float, float]] = field(default_factory=list)
    kills: list[tuple[float, list[int]]] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


class Soak:
    """The processes and the plan of their ends."""

    def __init__(self, given: argparse.Namespace, directory: Path, work: Path) -> None:
        self.given, self.directory, self.work = given, directory, work
        self.seats: list[subprocess.Popen[bytes]] = []
        self.seen = Watched()
        (work / "temporary").mkdir()

    def _start(self, seat: int) -> subprocess.Popen[bytes]:
        arguments = [self.directory, self.work, seat, self.given.seats, self.given.seed, self.given.rate]
        with (self.work / f"seat-{seat}.err").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "bench.soak._seat", *map(str, arguments)],
                stdout=err,
                stderr=err,
                env={**os.environ, "TMPDIR": str(self.work / "temporary")},
            )

    def run(self) -> Watched:
        self.seats = [self._start(seat) for seat in range(self.given.seats)]
        began = time.monotonic()
        end, due, number = began + 60 * self.given.minutes, began + self.given.kill_every, 0
        try:
            while (now := time.monotonic()) < end:
                self._look(now - began)
                if now >= due and self.given.seats > 1:
                    number, due = number + 1, now + self.given.kill_every
                    victims = range(1, self.given.seats)
                    chosen = list(victims) if number % 3 == 0 else [victims[number % len(victims)]]
                    self._kill(now - began, chosen)
                time.sleep(_LOOK_S)
        finally:
            self._kill(time.monotonic() - began, list(range(self.given.seats)), again=False)
        return self.seen

    def _kill(self, at: float, chosen: list[int], *, again: bool = True) -> None:
        self.seen.kills.append((at, chosen))
        for seat in chosen:
            self.seats[seat].send_signal(signal.SIGKILL)
        for seat in chosen:
            self.seats[seat].wait()
            if again:
                self.seats[seat] = self._start(seat)

    def _look(self, at: float) -> None:
        for seat, process in enumerate(self.seats):
            if process.poll() is not None:
                told = (self.work / f"seat-{seat}.err").read_text("utf-8", "replace")
                last = " | ".join(told.strip().splitlines()[-3:])
                self.seen.ended.append(f"process {seat} ended by itself, status {process.returncode}: {last}")
                self.seats[seat] = self._start(seat)
            elif (mib := _resident(process.pid)) is not None:
                self.seen.memory.append((at, seat, mib))
        self.seen.disk.append((at, _disk(self.directory)))
        self.seen.load.append(load_average())


def _resident(pid: int) -> float | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith("VmRSS:")), None)


def _disk(directory: Path) -> float:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total / 2**20


def _flat(notes: dict[str, list[float]], minutes: float) -> dict[str, float]:
    """The witness's resident MiB at rest (``_stores.is_settled``), by its own notes: medians of the fifth
    after it came to rest and of the last, and the growth. NaN: it came too late, or had no rest at the end.

    At rest: rows compared, lists made and in a snapshot, none being written. Before, an index is not what it
    is going to be: it has no short codes, for one. What writing a snapshot takes is seen in the peak.
    """
    at, mib = (np.array(notes.get(name, [])) for name in ("at rest, s", "at rest, MiB"))
    fifth = 12 * minutes
    first, last, rest_s = float("nan"), float("nan"), float(at[0]) if len(at) else float("nan")
    early, late = mib[at < rest_s + fifth], mib[at >= 4 * fifth]
    if len(early) and len(late) and rest_s <= 3 * fifth:
        first, last = float(np.median(early)), float(np.median(late))
    counted = notes.get("counted, MiB", [float("nan")])
    return {
        "rest_s": rest_s, "first_mib": first, "last_mib": last, "growth": last / first - 1,
        "counted_first_mib": counted[0], "counted_last_mib": counted[-1],
    }  # fmt: skip


def _scanned(directory: Path, work: Path, books: list[Path], rows: int) -> dict[str, Any]:
    texts, vectors = _prove.texts_and_vectors(work, books, rows)
    places = (directory, directory.with_name(directory.name + ".keys"), work / "temporary")
    scans = [scan_directory(place, texts, vectors) for place in places]
    return {
        "texts": len(texts),
        "vectors": len(vectors),
        "mib": sum(s.bytes_total for s in scans) / 2**20,
        "files": [f"{f.path}, {f.bytes / 2**20:,.1f} MiB" for s in scans for f in s.files],
        "findings": [f"{f.form} in {f.path}" for s in scans for f in s.findings],
    }


def _judged(found: dict[str, Any]) -> list[str]:
    """Everything that fails the run."""
    before, after = found["before"]["recall"], found["after"]["recall"]
    out = [*found["faults"], *found["after"]["lost"], *found["ended"]]
    out += [f"readable on disk: {x}" for x in found["scan"]["findings"][:20]]
    for name, share in after.items():
        if share < _RECALL_MIN and share < before[name] - _RECALL_FALL_MAX:
            out.append(f"recall@10 {name} is {share:.4f}, was {before[name]:.4f}")
    if not found["after"]["check_ok"]:
        out.append(f"check: {', '.join(sorted(set(found['after']['findings'])))}")
    witness = found["witness"]
    if math.isnan(witness["growth"]) and found["minutes"] >= _MINUTES_MIN:
        out.append("the witness was not at rest early enough or at the end: nothing is known of its memory")
    if witness["growth"] > _GROWTH_MAX:
        out.append(f"the witness's memory grew by {witness['growth']:.0%}")
    if witness["peak_mib"] > (1 + _PEAK_MAX) * witness["first_mib"]:
        out.append(f"the witness took {witness['peak_mib']:,.0f} MiB once")
    return out


def _memory(witness: dict[str, float]) -> str:
    if math.isnan(witness["growth"]):
        return f"memory of the witness: not known, its rest was too short (run {_MINUTES_MIN:g} minutes)"
    return (
        f"memory of the witness at rest, from {witness['rest_s']:.0f} s on: {witness['first_mib']:,.0f} to "
        f"{witness['last_mib']:,.0f} MiB ({witness['growth']:+.1%}), at most {witness['peak_mib']:,.0f}; "
        f"its index by its own count {witness['counted_first_mib']:,.0f} to "
        f"{witness['counted_last_mib']:,.0f}"
    )


def _shown(found: dict[str, Any]) -> str:
    before, after, scan = found["before"], found["after"], found["scan"]
    lines = [
        f"mixed load, {found['minutes']:g} minutes, {found['rows']:,} memories, {found['seats']} processes "
        f"at {found['rate']:g} operations/s each, seed {found['seed']}, load average {found['load']}",
        f"killed: {found['kills']} times, {found['killed']} processes; {found['acts']:,} changes "
        "in the books",
        f"operations: {found['operations']}",
        f"opened to first answer while others write: {found['opened']}",
        f"stored to found: {found['stored_to_found']}",
        f"{_memory(found['witness'])}; most of any process {found['most_mib']:,.0f} MiB",
        f"on disk: {found['disk_mib'][0]:,.0f} to {found['disk_mib'][1]:,.0f} MiB, at most "
        f"{found['disk_mib'][2]:,.0f}",
        f"afterwards: {after['touched']:,} touched memories compared, {after['count']:,} counted, "
        f"{len(after['lost'])} wrong; check: {after['check_rows']:,} rows, {after['check_opened']:,} opened, "
        f"findings {after['findings'] or 'none'}",
        f"recall@10 against exact cosines: before {before['recall']}, after {after['recall']}; sampled by "
        f"the processes: least {found['sampled']}",
        f"on disk: {scan['texts']} texts and {scan['vectors']} vectors looked for in {scan['mib']:,.0f} MiB, "
        f"{len(scan['findings'])} found",
        *(f"WRONG: {x}" for x in found["wrong"][:50]),
        "nothing is wrong" if not found["wrong"] else f"{len(found['wrong'])} things are wrong",
    ]
    return "\n".join(lines)


def _figures(
    given: argparse.Namespace, seen: Watched, books: list[Path], began: dict[str, Any]
) -> dict[str, Any]:
    read = [Book.read(path) for path in books]
    notes: dict[str, list[float]] = {}
    for book in read:
        for name, values in book.notes.items():
            notes.setdefault(name, []).extend(values)
    witness = _flat(read[0].notes, given.minutes)
    since = [mib for at, seat, mib in seen.memory if seat == 0 and at >= witness["rest_s"]]
    disk = [mib for _, mib in seen.disk]
    return {
        "minutes": given.minutes, "rows": given.rows, "seats": given.seats, "rate": given.rate,
        "seed": given.seed, "before": began,
        "load": f"{min(seen.load)} to {max(seen.load)}",
        "kills": len(seen.kills), "killed": sum(len(chosen) for _, chosen in seen.kills),
        "acts": sum(book.acts for book in read),
        "faults": [fault for book in read for fault in book.faults],
        "ended": seen.ended,
        "operations": "; ".join(
            f"{name.removesuffix(', s')} {len(v):,}, p50 {np.median(v) * 1e3:.1f}, "
            f"p99 {np.quantile(v, 0.99) * 1e3:.0f} ms"
            for name, v in sorted(notes.items()) if name.split(",")[0] in _ACTS
        ),
        "opened": _spread(notes.get("opened to first answer, s", [])),
        "stored_to_found": _spread(notes.get("stored to found, s", [])),
        "sampled": round(min(notes.get("recall sampled", [float("nan")])), 4),
        "witness": {**witness, "peak_mib": max(since, default=float("nan"))},
        "most_mib": max((mib for _, _, mib in seen.memory), default=float("nan")),
        "disk_mib": (disk[0], disk[-1], max(disk)),
        "seen": {"memory": seen.memory[::5], "disk": seen.disk[::15], "kills": seen.kills},
    }  # fmt: skip


_ACTS = ("search", "store", "update", "delete", "subject", "read")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    middle, high = np.median(values), np.quantile(values, 0.99)
    return f"{len(values):,} times, median {middle:.3f} s, p99 {high:.3f} s, most {max(values):.3f} s"


def soak(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The whole run; ``found["wrong"]`` is empty when it holds."""
    options = Options(work=work, rows=given.rows, seed=7)
    directory = stores.large(options, given.store)
    note("before")
    with Child() as child:
        began = child.call(_prove.begin, directory, work, options)
    note(f"load for {given.minutes:g} minutes")
    seen = Soak(given, directory, work).run()
    books = [work / f"seat-{seat}.book" for seat in range(given.seats)]
    note("looking for contents on disk")
    scan = _scanned(directory, work, books, given.rows)
    note("opening and comparing")
    with Child() as child:
        after = child.call(_prove.finish, directory, work, books, options, not given.no_read_data)
    found = {**_figures(given, seen, books, began), "after": after, "scan": scan}
    found["wrong"] = _judged(found)
    return found


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m bench.soak.mixed", description=__doc__)
    out.add_argument("--minutes", type=float, default=1.0)
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--rows", type=int, default=20_000)
    out.add_argument("--seats", type=int, default=3, help="processes")
    out.add_argument("--rate", type=float, default=15.0, help="operations a second of each")
    out.add_argument("--kill-every", type=float, help="seconds; default: a twelfth of the time")
    out.add_argument("--store", type=Path, help="a store of script/bench scale, to be copied")
    out.add_argument("--dir", type=Path, help="where to work; default: the temporary directory")
    out.add_argument("--no-read-data", action="store_true", help="do not open every sealed row at the end")
    out.add_argument("--out", type=Path, help="the figures, as JSON")
    out.add_argument("--keep", action="store_true", help="leave the store and the books there")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    reads = parser()
    given = reads.parse_args(arguments)
    if given.rows < _ROWS_MIN:
        reads.error(f"--rows: {_ROWS_MIN:,} at least")
    given.kill_every = given.kill_every or 5 * given.minutes
    work = Path(tempfile.mkdtemp(prefix="strongroom-soak-", dir=given.dir))
    try:
        found = soak(given, work)
    finally:
        if not given.keep:
            shutil.rmtree(work, ignore_errors=True)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1, default=str), "utf-8")
    print(_shown(found), flush=True)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
