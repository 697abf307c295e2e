"""States of data keys: a state machine against a model, destruction, and what other processes see."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.keyring.keyring_tools import Keys, context, random_subjects, subject

from strongroom.errors import KeyStateError, NotFoundError, StorageBusyError
from strongroom.keyring import DataKey, Keyring, KeyState

SUBJECTS = st.sampled_from([None, subject(1), subject(2)])
ACTIVE, DECRYPT_ONLY, DISABLED, DESTROYED, COMPROMISED = KeyState


class KeyStates(RuleBasedStateMachine):
    """Two keyrings on one file, driven by any sequence of operations, agree with a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.keys = Keys(self.directory / "keys")

    @initialize()
    def start(self) -> None:
        first = self.keys.create(recheck_ms=0)
        self.ns = first.create_namespace("a")
        self.rings = [first, self.keys.open()]
        self.state: dict[int, KeyState] = {}
        self.newest: dict[bytes | None, int] = {}
        self.sealed: dict[int, bytes] = {}
        self.handles: dict[int, DataKey] = {}
        self._adopt(None, first.data_key(self.ns, None, create=False))

    def teardown(self) -> None:
        self.keys.close()
        shutil.rmtree(self.directory)

    def _adopt(self, who: bytes | None, key: DataKey) -> None:
        assert key.key_id not in self.state
        self.state[key.key_id] = ACTIVE
        self.newest[who] = key.key_id
        self.handles[key.key_id] = key
        self.sealed[key.key_id] = key.seal(context(self.ns), b"%d" % key.key_id)

    def _pick(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.state)))

    @rule(who=SUBJECTS, n=st.integers(0, 1), create=st.booleans())
    def ask(self, who: bytes | None, n: int, create: bool) -> None:
        newest = self.newest.get(who)
        if newest is not None and self.state[newest] is ACTIVE:
            assert self.rings[n].data_key(self.ns, who, create=create).key_id == newest
        elif create:
            self._adopt(who, self.rings[n].data_key(self.ns, who, create=True))
        else:
            with pytest.raises(NotFoundError):
                self.rings[n].data_key(self.ns, who, create=False)

    @rule(who=SUBJECTS, n=st.integers(0, 1))
    def rotate(self, who: bytes | None, n: int) -> None:
        newest = self.newest.get(who)
        if newest is not None and self.state[newest] is ACTIVE:
            key = self.rings[n].rotate_data_key(self.ns, who)
            self.state[newest] = DECRYPT_ONLY
            self._adopt(who, key)
        else:
            with pytest.raises((NotFoundError, KeyStateError)):
                self.rings[n].rotate_data_key(self.ns, who)

    @rule(data=st.data(), n=st.integers(0, 1), enable=st.booleans())
    def disable_or_enable(self, data: st.DataObject, n: int, enable: bool) -> None:
        key_id = self._pick(data)
        ring = self.rings[n]
        act = ring.enable_data_key if enable else ring.disable_data_key
        if self.state[key_id] in (ACTIVE, DESTROYED):
            with pytest.raises(KeyStateError):
                act(key_id)
        else:
            act(key_id)
            self.state[key_id] = DECRYPT_ONLY if enable else DISABLED

    @rule(data=st.data(), n=st.integers(0, 1))
    def destroy(self, data: st.DataObject, n: int) -> None:
        key_id = self._pick(data)
        self.rings[n].destroy_data_key(key_id)
        self.state[key_id] = DESTROYED

    @rule(n=st.integers(0, 1))
    def restart(self, n: int) -> None:
        self.rings[n].close()
        self.rings[n] = self.keys.open()

    @precondition(lambda self: len(self.state) > 1)
    @rule(data=st.data(), n=st.integers(0, 1))
    def use(self, data: st.DataObject, n: int) -> None:
        key_id = self._pick(data)
        state, at = self.state[key_id], context(self.ns)
        if state in (DISABLED, DESTROYED):
            with pytest.raises(KeyStateError):
                self.rings[n].key(key_id)
            return
        key = self.rings[n].key(key_id)
        assert key.open(at, self.sealed[key_id]) == b"%d" % key_id
        if state is DECRYPT_ONLY:
            with pytest.raises(KeyStateError):
                key.seal(at, b"x")
        else:
            key.seal(at, b"x")

    @invariant()
    def records_agree(self) -> None:
        for ring in self.rings if self.state else ():
            found = {k.key_id: k.state for k in ring.list_keys(self.ns)}
            assert found == self.state
            active = [k.subject for k in ring.list_keys(self.ns) if k.state is ACTIVE]
            assert len(active) == len(set(active))
            assert ring.check() == []


TestKeyStates = KeyStates.TestCase
TestKeyStates.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


