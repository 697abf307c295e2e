"""A whole store over each service: calls counted, outages, disabled keys, every n-th failure."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.kms import softhsm
from tests.kms.azure_service import AzureService
from tests.kms.faults import Fault, Faults, Service
from tests.kms.gcp_service import GcpService
from tests.kms.moto_service import MotoService, aws_credentials
from tests.kms.vault_service import VaultService

import strongroom
from strongroom.config import Config, EmbeddingConfig, KeysConfig
from strongroom.crypto import SecretKey
from strongroom.engine import Room
from strongroom.errors import (
    KeyManagementError,
    KmsDeniedError,
    KmsKeyDisabledError,
    KmsThrottledError,
    KmsUnavailableError,
    StoreExistsError,
    StrongroomError,
)
from strongroom.kms import DEFAULT, Entry, KmsDirectory, KmsProvider

__all__ = ["aws_credentials"]

VECTOR = [1.0, 0.0, 0.0, 0.0]
SERVICES = ["aws", "gcp", "azure", "vault"]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws_credentials: None
) -> Iterator[Service]:
    """The service that the test's parameter names."""
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    made: Service
    match request.param:
        case "aws":
            made = MotoService()
        case "gcp":
            made = GcpService()
        case "azure":
            azure = AzureService(tmp_path / "tls")
            monkeypatch.setenv("TEST_AZURE_CREDENTIALS", azure.credentials())
            made = azure
        case _:
            made = VaultService()
    yield made
    made.faults.clear()
    made.stop()


def config_of(keys: KeysConfig) -> Config:
    return Config(
        keys=dataclasses.replace(keys, cache_s=1_000, attempts_max=1),
        embedding=EmbeddingConfig(provider="none", dimensions=4),
    )


def fill(room: Room, namespaces: int = 3, each: int = 20) -> None:
    for n in range(namespaces):
        rows = [{"content": f"m{i}", "namespace": f"company_{n}/a", "embedding": VECTOR} for i in range(each)]
        room.store_many(rows)


def clocked(room: Room) -> Clock:
    """Leases of this store by a clock of the test, all begun now."""
    clock = Clock()
    namespaces = room.engine.vault.keyring._cache.namespaces
    namespaces._clock = clock
    for ns in namespaces._leases.known():
        namespaces._leases.begin(ns, clock.now)
    return clock


def settle(room: Room) -> None:
    """Wait for the questions that are under way: their outcome is noted at the time of the clock."""
    namespaces = room.engine.vault.keyring._cache.namespaces
    for _ in range(2_000):
        if not namespaces._in_work:
            return
        time.sleep(0.005)
    raise AssertionError("a question was not answered")


@pytest.mark.parametrize("service", SERVICES, indirect=True)
def test_a_store_over_a_service(service: Service, tmp_path: Path) -> None:
    """One unwrap of the integrity key and one per namespace that is used; none per record; no key file."""
    config = config_of(service.config(service.new_key()))
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data") as room:
        fill(room)
    assert not (tmp_path / "data.keys" / "master.key").exists()
    with strongroom.open(tmp_path / "data") as room:
        calls = room.engine.kms.health().calls  # type: ignore[attr-defined]
        assert calls == {("unwrap", "ok"): 2}
        for n in range(3):
            assert len(room.search(namespaces=[f"company_{n}/a"], embedding=VECTOR, k=20)) == 20
            assert len(room.list(namespaces=[f"company_{n}/a"]).memories) == 20
        calls = room.engine.kms.health().calls  # type: ignore[attr-defined]
        assert calls == {("unwrap", "ok"): 2 + 3}
        for _ in range(200):
            room.search(namespaces=["company_0/a"], embedding=VECTOR, k=1)
        fill(room, 3, 50)
        assert room.engine.kms.health().calls == calls  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["hang", "break", "deny", "throttle"])
@pytest.mark.parametrize("service", ["vault"], indirect=True)
def test_workers_of_a_load_whose_service_is_dead_end_and_say_so(
    service: Service, tmp_path: Path, fault: Fault
) -> None:
    """They cannot open the store: a typed error with a hint, nothing is stored; later the load goes on."""
    config = config_of(dataclasses.replace(service.config(service.new_key()), timeout_ms=300))
    strongroom.init(tmp_path / "data", config=config)
    items = [{"content": f"m{n}", "namespace": "company_0/a", "embedding": VECTOR} for n in range(5_000)]
    with strongroom.open(tmp_path / "data", worker=False) as room:
        room.store("before", namespace="company_0/a", embedding=VECTOR)
        service.faults.set(fault)
        with pytest.raises(KeyManagementError) as caught:
            room.load(items, workers=2)
        assert caught.value.code.startswith("kms_") and caught.value.hint
        assert room.stats().memories == 1
        service.faults.clear()
        assert room.load(items, workers=2) == len(items)
        assert room.stats().memories == 1 + len(items)
        assert room.check(read_data=True).findings == ()


