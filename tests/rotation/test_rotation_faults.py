"""Rotations that are interrupted: by kill -9, at any write of either file, by a full disk, by the KMS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from tests.engine.conftest import OpenRoom
from tests.rotation.disk import Disk, copy_store, faulty_disk
from tests.rotation.rotated import NS, assert_all_there, fill
from tests.support.word_model import WordModel

import strongroom
from strongroom.engine import Room
from strongroom.errors import KeyManagementError, KmsUnavailableError, StorageError
from strongroom.keyring import _leases, _namespace_rotation, _rotating
from strongroom.kms import LocalKeystore
from strongroom.model import SYSTEM_NAME, RotationState

Act = Callable[[Room], None]


def data_keys(room: Room) -> None:
    """From wherever an attempt before has stopped to the end: begun, moved, finalised."""
    found = room.rotation_status()
    if not found:
        found = room.rotate("data", namespaces=[NS], wait=False)
    for rotation in room.rotation_work([r.id for r in found]):
        if rotation.state == RotationState.MOVED:
            room.rotation_finalise(rotation.id)


def rolled_back(room: Room) -> None:
    found = room.rotation_status() or room.rotate("suite", suite="AES-256-GCM-SIV", namespaces=[NS])
    for rotation in found:
        if rotation.state in (RotationState.MOVED, RotationState.MOVING):
            room.rotation_rollback(rotation.id)
        else:
            room.rotation_work([rotation.id])


def namespace_key(room: Room) -> None:
    room.rotate_namespace(namespaces=[NS])


def master_key(room: Room) -> None:
    room.rotate_master()


def compromised(room: Room) -> None:
    """Everything below a namespace key: the key itself, the purpose root, data keys, records, the head."""
    assert room.respond_key_compromise(f"namespace:{NS}").coverage["records_under_exposed_keys"] == 0


def system_compromised(room: Room) -> None:
    """The same for names, models, API keys, and the keys that sign the audit log."""
    assert room.respond_key_compromise(f"namespace:{SYSTEM_NAME}").coverage["records_under_exposed_keys"] == 0


ACTS: dict[str, Act] = {
    f.__name__: f
    for f in (data_keys, rolled_back, namespace_key, master_key, compromised, system_compromised)
}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rotating, "KEYS_PER_STEP", 3)
    monkeypatch.setattr(_namespace_rotation, "KEYS_PER_STEP", 3)


@pytest.fixture
def disk() -> Iterator[Disk]:
    with faulty_disk() as made:
        yield made


def sample(last: int, wanted: int) -> list[int]:
    """About ``wanted`` numbers from 1 to ``last``, the first ones and the last one among them."""
    step = max(1, last // wanted)
    return sorted({1, 2, 3, last, *range(1, last + 1, step)})


def count_writes(disk: Disk, room: Room, act: Act) -> int:
    disk.arm()
    act(room)
    return disk.count


def opened(data: Path) -> Room:
    return strongroom.open(data, provider=WordModel(), worker=False, debug=True)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.usefixtures("small_steps")
def test_every_image_of_a_kill_is_whole_and_goes_on(
    name: str, disk: Disk, data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """The files before a write, at many writes of a rotation: each image opens, nothing is lost, it ends."""
    room = open_room()
    wanted = fill(room, 40)
    room.close()
    model = copy_store(data, tmp_path / "first")
    with opened(model) as first:
        total = count_writes(disk, first, ACTS[name])
    points = set(sample(total, 5))
    images: list[Path] = []

    def keep(n: int) -> None:
        if n in points:
            images.append(copy_store(data, tmp_path / f"image-{n}"))

    room = opened(data)
    disk.arm(before=keep)
    ACTS[name](room)
    disk.heal()
    assert_all_there(room, wanted)
    room.close()
    assert len(images) >= 4
    for image in images:
        with opened(image) as room:
            assert_all_there(room, wanted)
            ACTS[name](room)
            assert_all_there(room, wanted)
        shutil.rmtree(image.parent)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.usefixtures("small_steps")
def test_a_disk_that_is_full_from_the_nth_write_on(
    name: str, disk: Disk, data: Path, open_room: OpenRoom, tmp_path: Path
) -> None:
    """A typed error, nothing lost, and after room was made the same store ends the rotation."""
    room = open_room()
    wanted = fill(room, 40)
    room.close()
    model = copy_store(data, tmp_path / "first")
    with opened(model) as first:
        total = count_writes(disk, first, ACTS[name])
    failures = 0
    for n in sample(total, 4):
        copy = copy_store(data, tmp_path / f"try-{n}")
        with opened(copy) as room:
            disk.arm(fail_at=n)
            try:
                ACTS[name](room)
            except StorageError:
                failures += 1
            disk.heal()
            ACTS[name](room)
            assert_all_there(room, wanted)
        shutil.rmtree(copy.parent)
    assert failures >= 3


class FailingKms:
    """Counts the calls to the key management service; the n-th does not come through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for name in ("wrap", "unwrap"):
            original = getattr(LocalKeystore, name)

            def call(kms: LocalKeystore, *args: object, original: Callable[..., object] = original) -> object:
                if self.left >= 0:
                    self.left -= 1
                    if self.left < 0:
                        raise KmsUnavailableError("no answer")
                return original(kms, *args)

            monkeypatch.setattr(LocalKeystore, name, call)


