"""Power failures under the whole engine: ledger and keyring as they could have been left, opened again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from tests.engine.engine_writer import GONE, State, acts_of, after, id_of, place_of
from tests.ledger.ledger_crash import Recording, image, read_trace
from tests.support.word_model import WordModel

import strongroom
from strongroom.engine import Room
from strongroom.errors import MemoryNotFoundError

THREADS, STEPS = 2, 24
IMAGES = int(os.environ.get("STRONGROOM_CRASH_IMAGES", "60"))
CALLS = "pwrite64,pwritev,write,fsync,fdatasync,ftruncate"
DATABASES = ("ledger.db", "keyring.db")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def record(data: Path, trace: Path) -> Recording:
    keys = data.with_name(data.name + ".keys")
    before = {d: (place / d).read_bytes() for d, place in zip(DATABASES, (data, keys), strict=True)}
    reader, writer = os.pipe()
    command = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-e", "signal=none"]
    command += ["-o", str(trace), sys.executable, "-m", "tests.engine.engine_writer"]
    command += [str(data), str(writer), str(THREADS), str(STEPS)]
    done = subprocess.run(command, pass_fds=[writer], env=ENVIRONMENT, timeout=240, check=False)
    os.close(writer)
    os.close(reader)
    assert done.returncode == 0
    return read_trace(trace, before, writer, DATABASES)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_acknowledged_memory_opens_from_every_crash_image(data: Path, tmp_path: Path) -> None:
    """Both databases cut off at one moment, what was not synced lost or torn, each for itself: the store
    opens, every memory that was acknowledged is there as it was or as the step at work leaves it, opens with
    its key, and a check that reads everything finds nothing."""
    recording = record(data, tmp_path / "trace")
    assert len(recording.acknowledged) == THREADS * STEPS
    written = Counter(o.file for o in recording.operations if o.data)
    assert written["keyring.db-wal"] and written["ledger.db-wal"] and written["ledger.db"], written
    chance = Random(23)
    seen: Counter[str] = Counter()
    for i in range(IMAGES):
        moment = round((i + 1) * recording.moments / IMAGES)
        lines = [line.split() for at, line in recording.acknowledged if at <= moment]
        done = [
            1 + max((int(n) for t, n in lines if int(t) == thread), default=-1) for thread in range(THREADS)
        ]
        mode = ("lost", "torn", "torn", "kept")[i % 4]
        examine(data, tmp_path / "image", image(recording, moment, mode, chance), done)
        seen[mode] += 1
    assert min(seen.values()) >= IMAGES // 5


def examine(data: Path, place: Path, files: dict[str, bytes], done: list[int]) -> None:
    keys = place.with_name(place.name + ".keys")
    source = data.with_name(data.name + ".keys")
    for directory in (place, keys):
        directory.mkdir(mode=0o700)
    shutil.copy(data / "strongroom.toml", place)
    shutil.copy(source / "master.key", keys)
    for name, raw in files.items():
        target = (keys if name.startswith("keyring") else place) / name
        target.write_bytes(raw)
        target.chmod(0o600)
    with strongroom.open(place, provider=WordModel(), worker=False) as room:
        for thread, steps in enumerate(done):
            for memory_id, allowed in allowed_states(thread, steps).items():
                assert found(room, thread, memory_id) in allowed, (thread, memory_id, steps)
        report = room.check(read_data=True)
        assert report.ok, report
    shutil.rmtree(place)
    shutil.rmtree(keys)


def allowed_states(thread: int, steps: int) -> dict[int, list[State]]:
    """By number of a memory: its state after so many steps, and those on the way through the next one."""
    numbers = {id_of(thread, n): n for n in range(STEPS)}
    now: dict[int, State] = dict.fromkeys(range(STEPS), GONE)
    for step in range(steps):
        for act in acts_of(thread, step):
            now[numbers[act[1]]] = after(now[numbers[act[1]]], act)
    allowed = {n: [state] for n, state in now.items()}
    if steps < STEPS:
        for act in acts_of(thread, steps):
            number = numbers[act[1]]
            allowed[number].append(after(allowed[number][-1], act))
    return allowed


def found(room: Room, thread: int, number: int) -> State:
    try:
        memory = room.get(id_of(thread, number), namespace=place_of(thread, number)[0])
    except MemoryNotFoundError:
        return GONE
    return memory.version, memory.content