@pytest.mark.parametrize("service", ["vault"], indirect=True)
def test_a_disabled_master_key_stops_reading_of_what_is_in_memory(service: Service, tmp_path: Path) -> None:
    """Within the lease searches, lists, reads and writes end with kms_key_disabled; enabled, they go on."""
    key = service.new_key()
    strongroom.init(tmp_path / "data", config=config_of(service.config(key)))
    with strongroom.open(tmp_path / "data") as room:
        fill(room, 1)
        memory = room.list(namespaces=["company_0/a"]).memories[0]
        clock = clocked(room)
        service.disable(key)
        clock.now += 999
        room.get(memory.memory_id, namespace="company_0/a")
        clock.now += 1
        uses = (
            lambda: room.get(memory.memory_id, namespace="company_0/a"),
            lambda: room.search(namespaces=["company_0/a"], embedding=VECTOR),
            lambda: room.list(namespaces=["company_0/a"]),
            lambda: room.store("x", namespace="company_0/a"),
        )
        for use in uses:
            with pytest.raises(KmsKeyDisabledError):
                use()
        service.enable(key)
        settle(room)
        clock.now += 2
        for use in uses:
            use()


class Picky:
    """Refuses the keys of one namespace, as a policy on the encryption context does."""

    def __init__(self, inner: KmsProvider) -> None:
        self.wrap, self.describe, self.refused = inner.wrap, inner.describe, ""
        self._inner = inner

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        if context["namespace"] == self.refused:
            raise KmsDeniedError
        return self._inner.unwrap(wrapped, context)


@pytest.mark.parametrize("service", ["vault"], indirect=True)
def test_one_tenant_that_takes_its_permission_back_stops_alone(service: Service, tmp_path: Path) -> None:
    """Its namespace is not searched any more, its index leaves the memory, and the others go on."""
    strongroom.init(tmp_path / "data", config=config_of(service.config(service.new_key())))
    with strongroom.open(tmp_path / "data") as room:
        fill(room, 2)
        for n in range(2):
            room.search(namespaces=[f"company_{n}/a"], embedding=VECTOR)
        clock = clocked(room)
        entry = room.engine.registry.get("company_0/a")
        assert entry is not None
        namespaces = room.engine.vault.keyring._cache.namespaces
        picky = Picky(room.engine.kms)
        namespaces._kms = KmsDirectory({DEFAULT: Entry("vault", lambda: picky)})  # type: ignore[arg-type,return-value]
        picky.refused = str(entry.ns)
        assert room.engine.indexes._slots[entry.ns].index is not None
        clock.now += 1_001
        for use in (
            lambda: room.search(namespaces=["company_0/a"], embedding=VECTOR),
            lambda: room.list(namespaces=["company_0/a"]),
            lambda: room.search(namespaces=["company_0/a"], query="m1", mode="keyword"),
        ):
            with pytest.raises(KmsDeniedError):
                use()
        assert room.engine.indexes._slots[entry.ns].index is None
        assert len(room.search(namespaces=["company_1/a"], embedding=VECTOR, k=100)) == 20
        picky.refused = ""
        settle(room)
        clock.now += 2
        assert len(room.search(namespaces=["company_0/a"], embedding=VECTOR, k=100)) == 20


@pytest.mark.parametrize("service", SERVICES, indirect=True)
def test_an_outage(service: Service, tmp_path: Path) -> None:
    """Shorter than the lease it is not felt; longer it is kms_unavailable; new namespaces fail at once."""
    strongroom.init(tmp_path / "data", config=config_of(service.config(service.new_key())))
    with strongroom.open(tmp_path / "data") as room:
        fill(room, 1)
        clock = clocked(room)
        service.faults.set("break")
        for _ in range(9):
            clock.now += 100
            room.search(namespaces=["company_0/a"], embedding=VECTOR)
            room.store("x", namespace="company_0/a", embedding=VECTOR)
        with pytest.raises(KmsUnavailableError):
            room.store("x", namespace="company_9/a")
        clock.now += 101
        with pytest.raises(KmsUnavailableError):
            room.search(namespaces=["company_0/a"], embedding=VECTOR)
        service.faults.clear()
        settle(room)
        clock.now += 10
        room.engine.kms._guard._breaker.succeeded()  # type: ignore[attr-defined]
        assert len(room.search(namespaces=["company_0/a"], embedding=VECTOR, k=100)) == 29
        room.store("x", namespace="company_9/a")


def life(directory: Path, config: Config) -> None:
    """What the n-th-failure loop repeats: init when it has to be, open, store, new namespaces, search."""
    if not (directory / "strongroom.toml").exists():
        strongroom.init(directory, config=config)
    with strongroom.open(directory) as room:
        for n in range(3):
            namespace = f"company_{n}/a"
            if (
                not any(i.name == namespace for i in room.namespaces())
                or not room.list(namespaces=[namespace]).memories
            ):
                room.store("content", namespace=namespace, embedding=VECTOR)
            assert len(room.search(namespaces=[namespace], embedding=VECTOR)) == 1


