"""Several master keys, one per tenant, two for one namespace: who is asked, who is obeyed, how to move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.keyring.keyring_tools import STORE, context, subject

from strongroom.crypto import SecretKey
from strongroom.errors import (
    ConfigurationError,
    InvalidInputError,
    KeyManagementError,
    KeyStateError,
    KmsDeniedError,
    KmsKeyDisabledError,
    KmsThrottledError,
    KmsUnavailableError,
    StrongroomError,
    UnwrapError,
)
from strongroom.keyring import Keyring
from strongroom.kms import DEFAULT, Entry, KmsDirectory, KmsKeyInfo, KmsProvider, LocalKeystore


class Part:
    """One key management service of the tests: counts, fails on demand, can be replaced by another key."""

    def __init__(self, directory: Path, name: str) -> None:
        self.inner = LocalKeystore.create(directory / name / "master.key", store_id=STORE)
        self.error: type[StrongroomError] | None = None
        self.fails_at: int | None = None
        self.calls = 0
        self.gives_back: SecretKey | None = None

    def describe(self) -> KmsKeyInfo:
        return self.inner.describe()

    def _call(self) -> None:
        self.calls += 1
        if self.error is not None and self.fails_at in (None, self.calls):
            raise self.error

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        self._call()
        return self.inner.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        self._call()
        return self.gives_back or self.inner.unwrap(wrapped, context)

    def close(self) -> None:
        pass


class World:
    """A keyring under several services."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.keys" / "keyring.db"
        self.parts = {name: Part(directory, name) for name in (DEFAULT, "west", "acme")}
        self.opened: list[Keyring] = []

    def directory(self, *names: str, broken: str = "") -> KmsDirectory:
        def make(name: str) -> KmsProvider:
            if name == broken:
                raise ConfigurationError("environment variable ACME is not set")
            return self.parts[name]

        chosen = names or tuple(self.parts)
        return KmsDirectory({n: Entry("local", lambda n=n: make(n)) for n in chosen})  # type: ignore[misc]

    def create(self, names: tuple[str, ...] = (DEFAULT,)) -> Keyring:
        return self.note(Keyring.create(self.path, STORE, self.directory(), names=names, recheck_ms=0))

    def open(self, *names: str, broken: str = "") -> Keyring:
        return self.note(Keyring.open(self.path, STORE, self.directory(*names, broken=broken), recheck_ms=0))

    def note(self, ring: Keyring) -> Keyring:
        self.opened.append(ring)
        return ring

    def calm(self) -> None:
        for part in self.parts.values():
            part.error = part.fails_at = part.gives_back = None
            part.calls = 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    for ring in found.opened:
        ring.close()


def used(ring: Keyring, ns: int) -> None:
    key = ring.data_key(ns, None, create=False)
    assert key.open(context(ns), key.seal(context(ns), b"x")) == b"x"


def test_each_wrap_says_which_master_key_made_it(world: World) -> None:
    """The records of wraps name namespace, version, order and master key; the file is sound."""
    ring = world.create()
    ns = ring.create_namespace("acme", names=("acme", "west"))
    uri = {name: part.describe().key_uri for name, part in world.parts.items()}
    assert [(w.version, w.place, w.key_uri) for w in ring.wraps(ns)] == [
        (1, 1, uri["acme"]),
        (1, 2, uri["west"]),
    ]
    assert [(w.ns, w.key_uri) for w in ring.wraps()][:2] == [(-1, uri[DEFAULT]), (0, uri[DEFAULT])]
    assert ring.wrapped_by(ns) == ("acme", "west")
    assert ring.wrapped_by(0) == (DEFAULT,)
    assert ring.check() == []


@pytest.mark.parametrize("error", [KmsUnavailableError, KmsThrottledError])
def test_silence_of_one_master_key_is_borne_by_the_next(world: World, error: type[StrongroomError]) -> None:
    """While the preferred one does not answer the second unwraps; both silent: kms_unavailable."""
    ring = world.create()
    ns = ring.create_namespace("acme", names=("acme", "west"))
    ring.close()
    world.parts["acme"].error = error
    used(world.open(), ns)
    world.parts["west"].error = error
    with pytest.raises(error):
        used(world.open(), ns)
    assert world.parts["acme"].calls
    world.calm()
    used(world.open(), ns)
    assert world.parts["west"].calls == 0


