"""Random histories of stores, deletes, searches and rotations, restarts included, against a plain dict."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import strongroom
from strongroom.config import Config, EmbeddingConfig, RotationConfig
from strongroom.keyring import KeyState
from strongroom.model import RotationState

NS = "a/x"
SUITES = ["AES-256-GCM", "ChaCha20-Poly1305", "AES-256-GCM-SIV"]
subjects = st.sampled_from([None, "u:1", "u:2", "u:3"])


class RotationsAgainstDict(RuleBasedStateMachine):
    """Whatever is rotated, paused, turned or finalised in between, the store answers as a dict would."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp()) / "data"
        rotation = RotationConfig(worker=False, batch_rows=3, lease_ms=0)
        strongroom.init(
            self.directory, config=Config(embedding=EmbeddingConfig(provider="none"), rotation=rotation)
        )
        self.room = strongroom.open(self.directory, worker=False, debug=True)
        self.room.create_namespace(NS)
        self.truth: dict[UUID, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "room"):
            self.room.close()
            shutil.rmtree(self.directory.parent)

    @rule(n=st.integers(1, 5), subject=subjects)
    def store(self, n: int, subject: str | None) -> None:
        for _ in range(n):
            content = f"alpha {len(self.truth)}"
            m = self.room.store(content, namespace=NS, subject=subject)
            self.truth[m.memory_id] = content

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        if self.truth:
            i = data.draw(st.sampled_from(sorted(self.truth)))
            self.truth[i] += " beta"
            self.room.update(i, namespace=NS, content=self.truth[i])

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.truth:
            i = data.draw(st.sampled_from(sorted(self.truth)))
            assert self.room.delete(i, namespace=NS)
            del self.truth[i]

    @rule(suite=st.sampled_from([None, *SUITES]))
    def begin_rotation(self, suite: str | None) -> None:
        if not self.room.rotation_status():
            what = "data" if suite is None else "suite"
            self.room.rotate(what, suite=suite, namespaces=[NS], wait=False)

    @rule(steps=st.integers(1, 4))
    def work_a_little(self, steps: int) -> None:
        from tests.rotation.rotated import NOTE

        for r in self.room.rotation_status():
            for _ in range(steps):
                self.room.engine.rotations.waves.work(r.id, NOTE, once=True)

    @rule()
    def work_to_the_end(self) -> None:
        self.room.rotation_work()

    @rule()
    def finalise_or_turn(self) -> None:
        for r in self.room.rotation_status():
            if r.state == RotationState.MOVED and len(self.truth) % 2:
                self.room.rotation_finalise(r.id)
            elif r.state in (RotationState.MOVED, RotationState.MOVING):
                self.room.rotation_rollback(r.id, wait=False)

    @rule()
    def rotate_wrapping_keys(self) -> None:
        self.room.rotate_namespace(namespaces=[NS])
        self.room.rotate_master(namespaces=[NS])

    @rule()
    def restart(self) -> None:
        self.room.close()
        self.room = strongroom.open(self.directory, worker=False, debug=True)

    @invariant()
    def everything_is_there_under_one_live_key(self) -> None:
        if not hasattr(self, "room"):
            return
        hits = self.room.search("alpha", namespaces=[NS], mode="keyword", k=500)
        assert {h.memory.memory_id: h.memory.content for h in hits} == self.truth
        entry = self.room.engine.registry.get(NS)
        assert entry is not None
        known = {k.key_id: k.state for k in self.room.engine.vault.keyring.list_keys()}
        for key_id in self.room.engine.ledger.keys_in_use(entry.ns):
            assert known[key_id] in (KeyState.ACTIVE, KeyState.DECRYPT_ONLY)

    @rule()
    def check(self) -> None:
        assert self.room.check(read_data=True).findings == ()


RotationsAgainstDict.TestCase.settings = settings(
    max_examples=6, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRotationsAgainstDict = RotationsAgainstDict.TestCase