@pytest.mark.parametrize("name", ACTS)
def test_the_nth_call_of_the_kms_fails(
    name: str, data: Path, open_room: OpenRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For n = 1, 2, 3 ... until it completes: a typed error, nothing lost, the next attempt ends it."""
    room = open_room()
    wanted = fill(room, 16)
    room.close()
    kms = FailingKms(monkeypatch)
    monkeypatch.setattr(_leases, "PAUSE_S", 0.0)  # a refusal is not remembered
    for n in range(60):
        copy = copy_store(data, tmp_path / f"try-{n}")
        with opened(copy) as room:
            kms.left = n
            try:
                ACTS[name](room)
                done = kms.left >= 0  # not as many calls were made
            except KeyManagementError:
                done = False
            kms.left = -1
            if not done:
                ACTS[name](room)
            assert_all_there(room, wanted)
        shutil.rmtree(copy.parent)
        if done:
            assert n >= (2 if name in ("namespace_key", "master_key") else 0)
            return
    pytest.fail("it never completed")


CHILD = """
import sys, strongroom
from tests.support.word_model import WordModel
from tests.rotation import test_rotation_faults as faults
from strongroom.lifecycle.rotation import Waves
from strongroom.keyring import _rotating, _namespace_rotation
_rotating.KEYS_PER_STEP = _namespace_rotation.KEYS_PER_STEP = 2
batch = Waves._batch
def told(self, *args):
    print("batch", flush=True)
    return batch(self, *args)
Waves._batch = told
rotate = _rotating.Rotating.rotate_keys
def keys(self, *args, **kwargs):
    print("keys", flush=True)
    return rotate(self, *args, **kwargs)
_rotating.Rotating.rotate_keys = keys
with strongroom.open(sys.argv[1], provider=WordModel(), worker=False) as room:
    print("open", flush=True)
    faults.ACTS[sys.argv[2]](room)
print("done", flush=True)
"""


def rotating(data: Path, name: str) -> subprocess.Popen[str]:
    """A process that carries out a rotation and says how far it is."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(data), name],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data_keys"])
def test_killed_five_times_on_the_way_it_completes(name: str, data: Path, open_room: OpenRoom) -> None:
    """kill -9 amid steps and batches, five times: it ends, and nothing is unreadable on the way."""
    room = open_room()
    wanted: dict[UUID, str] = fill(room, 160)
    room.close()
    kills = 0
    for lines in (2, 3, 3, 3, 3, 1_000):
        child = rotating(data, name)
        assert child.stdout is not None
        seen = [line.strip() for line, _ in zip(child.stdout, range(lines), strict=False)]
        if seen[-1:] != ["done"] and lines < 1_000:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate(timeout=120)
        with opened(data) as room:
            assert_all_there(room, wanted)
    assert kills == 5
    with opened(data) as room:
        assert room.rotation_status() == []
        assert_all_there(room, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["namespace_key", "master_key"])
def test_killed_at_any_moment_a_short_rotation_leaves_every_record_readable(
    name: str, data: Path, open_room: OpenRoom
) -> None:
    """kill -9 from before its first step to after its last: what is left is whole, and a repetition ends."""
    room = open_room()
    wanted: dict[UUID, str] = fill(room, 60)
    room.close()
    ended = 0
    for wait_ms in (0, 4, 8, 16, 32, 5_000):
        child = rotating(data, name)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "open"
        try:
            child.wait(wait_ms / 1000)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        ended += child.communicate(timeout=120)[0].strip().endswith("done")
        with opened(data) as room:
            assert_all_there(room, wanted)
    assert ended >= 1  # the last one had all the time it needs
    with opened(data) as room:
        ACTS[name](room)
        assert_all_there(room, wanted)