@pytest.mark.parametrize("error", [KmsDeniedError, KmsKeyDisabledError, UnwrapError])
def test_a_refusal_is_obeyed_and_not_worked_around(world: World, error: type[StrongroomError]) -> None:
    """When the preferred master key is refused, no other one is asked."""
    ring = world.create()
    ns = ring.create_namespace("acme", names=("acme", "west"))
    ring.close()
    world.calm()
    world.parts["acme"].error = error
    with pytest.raises(error):
        used(world.open(), ns)
    assert world.parts["west"].calls == 0


def test_the_store_itself_may_have_two_master_keys(world: World) -> None:
    """With the integrity key and the system under two, the store opens while the first is silent."""
    ring = world.create(names=(DEFAULT, "west"))
    ring.close()
    world.parts[DEFAULT].error = KmsUnavailableError
    ring = world.open()
    used(ring, 0)
    with pytest.raises(KmsUnavailableError):  # a new key wants every wrap that is asked for
        ring.create_namespace("acme", names=(DEFAULT, "west"))
    assert [n.ns for n in ring.list_namespaces()] == [0]


@pytest.mark.parametrize("how", ["silent", "denied", "not made"])
def test_one_tenants_service_stops_that_tenant_alone(world: World, how: str) -> None:
    """Down, denied or impossible to make: its namespaces fail, those of others and the store go on."""
    ring = world.create()
    ns, other = ring.create_namespace("acme", names=("acme",)), ring.create_namespace("company_b")
    ring.close()
    if how != "not made":
        world.parts["acme"].error = KmsUnavailableError if how == "silent" else KmsDeniedError
    ring = world.open(broken="acme" if how == "not made" else "")
    with pytest.raises(ConfigurationError if how == "not made" else KeyManagementError):
        used(ring, ns)
    used(ring, other)
    assert ring.create_namespace("company_c") == other + 1
    with pytest.raises(StrongroomError):
        ring.create_namespace("acme", names=("acme",))
    found = ring.check()
    assert {f.where for f in found} == {f"key of namespace {ns}, version 1, wrap 1"}
    world.calm()
    used(world.open(), ns)


