"""Ctrl-C at every step around a lock that one may not get: afterwards it is free."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import OpenRoom
from tests.support.interrupts import interrupted_at

from strongroom import locks
from strongroom.config import OidcConfig
from strongroom.embedding import SweeperLock, _sweeper
from strongroom.engine import Room, _indexes
from strongroom.identity import _jwks
from strongroom.kms import pkcs11
from strongroom.lifecycle.rotation import TrafficMeter, _pace
from strongroom.recall.changes import VectorDrop

NS = "company_a/support"
STEPS_MAX = 400


def is_free(lock: Any) -> bool:
    """Whether another thread gets it."""
    got: list[bool] = []

    def ask() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return got[0]


def struck_everywhere(module: Any, work: Callable[[], Any], lock: Callable[[], Any]) -> int:
    """How many steps ``work`` has in ``module`` and ``locks``; the lock is free after each."""
    steps = 0
    for file in (module.__file__, locks.__file__):
        for step in range(1, STEPS_MAX):
            struck = interrupted_at(step, file, work)
            assert is_free(lock()), f"taken for ever after step {step} of {file}"
            if not struck:
                break
            steps += 1
        else:
            pytest.fail("more steps than expected")
    return steps


def test_what_is_offered_to_an_index(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is interrupted while it takes changes in does not keep searches out for ever."""
    room: Room = open_room(worker=False)
    room.store("text at first", namespace=NS)
    room.search("text", namespaces=[NS], mode="keyword")
    monkeypatch.setattr(_indexes, "_PENDING_MAX", 0)
    entry = room.engine.registry.get(NS)
    assert entry is not None
    indexes = room.engine.indexes
    slot = indexes._slots[entry.ns]
    seq = [10_000]

    def offer() -> None:
        seq[0] += 1
        indexes._offer(slot, slot.pending, VectorDrop(bytes(16), seq[0]))

    assert struck_everywhere(_indexes, offer, lambda: slot.lock) > 5
    slot.pending.clear()
    assert [h.memory.content for h in room.search("text", namespaces=[NS], mode="keyword")]


def test_the_meter_of_traffic(tmp_path: Path) -> None:
    """An operation that is interrupted while it notes its time still lets the store close."""
    meter = TrafficMeter(tmp_path)

    def note() -> None:
        meter._write_at = 0.0
        meter.note(0.001)

    assert struck_everywhere(_pace, note, lambda: meter._lock) > 5
    meter.close()


def test_the_keys_of_a_provider(tmp_path: Path) -> None:
    """A sign-in that is interrupted while keys are read keeps no other from them."""
    key = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 42 + "E", "kid": "one", "alg": "EdDSA"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key]}))
    config = OidcConfig(
        issuer="https://id.example.org", audience=("strongroom",), jwks_file=str(tmp_path / "jwks.json")
    )
    keys = _jwks.KeySet(config, tmp_path)
    now = [1000.0]

    def refresh() -> None:
        now[0] += 1000
        keys._refresh(now[0], None)

    assert struck_everywhere(_jwks, refresh, lambda: keys._lock) > 5


def test_the_last_user_of_a_token() -> None:
    """Closing a PKCS#11 provider that is interrupted leaves its module to the next one."""
    token = pkcs11._Token("no-module", "no-token")

    def leave() -> None:
        token._users = 1
        token.leave(0.1)

    assert struck_everywhere(pkcs11, leave, lambda: token.lock) > 3


def test_the_lock_of_a_file(tmp_path: Path) -> None:
    """Who is interrupted while it takes the role of the sweeper does not hold it unknown to itself."""
    place = tmp_path / "worker.lock"
    for step in range(1, STEPS_MAX):
        mine, other = SweeperLock(place), SweeperLock(place)
        struck = interrupted_at(step, _sweeper.__file__, mine)
        mine.release()
        assert other(), f"held by nobody that is known, after step {step}"
        other.release()
        if not struck:
            break
    assert 3 < step < STEPS_MAX - 1  # so many steps there are