def wrapped_of(keys: Keys, key_id: int) -> bytes:
    return bytes(keys.sql("SELECT wrapped FROM data_keys WHERE key_id = ?", (key_id,))[0][0])


def test_destroyed_bytes_are_gone_from_every_file(keys: Keys) -> None:
    """Destroyed keys leave no byte of their wrapped form in file or log, in a big keyring after churn."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    order = random.Random(7)
    everyone = random_subjects(3000)
    for n in range(0, 3000, 500):
        ring.data_keys(ns, everyone[n : n + 500])
    for s in order.sample(everyone, 100):
        ring.rotate_data_key(ns, s)
    ring.flush()
    doomed = order.sample([k.key_id for k in ring.list_keys(ns)], 60)
    wrapped = {k: wrapped_of(keys, k) for k in doomed}
    content = keys.raw()
    assert all(w[2:26] in content for w in wrapped.values())
    for key_id in doomed:
        ring.destroy_data_key(key_id)
    content = keys.raw()
    for w in wrapped.values():
        assert not [at for at in (2, 26, 58, 90) if w[at : at + 16] in content]
    assert ring.check() == []
    assert keys.path.with_name("keyring.db-wal").stat().st_size == 0


def test_destroyed_is_for_ever(keys: Keys) -> None:
    """A destroyed key stops its handles, is never enabled again, and its number never comes back."""
    ring = keys.create()
    ns = ring.create_namespace("a")
    key = ring.data_key(ns, subject(1), create=True)
    sealed = key.seal(context(ns), b"x")
    ring.destroy_data_key(key.key_id)
    for call in (
        lambda: key.open(context(ns), sealed),
        lambda: key.seal(context(ns), b"x"),
        lambda: ring.key(key.key_id),
        lambda: ring.enable_data_key(key.key_id),
        lambda: ring.disable_data_key(key.key_id),
    ):
        with pytest.raises(KeyStateError):
            call()
    ring.destroy_data_key(key.key_id)
    successor = ring.data_key(ns, subject(1), create=True)
    assert (successor.key_id > key.key_id, successor.epoch) == (True, 2)
    assert wrapped_of(keys, key.key_id) == bytes(106)


def test_active_key_must_be_rotated_before_it_is_disabled(keys: Keys) -> None:
    """An active key cannot be disabled; after rotation it can, and enabled it opens again but never seals."""
    ring = keys.create()
    old = ring.data_key(0, subject(1), create=True)
    sealed = old.seal(context(0), b"x")
    with pytest.raises(KeyStateError) as info:
        ring.disable_data_key(old.key_id)
    assert info.value.hint
    ring.rotate_data_key(0, subject(1))
    ring.disable_data_key(old.key_id)
    with pytest.raises(KeyStateError):
        old.open(context(0), sealed)
    ring.enable_data_key(old.key_id)
    assert old.open(context(0), sealed) == b"x"
    assert old.state is KeyState.DECRYPT_ONLY


def test_other_processes_see_states_at_once_without_interval(keys: Keys) -> None:
    """A key destroyed elsewhere stops a handle that was unwrapped before; purpose keys of it stop too."""
    mine, other = keys.create(recheck_ms=0), keys.open()
    ns = mine.create_namespace("a")
    key = other.data_key(ns, subject(1), create=True)
    sealed = key.seal(context(ns), b"x")
    other.purpose_key(ns, "head")
    mine.destroy_data_key(key.key_id)
    mine.destroy_data_key(mine.data_key(ns, None, create=False).key_id)
    with pytest.raises(KeyStateError):
        key.open(context(ns), sealed)
    with pytest.raises(KeyStateError):
        other.purpose_key(ns, "head")


def test_busy_reader_leaves_the_log_and_repetition_finishes(keys: Keys) -> None:
    """A reader that holds the log makes destroy say busy; repeated it cuts the log."""
    import apsw

    ring = keys.create()
    key = ring.data_key(0, subject(1), create=True)
    wrapped = wrapped_of(keys, key.key_id)
    ring._book.db.set_busy_timeout(50)
    reader = apsw.Connection(str(keys.path))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM data_keys").get  # noqa: B018
    with pytest.raises(StorageBusyError):
        ring.destroy_data_key(key.key_id)
    with pytest.raises(KeyStateError):
        ring.key(key.key_id)
    reader.execute("COMMIT")
    reader.close()
    ring.destroy_data_key(key.key_id)
    assert wrapped[2:26] not in keys.raw()


def test_handles_are_shared(keys: Keys) -> None:
    """The same key asked for in different ways is one handle, so that one change of state reaches all."""
    ring: Keyring = keys.create()
    key = ring.data_key(0, subject(1), create=True)
    assert ring.key(key.key_id) is key
    assert ring.data_keys(0, [subject(1)])[subject(1)] is key
