"""Tenants with key management services of their own: who is for whom, who is affected, moving."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.kms.test_kms_store import VECTOR, clocked, fill, settle
from tests.kms.vault_service import VaultService, _Refused

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, KeysConfig, load_config, parse_config, to_toml
from strongroom.engine import Room
from strongroom.engine._pending import EngineQueue
from strongroom.errors import (
    AccessDeniedError,
    ConfigurationError,
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDisabledError,
    KmsUnavailableError,
    StrongroomError,
)
from strongroom.kms import check_providers, names_for
from strongroom.ledger import QueueItem, WriteBatch

ACME, OTHER = "company_0/a", "company_1/a"


class Two:
    """The store's own service, and that of tenant company_0."""

    def __init__(self) -> None:
        self.own, self.acme = VaultService(), VaultService()
        self.own_key, self.acme_key = self.own.new_key(), self.acme.new_key()

    def config(self, **changes: Any) -> Config:
        quick = {"attempts_max": 1, "timeout_ms": 1_000}
        acme = dataclasses.replace(
            self.acme.config(self.acme_key), namespaces=("company_0", "company_0/*"), **(quick | changes)
        )
        return Config(
            keys=dataclasses.replace(self.own.config(self.own_key), cache_s=1_000, **quick),  # type: ignore[arg-type]
            embedding=EmbeddingConfig(provider="none", dimensions=4),
            key_providers={"acme": acme},
        )

    def stop(self) -> None:
        for service in (self.own, self.acme):
            service.faults.clear()
            service.stop()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    monkeypatch.delenv("STRONGROOM_DATA", raising=False)
    found = Two()
    yield found
    found.stop()


@pytest.fixture
def room(two: Two, tmp_path: Path) -> Iterator[Room]:
    strongroom.init(tmp_path / "data", config=two.config())
    with strongroom.open(tmp_path / "data", worker=False) as found:
        fill(found, 2)
        yield found


def uses(room: Room, name: str) -> list[Any]:
    return [
        lambda: room.search(namespaces=[name], embedding=VECTOR),
        lambda: room.list(namespaces=[name]),
        lambda: room.store("x", namespace=name, embedding=VECTOR),
    ]


def test_a_pattern_brings_a_namespace_to_its_tenants_service(two: Two, room: Room) -> None:
    """What is stored under the tenant's names is wrapped by its key, everything else by the store's."""
    status = {n.namespace: n for n in room.kms_status()}
    assert status[ACME].providers == ("acme",)
    assert status[OTHER].providers == ("default",)
    assert two.acme.endpoint in status[ACME].master_keys[0]
    assert two.own.endpoint in status[OTHER].master_keys[0]
    assert two.acme.faults.requests == 2  # wrapped, and unwrapped again
    assert room.check(read_data=True).ok


@pytest.mark.parametrize("how", ["down", "denied", "disabled"])
def test_one_tenants_service_affects_that_tenant_alone(two: Two, room: Room, how: str) -> None:
    """Its namespaces stop within the lease; searches, stores, lists and new namespaces of others go on."""
    clock = clocked(room)
    match how:
        case "down":
            two.acme.faults.set("break")
        case "denied":
            two.acme.faults.set("deny")
        case _:
            two.acme.disable(two.acme_key)
    kind = {"down": KmsUnavailableError, "denied": KmsDeniedError, "disabled": KmsKeyDisabledError}[how]
    clock.now += 1_001
    for use in uses(room, ACME):
        with pytest.raises(kind):
            use()
    for use in uses(room, OTHER):
        use()
    room.store("x", namespace="company_7/new", embedding=VECTOR)
    with pytest.raises(kind):
        room.store("x", namespace="company_0/new", embedding=VECTOR)
    # What looks over all namespaces tells of the one and counts the others.
    stats = room.stats()
    assert (stats.unavailable, stats.namespaces) == (1, 3)
    assert stats.memories >= 21
    shown = {n.name: n.unavailable for n in room.namespaces()}
    assert shown == {ACME: kind.code, OTHER: None, "company_7/new": None}
    state = {n.namespace: (n.state, n.error) for n in room.kms_status()}
    assert state[ACME] == ("over", kind.code)
    assert state[OTHER][0] in ("fresh", "due")
    # Counters of the others are written, those of the tenant wait.
    room.search(namespaces=[OTHER], embedding=VECTOR)
    assert room.engine.access_stats.flush() > 0
    two.acme.faults.clear()
    two.acme.enable(two.acme_key)
    settle(room)
    clock.now += 10
    directory: Any = room.engine.kms_directory
    directory.provider("acme")._guard._breaker.succeeded()
    for use in uses(room, ACME):
        use()
    assert room.stats().unavailable == 0


