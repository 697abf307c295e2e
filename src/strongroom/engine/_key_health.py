"""What the key management service and the leases of namespace keys have to say, as metrics and log lines."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge

from strongroom.crypto import key_memory
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import KeyManagementError
from strongroom.keyring import LeaseState
from strongroom.kms import DEFAULT, AgentKms, BreakerState, EnvelopeKms
from strongroom.pages import Protection, process_memory

if TYPE_CHECKING:
    from strongroom.engine._core import Engine


_PSEUDONYM_BYTES: Final = 6


class KeyHealth:
    """Reads the figures now and then; asks no service. For the housekeeper: one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        registry = engine.metrics.registry
        self._requests = Counter(
            "strongroom_kms_requests",
            "Requests to the key management service",
            ["operation", "outcome"],
            registry=registry,
        )
        self._seconds = Counter(
            "strongroom_kms_request_seconds", "Their durations, added up", ["operation"], registry=registry
        )
        self._breaker = Gauge(
            "strongroom_kms_breaker_open", "1: the service is not asked for the moment", registry=registry
        )
        self._keys = Gauge(
            "strongroom_namespace_keys",
            "Namespace keys of this process by the state of their lease",
            ["state"],
            registry=registry,
        )
        self._affected = Gauge(
            "strongroom_tenant_keys_over",
            "Namespaces of a tenant whose key is not usable now. The tenant is a pseudonym (strongroom kms "
            "status shows whose), or its name with server.metrics_namespace_labels",
            ["tenant"],
            registry=registry,
        )
        self._memory = Gauge(
            "strongroom_key_memory_bytes",
            "Memory for keys in this process: secret, locked, unlocked (may be swapped), open (unprotected)",
            ["protection"],
            registry=registry,
        )
        self._dumpable = Gauge(
            "strongroom_process_dumpable", "1: this process can be dumped to a core file", registry=registry
        )
        self._unscrubbed = Gauge(
            "strongroom_memory_not_scrubbed",
            "1: a namespace is sealed in memory, and this process does not overwrite what it frees",
            registry=registry,
        )
        self._memory_told = False
        self._providers = Gauge(
            "strongroom_kms_provider_breaker_open",
            "1: this key management service of the configuration is not asked for the moment",
            ["provider"],
            registry=registry,
        )
        self._pseudonyms: dict[str, str] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._seen_s: dict[str, float] = {}
        self._told: dict[int, str] = {}

    def observe(self) -> None:
        """Raises: StrongroomError."""
        self._observe_service()
        self._engine.vault.keyring.expire()
        self._observe_keys()
        self._observe_memory()

    def _observe_memory(self) -> None:
        memory = key_memory()
        for protection, held in (
            (Protection.SECRET, memory.secret_bytes),
            (Protection.LOCKED, memory.locked_bytes),
            (Protection.UNLOCKED, memory.unlocked_bytes),
            (Protection.OPEN, memory.open_bytes),
        ):
            self._memory.labels(protection.value).set(held)
        self._unscrubbed.set(float(self._engine.wants_scrubbing()))
        self._dumpable.set(float(process_memory().dumpable))
        if not self._memory_told and (memory.unlocked_bytes or memory.open_bytes):
            self._memory_told = True
            self._engine.log.warning("key_memory_not_locked", protection=memory.protection, why=memory.why)

    def pseudonym(self, name: str) -> str:
        """A stable name for a tenant or service in metrics, from which nobody learns the real one.

        Raises:
            KeyManagementError: the keys of the system namespace cannot be had, and it was never asked for.
        """
        if self._engine.config.server.metrics_namespace_labels:
            return name
        found = self._pseudonyms.get(name)
        if found is None:
            key = self._engine.vault.purpose_key(SYSTEM_NS, "metrics-label")
            found = self._pseudonyms[name] = key.mac(name.encode())[:_PSEUDONYM_BYTES].hex()
        return found

    def _observe_service(self) -> None:
        calls: dict[tuple[str, str], int] = {}
        seconds: dict[str, float] = {}
        opened = False
        for name, kms in self._engine.kms_directory.made().items():
            if not isinstance(kms, EnvelopeKms | AgentKms):
                continue
            health = kms.health()
            for place, count in health.calls.items():
                calls[place] = calls.get(place, 0) + count
            for operation, spent in health.seconds.items():
                seconds[operation] = seconds.get(operation, 0.0) + spent
            is_open = health.breaker is BreakerState.OPEN
            opened |= is_open
            label = name if name == DEFAULT else self.pseudonym(name)
            self._providers.labels(label).set(float(is_open))
        for place, count in calls.items():
            self._requests.labels(*place).inc(count - self._seen.get(place, 0))
        for operation, spent in seconds.items():
            self._seconds.labels(operation).inc(spent - self._seen_s.get(operation, 0.0))
        self._seen, self._seen_s = calls, seconds
        self._breaker.set(float(opened))

    def _observe_keys(self) -> None:
        found = self._engine.vault.keyring.health()
        for state in LeaseState:
            self._keys.labels(state.value).set(sum(h.state is state for h in found))
        self._affected.clear()
        for h in found:
            if h.state is LeaseState.OVER and h.error is not None and h.tenant:
                with suppress(KeyManagementError):
                    self._affected.labels(self.pseudonym(h.tenant)).inc()
        told = {h.ns: h.error for h in found if h.error is not None}
        for ns, code in told.items():
            if self._told.get(ns) != code:
                self._engine.log.warning("namespace_key_not_had", ns=ns, code=code)
        for ns in self._told.keys() - told.keys():
            self._engine.log.info("namespace_key_had_again", ns=ns)
        self._told = told
