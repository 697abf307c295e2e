"""Power failures: every acknowledged row survives each of more than 400 crash images."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from tests.ledger.ledger_crash import Recording, image, read_trace
from tests.ledger.ledger_hooks import SumHooks, assert_whole
from tests.ledger.test_ledger_kill import ENVIRONMENT, WRITER, assert_acknowledged

from strongroom.ledger import SqliteLedger, WriteBatch

COMMITS = 40
IMAGES_MIN = 400
CALLS = "pwrite64,pwritev,write,fsync,fdatasync,ftruncate"


def record(directory: Path, trace: Path) -> Recording:
    """Run a writer of two threads with a small log, so that several checkpoints fall into the recording."""
    reader, writer = os.pipe()
    before = {"ledger.db": (directory / "ledger.db").read_bytes()}
    command = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-e", "signal=none"]
    command += ["-o", str(trace), *WRITER, str(directory), str(writer), "w", "2", str(COMMITS), "small-log"]
    done = subprocess.run(command, pass_fds=[writer], env=ENVIRONMENT, timeout=120, check=False)
    os.close(writer)
    os.close(reader)
    assert done.returncode == 0
    return read_trace(trace, before, writer)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_acknowledged_row_is_in_every_crash_image(tmp_path: Path) -> None:
    """Images at evenly spread moments, uncovered writes kept, lost or torn: no row lost, nothing half."""
    store = tmp_path / "store"
    store.mkdir()
    with SqliteLedger.create(store, uuid.uuid4(), SumHooks()) as ledger:
        ledger.commit(WriteBatch(new_namespaces=[1, 2]))
    recording = record(store, tmp_path / "trace")
    assert len(recording.acknowledged) == 2 * COMMITS
    assert any(o.file == "ledger.db" and o.data for o in recording.operations), "no checkpoint was recorded"

    chance = Random(11)
    count = IMAGES_MIN // 2 + 1
    moments = sorted({round(i * recording.moments / count) for i in range(count + 1)})
    seen: Counter[str] = Counter()
    for moment in moments:
        lines = [line for at, line in recording.acknowledged if at <= moment]
        for mode in ("lost", "torn"):
            examine(tmp_path, image(recording, moment, mode, chance), lines)
            seen[mode] += 1
    for moment in moments[:: len(moments) // 20]:
        lines = [line for at, line in recording.acknowledged if at <= moment]
        examine(tmp_path, image(recording, moment, "kept", chance), lines)
        seen["kept"] += 1
    assert seen.total() >= IMAGES_MIN


def examine(tmp_path: Path, files: dict[str, bytes], lines: list[str]) -> None:
    place = tmp_path / "image"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    with SqliteLedger.open(place, SumHooks()) as ledger:
        assert_acknowledged(ledger, lines)
        assert_whole(ledger)
    shutil.rmtree(place)
