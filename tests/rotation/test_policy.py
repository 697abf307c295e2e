"""Rotation by policy: what is due by age (a stepped clock) or by uses is begun, never finalised."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.engine.conftest import OpenRoom
from tests.rotation.rotated import NS, assert_all_there, fill, keys_in_use, ns_of, states

from strongroom.config import RotationConfig
from strongroom.engine import Room, _rotation_policy
from strongroom.keyring import ROOT, KeyState
from strongroom.model import Rotation, RotationState

DAY_US = 86_400_000_000


class Clock:
    """The store's clock: that of the machine, and some days more."""

    days = 0.0

    def __call__(self) -> int:
        return time.time_ns() // 1000 + int(self.days * DAY_US)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Opened = Callable[..., Room]


@pytest.fixture
def opened(open_room: OpenRoom, clock: Clock) -> Opened:
    """Opens the store with limits of its own; everything that is not named is switched off."""
    off = {"master_days": 0, "namespace_days": 0, "data_days": 0, "data_uses_max": 0}

    def open_it(**limits: int) -> Room:
        room = open_room(clock_us=clock)
        config = RotationConfig(**{**off, "worker": False, **limits})  # type: ignore[arg-type]
        room.engine.config = replace(room.engine.config, rotation=config)
        return room

    return open_it


def begun(room: Room) -> list[Rotation]:
    _rotation_policy.apply(room.engine, room.engine.rotations.waves)
    return room.rotation_status()


def test_data_keys_by_age(opened: Opened, clock: Clock) -> None:
    """A day before the period nothing happens; a day after it one wave begins and moves every record."""
    room = opened(data_days=30)
    wanted = fill(room, 16)
    before = keys_in_use(room)
    clock.days = 29
    assert begun(room) == []
    clock.days = 31
    waves = [r for r in begun(room) if r.namespace == NS]
    assert len(waves) == 1 and begun(room) == room.rotation_status()
    assert len([r for r in room.rotation_status() if r.namespace == NS]) == 1
    (done,) = room.rotation_work([waves[0].id])
    assert done.state == RotationState.MOVED  # never finalised by itself
    assert not keys_in_use(room) & before
    assert {states(room)[k] for k in before} == {KeyState.DECRYPT_ONLY}
    for rotation in room.rotation_work():
        room.rotation_finalise(rotation.id)
    clock.days = 1
    assert begun(room) == []
    assert_all_there(room, wanted)


def test_data_keys_by_uses(opened: Opened) -> None:
    """The key that has sealed too much is left, alone; its subject goes on under the next one."""
    room = opened(data_uses_max=30)
    wanted = fill(room, 8)
    assert begun(room) == []
    busy = room.store_many(
        {"content": f"busy alpha {i}", "namespace": NS, "subject": "user:1"} for i in range(40)
    )
    wanted |= {m.memory_id: m.content for m in busy}
    room.flush()
    room.engine.vault.keyring.flush()
    uses = {k.key_id: k.uses for k in room.engine.vault.keyring.list_keys(ns_of(room))}
    (worn,) = [k for k, n in uses.items() if n >= 30]
    (wave,) = [r for r in begun(room) if r.namespace == NS]
    others = keys_in_use(room) - {worn}
    room.rotation_work([wave.id])
    assert worn not in keys_in_use(room) and others <= keys_in_use(room)
    assert states(room)[worn] == KeyState.DECRYPT_ONLY
    room.rotation_finalise(wave.id)
    assert states(room)[worn] in (KeyState.DESTROYED, KeyState.DECRYPT_ONLY)
    assert_all_there(room, wanted)


def test_namespace_and_master_keys_by_age(opened: Opened, clock: Clock) -> None:
    """Past their periods a namespace key gets its next version and a wrap is made anew; before, neither."""
    room = opened(namespace_days=100, master_days=200)
    wanted = fill(room, 8)
    keyring, ns = room.engine.vault.keyring, ns_of(room)

    def versions() -> list[KeyState]:
        return [r.state for r in keyring.list_namespaces() if r.ns == ns]

    def wrapped() -> list[object]:
        return [(w.version, w.created_at) for w in keyring.wraps(ns)]

    first = wrapped()
    clock.days = 99
    begun(room)
    assert versions() == [KeyState.ACTIVE] and wrapped() == first
    clock.days = 101
    begun(room)
    assert versions() == [KeyState.DESTROYED, KeyState.ACTIVE]
    clock.days = 1
    second = wrapped()
    begun(room)
    assert wrapped() == second
    clock.days = 201
    room.engine.config = replace(room.engine.config, rotation=RotationConfig(
        master_days=200, namespace_days=0, data_days=0, data_uses_max=0, worker=False
    ))  # fmt: skip
    begun(room)
    assert versions() == [KeyState.DESTROYED, KeyState.ACTIVE] and wrapped() != second
    assert_all_there(room, wanted)


def test_one_that_cannot_be_rotated_keeps_no_other_from_it(
    opened: Opened, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace whose rotation fails is told in the log; the next one is begun all the same."""
    from strongroom.errors import KmsUnavailableError

    room = opened(data_days=30)
    fill(room, 4)
    fill(room, 4, "b/other")
    clock.days = 31
    waves, bad = room.engine.rotations.waves, ns_of(room)
    begin = waves.begin

    def failing(ns: int, *args: object, **kwargs: object) -> int:
        if ns == bad:
            raise KmsUnavailableError("no answer")
        return begin(ns, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(waves, "begin", failing)
    assert {r.namespace for r in begun(room)} == {"@system", "b/other"}


def test_a_purpose_root_is_never_due(opened: Opened, clock: Clock) -> None:
    """It seals nothing and no wave replaces it: its age begins none again and again."""
    room = opened(data_days=30)
    fill(room, 4)
    room.respond_key_compromise(f"namespace:{NS}")
    keyring, ns = room.engine.vault.keyring, ns_of(room)
    for key in keyring.list_keys(ns):  # leave the root alone as the one active key
        if key.state == KeyState.ACTIVE and key.subject != ROOT:
            keyring.destroy_data_key(key.key_id)
    clock.days = 31
    assert NS not in {r.namespace for r in begun(room)}