def test_a_namespace_moves_while_it_is_in_use(world: World) -> None:
    """After the move the new service is asked and the old one is not needed; handles work on throughout."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    key = ring.data_key(ns, subject(1), create=True)
    sealed = key.seal(context(ns), b"content")
    old = ring._book.wraps(ns, 1)[0].wrapped
    assert ring.rewrap_namespace(ns, names=("acme", "west")) == 1
    assert key.open(context(ns), sealed) == b"content"
    assert ring.check() == []
    ring.close()
    raw = b"".join(p.read_bytes() for p in world.path.parent.glob("keyring.db*"))
    assert old not in raw
    world.parts[DEFAULT].calls = 0
    ring = world.open()
    asked = world.parts[DEFAULT].calls
    assert ring.data_key(ns, subject(1), create=False).open(context(ns), sealed) == b"content"
    assert world.parts[DEFAULT].calls == asked
    assert ring.wrapped_by(ns) == ("acme", "west")


def test_another_process_follows_a_move_when_the_old_key_is_refused(world: World) -> None:
    """A process that still has the old wrap in its hands asks with the new one instead of failing."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    other = world.open()
    part = world.parts[DEFAULT]
    real = part.unwrap

    def unwrap(wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        if context["namespace"] != str(ns):
            return real(wrapped, context)
        part.unwrap = real  # type: ignore[method-assign]
        ring.rewrap_namespace(ns, names=("west",))
        raise KmsKeyDisabledError

    part.unwrap = unwrap  # type: ignore[method-assign]
    used(other, ns)
    assert world.parts["west"].calls


def test_a_replaced_master_key_takes_over(world: World) -> None:
    """Everything rewrapped to another provider: the store opens without the first one being configured."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    for n in (0, ns):
        ring.rewrap_namespace(n, names=("west",))
    ring.rewrap_integrity(names=("west",))
    assert ring.check() == []
    ring.close()
    world.parts[DEFAULT].error = KmsKeyDisabledError
    ring = world.open("west")
    used(ring, ns)
    used(ring, 0)
    assert ring.check() == []
    assert {w.place for w in ring.wraps()} == {1}


def test_rewrap_without_names_keeps_the_providers(world: World) -> None:
    """A rotation of the master key: the same providers, in the same order, with fresh wraps."""
    ring = world.create()
    ns = ring.create_namespace("acme", names=("west", "acme"))
    before = {row.wrapped for row in ring._book.wraps(ns, 1)}
    ring.rewrap_namespace(ns)
    assert ring.wrapped_by(ns) == ("west", "acme")
    assert not before & {row.wrapped for row in ring._book.wraps(ns, 1)}
    assert ring.check() == []


def test_a_service_that_gives_another_key_back_takes_nothing_over(world: World) -> None:
    """A new wrap is unwrapped before the old one goes: what does not come back is not trusted."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    world.parts["acme"].gives_back = SecretKey.generate()
    before = ring.wraps(ns)
    with pytest.raises(KeyManagementError, match="another key"):
        ring.rewrap_namespace(ns, names=("acme",))
    assert ring.wraps(ns) == before
    used(ring, ns)


def test_every_nth_call_of_a_rewrap_fails(world: World) -> None:
    """Whichever call fails, the old wraps stay whole, and the repetition goes through."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    for name in (DEFAULT, "acme"):
        n = 0
        while True:
            world.calm()
            n += 1
            part = world.parts[name]
            part.error, part.fails_at = KmsUnavailableError, n
            before = ring.wraps(ns)
            try:
                ring.rewrap_namespace(ns, names=("acme", "west"))
            except KmsUnavailableError:
                assert ring.wraps(ns) == before
                world.calm()
                assert ring.check() == []
                continue
            assert n > (1 if name == DEFAULT else 2)
            break
        world.calm()
        ring.rewrap_namespace(ns, names=(DEFAULT,))


def test_bad_names_are_refused(world: World) -> None:
    """No name, one twice, one that nobody knows, a namespace that is not there: nothing changes."""
    ring = world.create()
    ns = ring.create_namespace("acme")
    for names, kind in (
        ((), InvalidInputError),
        (("west", "west"), InvalidInputError),
        (("nobody",), ConfigurationError),
        (("west",) * 17, InvalidInputError),
    ):
        with pytest.raises(kind):
            ring.rewrap_namespace(ns, names=names)
        with pytest.raises(kind):
            ring.create_namespace("x", names=names)
    with pytest.raises(KeyStateError):
        ring.rewrap_namespace(99)
    assert ring.wrapped_by(ns) == (DEFAULT,)


def test_two_names_of_one_master_key_are_refused(world: World) -> None:
    """Two wraps under the same master key would be one safety less than they look."""
    world.parts["west"].inner = world.parts[DEFAULT].inner
    ring = world.create()
    with pytest.raises(InvalidInputError, match="same master key"):
        ring.create_namespace("acme", names=(DEFAULT, "west"))


def test_a_removed_wrap_is_told_by_check(world: World) -> None:
    """A second wrap that somebody took out of the file, or put back, is found as tampered."""
    ring = world.create()
    ns = ring.create_namespace("acme", names=(DEFAULT, "west"))
    db = ring._book.db
    (row,) = list(db.execute("SELECT * FROM wraps WHERE ns = ? AND place = 2", (ns,)))
    db.execute("DELETE FROM wraps WHERE ns = ? AND place = 2", (ns,))
    assert {f.code for f in ring.check()} == {"tampered"}
    db.execute("INSERT INTO wraps VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    assert ring.check() == []


def test_a_keyring_of_version_1_is_brought_up(tmp_path: Path) -> None:
    """A file that the version before has written opens, keeps its keys, and has its wraps in their table."""
    there = tmp_path / "old.keys"
    shutil.copytree(Path(__file__).parent / "version_1", there)
    there.chmod(0o700)
    for name in ("keyring.db", "master.key"):
        (there / name).chmod(0o600)
    kms = LocalKeystore.open(there / "master.key", store_id=STORE)
    sealed = [bytes.fromhex(line) for line in (there / "sealed.txt").read_text().split()]
    for _ in range(2):
        with Keyring.open(there / "keyring.db", STORE, kms) as ring:
            for ns, tenant in enumerate(("company_a", "company_b"), 1):
                key = ring.key(next(k.key_id for k in ring.list_keys(ns) if k.subject == subject(1)))
                text = key.open(context(ns, tenant=tenant), sealed[ns - 1])
                assert text == f"content of {tenant}".encode()
            assert [(w.ns, w.place) for w in ring.wraps()] == [(-1, 1), (0, 1), (1, 1), (2, 1)]
            assert ring._book.rows("SELECT count(*) FROM namespace_keys WHERE wrapped != x''") == [(0,)]
            assert ring._book.rows("SELECT length(integrity_key) FROM meta") == [(0,)]
            assert ring.check() == []
    kms.close()
