"""Power failures while snapshots are written: what is left of them changes no answer and stops no start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from tests.engine.conftest import OpenRoom, save_snapshot, snapshot_events
from tests.engine.test_crash_images import ENVIRONMENT
from tests.engine.test_snapshots import NS, answers, fill, wait_verified
from tests.ledger.ledger_crash import SECTOR, _calls, _unhex
from tests.support.word_model import WordModel

import strongroom

IMAGES = int(os.environ.get("STRONGROOM_CRASH_IMAGES", "60"))
CALLS = "write,pwrite64,fsync,fdatasync,rename,unlink"
WRITER = """
import sys
from pathlib import Path
import strongroom
from tests.engine.conftest import save_snapshot
from tests.support.word_model import WordModel
with strongroom.open(Path(sys.argv[1]), provider=WordModel(), worker=False) as room:
    save_snapshot(room, "company_a/support")
    save_snapshot(room, "company_a/support")  # the same name: the key of the one before is overwritten first
    room.store("the coffee is cold, number 7", namespace="company_a/support")
    save_snapshot(room, "company_a/support")
"""
_ON_FILE = re.compile(r"(write|pwrite64|fsync|fdatasync)\((\d+)<([^>]*)>(.*)\)\s+= (-?\d+)")
_ON_NAME = re.compile(r'(rename|unlink)\("([^"]*)"(?:, "([^"]*)")?\)\s+= 0')


@dataclass(slots=True)
class Step:
    """A change of a file (``data``) or of the directory (``to``: what a name stands for now, or nothing)."""

    file: int
    offset: int = 0
    data: bytes | None = None
    name: str = ""
    to: int | None = None
    covered: int | None = None  # the moment from which it is on the disk for certain


def recorded(trace: Path, directory: Path) -> tuple[list[Step], int]:
    """What was done to the snapshots, in order, and when what was on the disk."""
    steps: list[Step] = []
    names: dict[str, int] = {}
    lengths: Counter[int] = Counter()

    def covered(moment: int, *, of: int | None) -> None:
        for step in steps:
            mine = step.data is None if of is None else (step.data is not None and step.file == of)
            if mine and step.covered is None:
                step.covered = moment

    for _, _, text in _calls(trace):
        if found := _ON_FILE.match(text):
            call, _, raw, rest, result = found.groups()
            path = Path(_unhex(raw).decode() if "\\x" in raw else raw)
            if path == directory and call == "fsync":
                covered(len(steps), of=None)
            if path.parent != directory or path.suffix not in (".draft", ".snap") or int(result) < 0:
                continue
            if call in ("fsync", "fdatasync"):
                covered(len(steps), of=names[path.name])
                continue
            if path.name not in names:
                names[path.name] = len(lengths)
                steps.append(Step(names[path.name], name=path.name, to=names[path.name]))
            file, data = names[path.name], _unhex(rest.split('"')[1])
            offset = lengths[file] if call == "write" else int(rest.split(",")[-1])
            lengths[file] = max(lengths[file], offset + len(data))
            steps.append(Step(file, offset=offset, data=data))
        elif found := _ON_NAME.match(text):
            call = found[1]
            old, new = (Path(_unhex(t or "").decode()) for t in found.groups()[1:])
            if old.parent == directory and old.name in names:
                file = names.pop(old.name)
                steps.append(Step(file, name=old.name))
                if call == "rename":
                    names[new.name] = file
                    steps.append(Step(file, name=new.name, to=file))
    return steps, len(steps)


def left(steps: list[Step], moment: int, mode: str, chance: Random) -> dict[str, bytes]:
    """The files of the directory as a power failure at ``moment`` may leave them."""
    files: dict[int, bytearray] = {}
    names: dict[str, int] = {}
    is_whole = True  # the directory keeps its order: a change that was lost takes those behind it along
    for step in steps[:moment]:
        certain = step.covered is not None and step.covered <= moment
        if step.data is None:
            is_whole = certain or (
                is_whole and (mode == "kept" or (mode == "torn" and chance.random() < 0.7))
            )
            if is_whole and step.to is not None:
                names[step.name] = step.to
            elif is_whole:
                names.pop(step.name, None)
            continue
        target = files.setdefault(step.file, bytearray())
        for at in range(0, len(step.data), SECTOR):
            if certain or mode == "kept" or (mode == "torn" and chance.random() < 0.5):
                end = step.offset + at
                target.extend(bytes(max(0, end - len(target))))
                target[end : end + SECTOR] = step.data[at : at + SECTOR]
    return {name: bytes(files.get(file, b"")) for name, file in names.items()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_crash_image_of_a_snapshot_changes_an_answer(
    data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """Three snapshots, one over another of its name: cut off at any moment, what was not synced lost or torn,
    the store opens, answers as without any, verifies, and writes the next one; some give a warm start."""
    room = open_room()
    fill(room, 30)
    room.close()
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={CALLS}", "-e", "signal=none"]
    command += ["-o", str(trace), sys.executable, "-c", WRITER, str(data)]
    assert subprocess.run(command, env=ENVIRONMENT, timeout=240, check=False).returncode == 0
    directory = data / "snapshots"
    steps, moments = recorded(trace, directory)
    assert sum(s.data is not None for s in steps) > 6
    assert len({s.name for s in steps if s.to is not None and s.name.endswith(".snap")}) == 2
    kept = {p.name: p.read_bytes() for p in directory.glob("*.snap")}
    assert left(steps, moments, "kept", Random(1)) == kept, "the recording is what happened"

    def answered(files: dict[str, bytes]) -> tuple[object, dict[str, float]]:
        shutil.rmtree(directory)
        directory.mkdir(mode=0o700)
        for name, raw in files.items():
            (directory / name).write_bytes(raw)
        with strongroom.open(data, provider=WordModel(), worker=False) as again:
            found = answers(again)
            wait_verified(again)
            events = snapshot_events(again)
            assert again.check(read_data=True).ok
            save_snapshot(again, NS)
        return found, events

    wanted, _ = answered({})
    chance, seen = Random(29), Counter[str]()
    for i in range(IMAGES):
        moment = round((i + 1) * moments / IMAGES)
        found, events = answered(left(steps, moment, ("lost", "torn", "torn", "kept")[i % 4], chance))
        assert found == wanted, moment
        seen.update(events.keys())
    assert seen["loaded"] >= IMAGES // 6, seen