def test_nobody_waits_for_the_service_of_a_tenant_whose_namespace_is_being_made(
    two: Two, tmp_path: Path
) -> None:
    """It has been asked and says nothing: others make namespaces and keys and see what is new meanwhile."""
    strongroom.init(tmp_path / "data", config=two.config(timeout_ms=60_000))
    asked, answer = threading.Event(), threading.Event()

    def silent() -> None:
        asked.set()
        answer.wait(60)

    with strongroom.open(tmp_path / "data", worker=False) as room:
        two.acme.faults.next = silent  # type: ignore[method-assign]
        making = threading.Thread(target=lambda: room.create_namespace("company_0/new"))
        making.start()
        try:
            assert asked.wait(30)
            room.store("x", namespace="company_7/new", embedding=VECTOR)
            info, _ = room.keys_create("k", "read-only", ["company_7/*"])
            assert info.key_id in {k.key_id for k in room.keys_list()}
            assert {n.name for n in room.namespaces()} == {"company_7/new"}
        finally:
            is_waiting = making.is_alive()
            answer.set()
            making.join()
        assert is_waiting
        assert {n.name for n in room.namespaces()} == {"company_0/new", "company_7/new"}


@pytest.mark.parametrize("how", ["another key", "no unwrapping"])
@pytest.mark.parametrize("act", ["new namespace", "rotation"])
def test_nothing_is_sealed_under_a_key_that_its_service_does_not_give_back(
    two: Two, room: Room, tmp_path: Path, how: str, act: str
) -> None:
    """A service that wraps what it was not given, or may wrap alone: refused at once, and nothing is lost."""
    real = two.acme._transit

    def bad(operation: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if how == "another key" and operation == "encrypt":
            body = body | {"plaintext": base64.b64encode(bytes(32)).decode()}
        if how == "no unwrapping" and operation == "decrypt":
            raise _Refused(403, "permission denied")
        return real(operation, name, body)

    two.acme._transit = bad  # type: ignore[method-assign]
    error = KmsDeniedError if how == "no unwrapping" else KeyManagementError
    with pytest.raises(error):
        if act == "rotation":
            room.rotate_namespace(namespaces=[ACME])
        else:
            room.store("x", namespace="company_0/new", embedding=VECTOR)
    two.acme._transit = real  # type: ignore[method-assign]
    room.close()
    with strongroom.open(tmp_path / "data", worker=False) as again:
        assert len(again.list(namespaces=[ACME]).memories) == 20
        assert {n.name for n in again.namespaces()} == {ACME, OTHER}
        assert again.check(read_data=True).ok


def test_one_tenants_service_does_not_hold_up_the_embedding_of_others(two: Two, room: Room) -> None:
    """What waits in the queue of the affected tenant stays queued and alive, and the rest is handed out."""
    entries = {e.name: e for e in room.engine.registry.entries()}
    for name in (ACME, OTHER):
        rows = room.list(namespaces=[name]).memories[:3]
        items = [QueueItem(entries[name].ns, m.memory_id.bytes, 1) for m in rows]
        room.engine.ledger.commit(WriteBatch(enqueue=items))
    queue = EngineQueue(room.engine, "default")
    refs = queue.orphans(100)
    assert {ref.ns for ref in refs} == {entries[ACME].ns, entries[OTHER].ns}
    clock = clocked(room)
    two.acme.faults.set("deny")
    clock.now += 1_001
    with pytest.raises(KmsDeniedError):
        room.list(namespaces=[ACME])
    assert {ref.ns for ref in queue.orphans(3)} == {entries[OTHER].ns}
    assert [text is None for text in queue.load(refs)] == [ref.ns == entries[ACME].ns for ref in refs]
    stats = room.engine.ledger.queue_stats(entries[ACME].ns)
    assert (stats.pending, stats.dead) == (3, 0)
    two.acme.faults.clear()
    settle(room)
    clock.now += 10
    assert {ref.ns for ref in queue.orphans(100)} == {entries[ACME].ns, entries[OTHER].ns}


def test_metrics_name_the_tenant_by_a_pseudonym(two: Two, room: Room, tmp_path: Path) -> None:
    """The affected tenant is in the metrics without its name, and kms status says whose pseudonym it is."""
    clock = clocked(room)
    two.acme.disable(two.acme_key)
    clock.now += 1_001
    with pytest.raises(KmsKeyDisabledError):
        room.list(namespaces=[ACME])
    room.list(namespaces=[OTHER])
    settle(room)
    room.engine.key_health.observe()
    text = room.engine.metrics.text().decode()
    pseudonym = {n.namespace: n.pseudonym for n in room.kms_status()}
    assert f'strongroom_tenant_keys_over{{tenant="{pseudonym[ACME]}"}} 1.0' in text
    assert pseudonym[OTHER] not in text
    assert "company_0" not in text and "acme" not in text
    assert 'strongroom_kms_provider_breaker_open{provider="default"} 0.0' in text


def test_the_store_opens_without_a_tenants_service(two: Two, room: Room, tmp_path: Path) -> None:
    """Down at the start, or its credentials gone: the store opens, and only the tenant's namespaces fail."""
    room.close()
    config = two.config(credentials="env:TEST_NOBODY_HAS_SET_THIS")
    (tmp_path / "data" / "strongroom.toml").write_text(to_toml(config))
    with strongroom.open(tmp_path / "data", worker=False) as again:
        with pytest.raises(ConfigurationError, match="TEST_NOBODY"):
            again.list(namespaces=[ACME])
        assert len(again.list(namespaces=[OTHER]).memories) == 20
    (tmp_path / "data" / "strongroom.toml").write_text(to_toml(two.config()))
    two.acme.stop()
    with strongroom.open(tmp_path / "data", worker=False) as again:
        with pytest.raises(KmsUnavailableError):
            again.list(namespaces=[ACME])
        assert len(again.list(namespaces=[OTHER]).memories) == 20
    two.acme = VaultService()


def run(*args: str, status: int = 0) -> Any:
    result = CliRunner().invoke(cli, ["--json", *args])
    assert result.exit_code == status, result.stdout + result.stderr
    return json.loads(result.stdout or result.stderr)


def test_a_namespace_moves_to_another_service_while_it_is_used(two: Two, room: Room, tmp_path: Path) -> None:
    """By one command, from another process; the old service is not asked again, no record is re-encrypted."""
    data = str(tmp_path / "data")
    ns = room.engine.registry.get(OTHER).ns  # type: ignore[union-attr]
    before = [bytes(r.sealed) for r in room.engine.ledger.iter_changes(ns)]
    clock = clocked(room)
    run("--data", data, "namespaces", "update", OTHER, "--kms", "acme")
    for use in uses(room, OTHER)[:2]:
        use()
    assert [bytes(r.sealed) for r in room.engine.ledger.iter_changes(ns)] == before
    assert {n["namespace"]: n["providers"] for n in run("--data", data, "kms", "status")["namespaces"]} == {
        ACME: ["acme"],
        OTHER: ["acme"],
    }
    requests = two.own.faults.requests
    clock.now += 1_001
    two.acme.faults.requests = 0
    assert len(room.list(namespaces=[OTHER]).memories) == 20
    assert two.acme.faults.requests >= 1
    assert two.own.faults.requests - requests <= 1  # the system namespace
    run("--data", data, "namespaces", "create", "company_1/b", "--kms", "acme")
    run("--data", data, "namespaces", "update", OTHER, "--kms", "default")
    assert {n["namespace"]: n["providers"] for n in run("--data", data, "kms", "status")["namespaces"]}[
        OTHER
    ] == ["default"]
    refused = run("--data", data, "namespaces", "update", OTHER, "--kms", "nobody", status=2)["error"]
    assert refused["code"] == "invalid_input" and "acme" not in str(refused)
    assert run("--data", data, "kms", "test", "--provider", "acme")["ok"]
    assert room.check(read_data=True).ok


def test_a_tenants_administrator_chooses_no_service(two: Two, room: Room) -> None:
    """Which service holds whose keys is for whoever administers the store, not for one tenant's admin."""
    key = room.keys_create("k", "admin", ["company_1/*"])[1]
    session = room.engine.authenticate(key)
    for kms in ("acme", "default", "nobody"):
        with pytest.raises(AccessDeniedError):
            session.update_namespace(OTHER, kms=kms)
        with pytest.raises(AccessDeniedError):
            session.create_namespace("company_1/c", kms=kms)
    assert [n.namespace for n in session.kms_status()] == [OTHER]
    session.create_namespace("company_1/c")


def test_a_new_service_that_refuses_leaves_the_old_one(two: Two, room: Room) -> None:
    """A move to a service that denies changes nothing."""
    two.acme.faults.set("deny")
    with pytest.raises(KmsDeniedError):
        room.update_namespace(OTHER, kms="acme")
    two.acme.faults.clear()
    assert {n.namespace: n.providers for n in room.kms_status()}[OTHER] == ("default",)
    for use in uses(room, OTHER):
        use()


def test_two_services_for_one_tenant(two: Two, tmp_path: Path) -> None:
    """With also the tenant's keys have two wraps; silence of the first is not felt, its refusal is obeyed."""
    config = two.config(also=("west",))
    west = VaultService()
    config.key_providers["west"] = west.config(west.new_key())
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data", worker=False) as room:
        fill(room, 1)
        (status,) = room.kms_status()
        assert status.providers == ("acme", "west")
        clock = clocked(room)
        two.acme.faults.set("break")
        clock.now += 1_001
        assert len(room.list(namespaces=[ACME]).memories) == 20
        directory: Any = room.engine.kms_directory
        directory.provider("acme")._guard._breaker.succeeded()
        two.acme.faults.set("deny")
        clock.now += 1_001
        with pytest.raises(KmsDeniedError):
            room.list(namespaces=[ACME])
    west.stop()


def base(**providers: KeysConfig) -> Config:
    return Config(key_providers=dict(providers))


LOCAL_KEY = KeysConfig(key_file="other.key")


@pytest.mark.parametrize(
    "config",
    [
        base(default=LOCAL_KEY),
        base(recovery=LOCAL_KEY),
        base(**{"Acme Inc": LOCAL_KEY}),
        base(a=dataclasses.replace(LOCAL_KEY, directory="/x")),
        base(a=dataclasses.replace(LOCAL_KEY, recovery_keys=("srrec1x",))),
        base(a=dataclasses.replace(LOCAL_KEY, provider="nobody")),
        base(a=dataclasses.replace(LOCAL_KEY, region="x")),
        base(a=dataclasses.replace(LOCAL_KEY, namespaces=("*",))),
        base(a=dataclasses.replace(LOCAL_KEY, namespaces=("a//b",))),
        base(a=dataclasses.replace(LOCAL_KEY, also=("b",))),
        base(a=dataclasses.replace(LOCAL_KEY, also=("a",))),
        base(
            a=dataclasses.replace(LOCAL_KEY, namespaces=("x/*",)),
            b=dataclasses.replace(LOCAL_KEY, namespaces=("x/*",)),
        ),
        Config(keys=KeysConfig(namespaces=("x",))),
        base(a=KeysConfig()),
        Config(keys=KeysConfig(also=("x",))),
        Config(keys=KeysConfig(recovery_keys=("srrec1AAAA",))),
        Config(keys=KeysConfig(passphrase="correct horse")),
        base(a=KeysConfig(provider="vault", key="k", endpoint="https://x", credentials="s.token")),
    ],
    ids=range(18),
)
def test_settings_that_contradict_themselves_are_refused(config: Config, tmp_path: Path) -> None:
    """Names, patterns claimed twice, unknown services, literal secrets: refused before anything is made."""
    with pytest.raises(ConfigurationError) as info:
        strongroom.init(tmp_path / "data", config=config)
    shown = f"{info.value} {info.value.hint}"
    assert "s.token" not in shown and "correct horse" not in shown
    assert not (tmp_path / "data" / "strongroom.toml").exists()


def test_the_closest_pattern_wins() -> None:
    """A whole name before a subtree, a longer subtree before a shorter one, [keys] for the rest."""
    config = base(
        a=dataclasses.replace(LOCAL_KEY, namespaces=("x/*", "y")),
        b=dataclasses.replace(LOCAL_KEY, key_file="b", namespaces=("x/deep/*", "x/one"), also=("a",)),
    )
    check_providers(config)
    wanted = {"x/one": "b", "x/deep/er": "b", "x/two": "a", "y": "a", "y/z": "default", "x": "default"}
    assert {n: names_for(config, n)[0] for n in wanted} == wanted
    assert names_for(config, "x/one") == ("b", "a")
    assert names_for(config, "x/one", "default") == ("default",)
    with pytest.raises(ConfigurationError, match="nobody"):
        names_for(config, "x", "nobody")


def test_providers_survive_the_file(two: Two) -> None:
    """What is written as TOML is read back the same; a misspelt setting is named with its section."""
    config = two.config()
    assert parse_config(to_toml(config)) == config
    with pytest.raises(ConfigurationError, match=r"keys\.providers\.a\.kee"):
        parse_config('[keys.providers.a]\nkee = "x"\n')
    with pytest.raises(ConfigurationError, match="not a table"):
        parse_config("[keys]\nproviders = 3\n")


def test_a_local_key_file_for_one_tenant(tmp_path: Path) -> None:
    """kms create makes the file of a named local provider; without it that tenant alone has no keys."""
    data = str(tmp_path / "data")
    config = dataclasses.replace(
        base(a=dataclasses.replace(LOCAL_KEY, namespaces=("a/*",))),
        embedding=EmbeddingConfig(provider="none", dimensions=4),
    )
    strongroom.init(tmp_path / "data", config=config)
    assert load_config(tmp_path / "data") == config
    with strongroom.open(data, worker=False) as room:
        room.store("x", namespace="b/x")
        with pytest.raises(StrongroomError, match="key file"):
            room.store("x", namespace="a/x")
    assert run("--data", data, "kms", "create", "a")["key_uri"].startswith("local:")
    assert run("--data", data, "kms", "create", "a", status=4)["error"]["code"] == "store_exists"
    with strongroom.open(data, worker=False) as room:
        room.store("x", namespace="a/x")
        assert {n.namespace: n.providers for n in room.kms_status()} == {"a/x": ("a",), "b/x": ("default",)}