def run_to_the_end(directory: Path, config: Config, faults: Faults, fault: Fault) -> int:
    """Fail request n of each attempt, n = 1, 2, 3 ...; after each failure everything can be done again."""
    n = 0
    while True:
        n += 1
        assert n < 100
        faults.at(n, fault)
        before = faults.requests
        try:
            life(directory / f"at-{n}", config)
        except StrongroomError as e:
            assert isinstance(e, KmsUnavailableError), repr(e)
            assert not isinstance(e, StoreExistsError)
        else:
            assert faults.requests - before < n
            return n
        finally:
            faults.clear()
        life(directory / f"at-{n}", config)  # nothing is in the way, and nothing was lost
        with strongroom.open(directory / f"at-{n}") as room:
            report = room.check(read_data=True)
            assert report.ok, report.findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "fault"), [("vault", "break"), ("aws", "throttle")], indirect=["service"]
)
def test_every_nth_request_fails(service: Service, tmp_path: Path, fault: Fault) -> None:
    """Whichever request fails, the error is typed, and the same steps then go through in the same place."""
    config = config_of(service.config(service.new_key()))
    n = run_to_the_end(tmp_path, config, service.faults, fault)
    assert n > 8
    assert issubclass(KmsThrottledError, KmsUnavailableError)


@pytest.mark.skipif(softhsm.module() is None, reason="SoftHSM2 is not installed")
@pytest.mark.xdist_group("softhsm")
def test_a_store_over_an_hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over PKCS#11, with the master key in SoftHSM2."""
    monkeypatch.setenv("TEST_PIN", softhsm.PIN)
    hsm = softhsm.SoftHsm()
    config = config_of(hsm.config(hsm.new_key()))
    strongroom.init(tmp_path / "data", config=config)
    for _ in range(2):
        with strongroom.open(tmp_path / "data") as room:
            fill(room)
            found = room.search(namespaces=["company_0/a"], embedding=VECTOR, k=100)
    assert len(found) == 40


@pytest.mark.parametrize("service", ["vault"], indirect=True)
def test_metrics_say_what_happens(service: Service, tmp_path: Path) -> None:
    """Requests by outcome, states of leases and the tenants that are affected are in the metrics."""
    key = service.new_key()
    config = config_of(service.config(key))
    labelled = dataclasses.replace(config.server, metrics_namespace_labels=True)
    strongroom.init(tmp_path / "data", config=dataclasses.replace(config, server=labelled))
    with strongroom.open(tmp_path / "data") as room:
        fill(room, 2, 1)
        clock = clocked(room)
        room.engine.key_health.observe()
        text = room.engine.metrics.text().decode()
        assert 'strongroom_kms_requests_total{operation="wrap",outcome="ok"} 2.0' in text
        assert 'strongroom_namespace_keys{state="fresh"} 3.0' in text
        service.disable(key)
        clock.now += 1_001
        with pytest.raises(KmsKeyDisabledError):
            room.search(namespaces=["company_1/a"], embedding=VECTOR)
        room.engine.key_health.observe()
        text = room.engine.metrics.text().decode()
        assert 'outcome="kms_key_disabled"' in text
        assert 'strongroom_namespace_keys{state="over"} 3.0' in text
        assert "strongroom_tenant_keys_over{tenant=" in text
        clock.now += 2
        service.enable(key)


def test_passphrase_is_only_for_the_local_keystore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of one provider are refused by the others, before anything is made."""
    monkeypatch.setenv("TEST_VAULT_TOKEN", "x")
    vault: dict[str, Any] = {"provider": "vault", "key": "k", "endpoint": "https://127.0.0.1:1"}
    vault["credentials"] = "env:TEST_VAULT_TOKEN"
    for keys in (
        KeysConfig(**vault, passphrase="env:X"),
        KeysConfig(**vault, region="eu-central-1"),
        KeysConfig(**vault, module="/x"),
        KeysConfig(key="k"),
        KeysConfig(endpoint="https://127.0.0.1"),
        KeysConfig(provider="nobody"),
        KeysConfig(provider="aws"),
        KeysConfig(provider="pkcs11", key="k", module="/x", token="t"),
        KeysConfig(**vault, cache_s=1),
        KeysConfig(**vault, timeout_ms=1),
        KeysConfig(**vault, attempts_max=99),
        KeysConfig(**vault, unwrap_keys=("k",)),
        KeysConfig(**vault, unwrap_keys=("a", "a")),
        KeysConfig(**vault, unwrap_keys=("",)),
        KeysConfig(**{**vault, "key": "k\n"}),
    ):
        with pytest.raises(strongroom.errors.ConfigurationError):
            strongroom.init(tmp_path / "data", config=Config(keys=keys))
    assert not (tmp_path / "data" / "strongroom.toml").exists()
