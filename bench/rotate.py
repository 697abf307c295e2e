"""Rotation: records sealed anew, alone and beside searches; a killed change of suite; keys wrapped anew."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import strongroom
from bench._harness import Options, Row, Spread, note
from strongroom.config import Config, EmbeddingConfig, RotationConfig, keys_directory
from strongroom.engine import Room
from strongroom.keyring import KeyNote
from strongroom.lifecycle.noise_scan import scan_directory
from strongroom.lifecycle.response import verify_report
from strongroom.model import Rotation, RotationState

_NS = "company_a/support"
_SUBJECTS = 1000
_TEXT = "the customer asked about the renewal of the annual plan and was told that the price stays as it was "
_SEARCHES_PER_S = 20
_KILLS = 5
Vectors = NDArray[np.float32]


def run(options: Options) -> list[Row]:
    directory = options.work / "rotate"
    strongroom.init(
        directory,
        config=Config(
            embedding=EmbeddingConfig(provider="none"), rotation=RotationConfig(worker=False, lease_ms=1000)
        ),
    )
    count = options.rows
    rng = np.random.default_rng(options.seed)
    vectors = rng.standard_normal((1000, 384)).astype(np.float32)
    with strongroom.open(directory, worker=False) as room:
        note(f"storing {count} memories with vectors")
        room.store_many(
            {
                "content": f"{i} {_TEXT * 5}",
                "namespace": _NS,
                "subject": f"user:{i % _SUBJECTS}",
                "embedding": vectors[i % 1000],
            }
            for i in range(count)
        )
        rows = [_alone(room, directory, workers, options) for workers in (1, 2)]
        rows.append(_beside(room, directory, vectors, options))
        rows.append(_drill(room, options))
        rows.append(_killed(room, directory, options))
    return [*rows, _namespace_key(options)]


@contextmanager
def _workers(directory: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "strongroom.cli", "--data", str(directory), "--json", "rotate", "work"]
    found = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield found
    finally:
        for child in found:
            child.wait()


def _state(room: Room, number: int) -> Rotation:
    return next(r for r in room.rotation_status(ended=True) if r.id == number)


def _wait(room: Room, number: int) -> float:
    """Records a second, from the first batch that was seen to the last."""
    first: tuple[float, int] | None = None
    deadline = time.perf_counter() + 600
    while time.perf_counter() < deadline:
        row = room.engine.ledger.wave(number)
        now = time.perf_counter()
        if first is None and row.moved:
            first = (now, row.moved)
        if row.state == 3 and first is not None:
            return (row.moved - first[1]) / max(now - first[0], 1e-9)
        time.sleep(0.01)
    raise SystemExit("the workers did not come to an end")


def _alone(room: Room, directory: Path, workers: int, options: Options) -> Row:
    note(f"sealing anew, {workers} processes")
    rates = []
    for _ in range(min(3, options.repeats)):
        (rotation,) = room.rotate("data", namespaces=[_NS], wait=False)
        with _workers(directory, workers):
            rates.append(_wait(room, rotation.id))
        room.rotation_finalise(rotation.id, verify=False)
    spread = Spread.of(rates)
    return Row(
        f"records sealed anew, {workers} process{'es' if workers > 1 else ''}, nothing beside",
        spread.show(1, 0, " records/s"), "> 50,000 records/s", spread.median > 50_000,
        data={"records_per_s": rates},
    )  # fmt: skip


def _search(room: Room, vector: object) -> float:
    started = time.perf_counter()
    room.search(embedding=vector, namespaces=[_NS], mode="semantic", k=10)
    return time.perf_counter() - started


def _paced(room: Room, vectors: Vectors, until: Callable[[], bool]) -> list[float]:
    """Searches at a steady pace until ``until()``: their durations."""
    out: list[float] = []
    due = time.perf_counter()
    n = 0
    while not until():
        due += 1 / _SEARCHES_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
        out.append(_search(room, vectors[n % 1000]))
        n += 1
    return out


def _beside(room: Room, directory: Path, vectors: Vectors, options: Options) -> Row:
    """By turns: the wave paused, the wave going on, so that a slower hour is not taken for the wave."""
    note("sealing anew beside searches")
    seconds, turns = (3, 2) if options.quick else (5, 4)
    growths, rates, before, during = [], [], [], []
    _paced(room, vectors, _after(2))
    for _ in range(min(3, options.repeats)):
        (rotation,) = room.rotate("data", namespaces=[_NS], wait=False)
        wave = rotation.id
        for _ in range(turns):
            quiet = _paced(room, vectors, _after(seconds))
            moved = room.engine.ledger.wave(wave).moved
            with _workers(directory, 1):
                while room.engine.ledger.wave(wave).moved == moved and not _moved(room, wave):
                    _paced(room, vectors, _after(0.2))
                started, moved = time.perf_counter(), room.engine.ledger.wave(wave).moved
                busy = _paced(room, vectors, _either(_after(2 * seconds), room, wave))
                done = room.engine.ledger.wave(wave).moved - moved
                lasted = time.perf_counter() - started
                if not _moved(room, wave):
                    room.rotation_pause(wave)
            if len(busy) >= _SEARCHES_PER_S:
                rates.append(done / lasted)
                before.append(float(np.median(quiet)))
                during.append(float(np.median(busy)))
                growths.append(during[-1] / before[-1] - 1)
            if _moved(room, wave):
                break
            room.rotation_resume(wave)
        room.rotation_work([wave])
        room.rotation_finalise(wave, verify=False)
    spread = Spread.of(growths)
    return Row(
        f"p50 of {_SEARCHES_PER_S} searches a second beside it: growth, {len(growths)} turns",
        f"{spread.show(100, 0, ' %')}; {Spread.of(rates).show(1, 0, ' records/s')} meanwhile",
        "< 20 %", spread.median < 0.2,
        data={"growth": growths, "records_per_s": rates, "before_s": before, "during_s": during},
    )  # fmt: skip


def _either(end: Callable[[], bool], room: Room, number: int) -> Callable[[], bool]:
    return lambda: end() or _moved(room, number)


def _moved(room: Room, number: int) -> bool:
    return room.engine.ledger.wave(number).state == 3


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def _killed(room: Room, directory: Path, options: Options) -> Row:
    note(f"a change of suite, killed {_KILLS} times")
    (rotation,) = room.rotate("suite", suite="ChaCha20-Poly1305", namespaces=[_NS], wait=False)
    kills, each = 0, 2 * options.rows // (_KILLS + 1)  # memories have vectors
    started = time.perf_counter()
    while _state(room, rotation.id).state != RotationState.MOVED:
        with _workers(directory, 2) as workers:
            while kills < _KILLS and any(worker.poll() is None for worker in workers):
                if room.engine.ledger.wave(rotation.id).moved > (kills + 0.5) * each:
                    for worker in workers:
                        worker.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.005)
    seconds = time.perf_counter() - started
    room.rotation_finalise(rotation.id)
    report = room.check(read_data=True)
    known = [m.content for m in room.list(namespaces=[_NS], limit=300).memories]
    scans = [scan_directory(place, known, []) for place in (directory, keys_directory(directory, Config()))]
    found, unreadable = sum(len(scan.findings) for scan in scans), len(report.findings)
    return Row(
        f"change of suite on {report.rows:,} rows, two processes, both killed {kills} times on the way",
        f"{seconds:.1f} s, {unreadable} findings, {report.opened:,} rows opened; of {len(known)} contents "
        f"{found} found on disk",
        "completes, none unreadable, no plaintext", unreadable == found == 0 and kills == _KILLS,
        data={"seconds": seconds, "findings": unreadable, "rows": report.rows, "plaintext": found},
    )  # fmt: skip


def _drill(room: Room, options: Options) -> Row:
    note("a drill: the namespace key is said to be exposed")
    started = time.perf_counter()
    report = room.respond_drill(f"namespace:{_NS}", place=options.work)
    seconds = time.perf_counter() - started
    verified = verify_report(report.document, room.respond_keys())
    exposed = report.coverage["records_under_exposed_keys"]
    good = exposed == 0 and verified.report["drill"] and not verified.own_keys
    return Row(
        f"drill of a compromise on a copy of {report.coverage['records']:,} records",
        f"{seconds:.1f} s, of which the response {report.seconds:.1f} s; "
        f"{report.coverage['records_opened']:,} records opened, {exposed} under exposed keys, "
        f"{report.coverage['subjects_blinded_anew']:,} subjects blinded anew; the report verifies",
        "prints time, coverage and a report that verifies", good,
        data={"seconds": seconds, "report": verified.report},
    )  # fmt: skip


def _namespace_key(options: Options) -> Row:
    note("wrapping 100,000 data keys anew")
    directory = options.work / "rotate-keys"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none")))
    count = 10_000 if options.quick else 100_000
    times = []
    with strongroom.open(directory, worker=False) as room:
        room.create_namespace(_NS)
        entry = room.engine.registry.get(_NS)
        assert entry is not None
        subjects = [i.to_bytes(32, "big") for i in range(1, count + 1)]
        room.engine.vault.keyring.data_keys(entry.ns, subjects)
        for _ in range(min(3, options.repeats)):
            started = time.perf_counter()
            room.rotate_namespace(namespaces=[_NS])
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        room.engine.vault.keyring.renew_root(entry.ns, KeyNote("bench", "a measurement"))
        root_s = time.perf_counter() - started
    spread = Spread.of(times)
    return Row(
        f"a new namespace key: {count:,} data keys wrapped anew",
        f"{spread.show(1, 2, ' s')}; a new purpose root, as many subjects blinded anew: {root_s:.1f} s",
        "< 5 s for 100,000", spread.median < 5 * count / 100_000,
        data={"seconds": times, "root_seconds": root_s},
    )  # fmt: skip
