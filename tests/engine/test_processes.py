"""Several processes on one directory, and processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom
from tests.support.listed import memories_of

from strongroom.engine import Room, _turn

NS = "company_a/support"

WRITER = """
import sys, strongroom
from tests.support.word_model import WordModel
directory, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with strongroom.open(directory, provider=WordModel()) as room:
    for i in range(count):
        m = room.store(f"{name} wrote {i}", namespace="company_a/support", subject=f"user:{i % 3}")
        print(m.memory_id, flush=True)
        if i % 5 == 4:
            room.update(m.memory_id, namespace="company_a/support", importance=1.0)
"""


def spawn(code: str, *arguments: object) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def test_two_processes_see_each_others_writes(data: Path, room: Room) -> None:
    room.store("the parent was here", namespace=NS)
    children = [spawn(WRITER, data, name, 40) for name in ("one", "two")]
    mine = [room.store(f"parent wrote {i}", namespace=NS).memory_id for i in range(40)]
    ids = {line.strip() for c in children for line in c.communicate(timeout=60)[0].splitlines()}
    assert all(c.returncode == 0 for c in children)
    assert len(ids) == 80
    seen = {str(m.memory_id) for m in room.list(namespaces=[NS], limit=500).memories}
    assert ids <= seen and {str(i) for i in mine} <= seen and len(seen) == 121
    assert len(room.search("wrote", namespaces=[NS], mode="keyword", k=500)) == 120
    assert len(room.list(namespaces=[NS], where="importance = 1.0", limit=500).memories) == 16
    room.flush(timeout_s=60)
    assert room.stats().embedded == 121
    assert room.check(read_data=True).ok


@pytest.mark.slow
def test_no_acknowledged_memory_is_lost_when_writers_are_killed(data: Path, open_room: OpenRoom) -> None:
    """25 kills over 4 writers; every id that a writer had printed is there, whole, and check is clean."""
    acknowledged: set[str] = set()
    kills = 0
    round_no = 0
    while kills < 25:
        writers = [spawn(WRITER, data, f"w{round_no}-{i}", 100_000) for i in range(4)]
        for w in writers:
            assert w.stdout is not None and w.stderr is not None
            first = w.stdout.readline().strip()
            assert len(first) == 36, f"a writer did not come to write: {w.stderr.read()[-2000:]}"
            acknowledged.add(first)
        time.sleep(0.07 * (1 + round_no % 5))
        for victim in writers:
            victim.send_signal(signal.SIGKILL)
            kills += 1
        for w in writers:
            out, _ = w.communicate(timeout=30)
            acknowledged |= {line for line in out.splitlines() if len(line) == 36}
        round_no += 1
    room = open_room()
    seen = {str(m.memory_id): m.content for m in memories_of(room, NS)}
    assert len(acknowledged) >= 28, "the writers never came to write"
    assert acknowledged <= set(seen)
    assert all(" wrote " in content for content in seen.values())
    report = room.check(read_data=True)
    assert report.ok, report.findings
    room.flush(timeout_s=120)
    assert room.stats().embedded == len(seen)


def test_a_store_goes_by_the_settings_that_another_process_has_changed(open_room: OpenRoom) -> None:
    """A known namespace is not looked up first; its settings as they are now count all the same."""
    one, two = open_room(), open_room(worker=False)
    one.store("the namespace is there", namespace=NS)
    two.engine.registry.refresh()
    before = two.engine.registry.get(NS)
    one.update_namespace(NS, language="german")
    assert two.engine.registry.get(NS) == before
    two.store("one more", namespace=NS)
    entry = two.engine.registry.get(NS)
    assert entry is not None and entry.language == "german"
    assert two.list(namespaces=[NS]).memories[0].content == "one more"


ASKED_AND_LEFT = """
import sys, strongroom
from tests.support.word_model import WordModel
room = strongroom.open(sys.argv[1], provider=WordModel())
room.store("the plan was too dear for them", namespace="company_a/support")
print(len(room.search("plan", namespaces=["company_a/support"])), flush=True)
if len(sys.argv) > 2:
    raise LookupError("of the program itself")
"""


@pytest.mark.parametrize("ends", [(), ("by an exception",)], ids=["quietly", "by an exception"])
def test_a_program_that_does_not_close_its_store_ends_without_a_word_of_ours(
    data: Path, open_room: OpenRoom, ends: tuple[str, ...]
) -> None:
    """What it read is counted as if it had closed the store, and stderr holds its own exception alone."""
    child = spawn(ASKED_AND_LEFT, data, *ends)
    said, complained = child.communicate(timeout=60)
    assert said.strip() == "1"
    assert complained.count("\n") == 0 if not ends else complained.endswith("of the program itself\n")
    assert "nanobind" not in complained and "strongroom/engine" not in complained
    (memory,) = open_room(worker=False).list(namespaces=[NS]).memories
    assert memory.access_count == 1


MAKER = """
import pathlib, sys, time, strongroom
from tests.support.word_model import WordModel
directory, gate = sys.argv[1], pathlib.Path(sys.argv[2])
with strongroom.open(directory, provider=WordModel(), worker=False) as room:
    print("ready", flush=True)
    while not gate.exists():
        time.sleep(0.0005)
    for i in range(12):
        room.store("first", namespace=f"team/{i}")
"""


def test_processes_that_make_the_same_namespaces_leave_no_keys_that_nothing_uses(
    data: Path, tmp_path: Path, open_room: OpenRoom
) -> None:
    """Three processes make the same twelve by storing into them: the keyring has the keys of twelve."""
    children = [spawn(MAKER, data, tmp_path / "gate") for _ in range(3)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    (tmp_path / "gate").touch()
    for child in children:
        _, complained = child.communicate(timeout=60)
        assert child.returncode == 0, complained
    room = open_room(worker=False)
    made = room.engine.ledger.namespaces()
    assert len(made) == 13  # and that of the system
    assert [k.ns for k in room.engine.vault.keyring.list_namespaces()] == made
    assert room.stats().memories == 36
    assert room.check(read_data=True).ok


@pytest.mark.parametrize("in_the_way", ["directory", "held"])
def test_a_namespace_is_made_although_nobody_can_wait_for_his_turn(
    data: Path, open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    """The lock cannot be opened, or is held for good: the ledger decides who was first, as without it."""
    room = open_room(worker=False)
    lock = data / "namespace.lock"
    if in_the_way == "directory":
        lock.mkdir()
        room.create_namespace("team/1")
    else:
        monkeypatch.setattr(_turn, "_PLACES", 1)  # every name is at the same place
        monkeypatch.setattr(_turn, "WAIT_S", 0.05)
        with _turn.turn(lock, bytes(8)):
            room.create_namespace("team/1")
    assert [n.name for n in room.namespaces()] == ["team/1"]
