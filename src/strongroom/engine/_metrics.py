"""Prometheus metrics: durations, counts and gauges; never content, never a namespace in clear."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily

_BUCKETS = (
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip


class Durations:
    """A histogram by labels, with what a value costs kept low: a search notes six."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self._name, self._about, self._labels = name, about, tuple(labels)
        self._lock = Lock()
        self._counts: dict[tuple[str, ...], list[int]] = {}  # in each bucket, and above the last one
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, *values: tuple[tuple[str, ...], float]) -> None:
        """Note seconds, each with its labels."""
        with self._lock:
            for labels, seconds in values:
                counts = self._counts.get(labels)
                if counts is None:
                    counts = self._counts[labels] = [0] * (len(_BUCKETS) + 1)
                    self._sums[labels] = 0.0
                counts[bisect_left(_BUCKETS, seconds)] += 1
                self._sums[labels] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        with self._lock:
            known = [(labels, list(counts), self._sums[labels]) for labels, counts in self._counts.items()]
        for labels, counts, total in known:
            bounds = [*map(str, _BUCKETS), "+Inf"]
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        yield family


class Metrics:
    """One registry per engine, so that several stores in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._operations = Durations(
            "strongroom_operation_seconds",
            "Duration of an engine operation, authorization and audit included",
            ["operation", "outcome"],
        )
        self._steps = Durations("strongroom_step_seconds", "Duration of a step inside an operation", ["step"])
        self.registry.register(self._operations)
        self.registry.register(self._steps)
        self.sealed_bytes = Counter(
            "strongroom_sealed_bytes", "Plaintext bytes sealed", registry=self.registry
        )
        self.opened_bytes = Counter(
            "strongroom_opened_bytes", "Plaintext bytes opened", registry=self.registry
        )
        self.denied = Counter("strongroom_denied", "Operations refused", ["code"], registry=self.registry)
        self.unreadable = Counter(
            "strongroom_unreadable_rows",
            "Rows that did not open while a namespace was loaded",
            ["field"],
            registry=self.registry,
        )
        self.embedded = Counter("strongroom_embedded", "Memories embedded", registry=self.registry)
        self.embedding_failures = Counter(
            "strongroom_embedding_failures", "Failed embeddings", ["code"], registry=self.registry
        )
        self.queue = Gauge(
            "strongroom_embedding_queue", "Memories waiting", ["state"], registry=self.registry
        )
        self.snapshots = Counter(
            "strongroom_snapshots", "Snapshots of namespaces, by what became of them", ["event"],
            registry=self.registry,
        )  # fmt: skip
        self.tampered = Counter(
            "strongroom_tampered_namespaces",
            "Namespaces whose rows were found not to match their head",
            registry=self.registry,
        )
        self.audit_size = Gauge(
            "strongroom_audit_integrated", "Audit entries in the Merkle tree", registry=self.registry
        )
        self.audit_trouble = Gauge(
            "strongroom_audit_not_integrated",
            "1 while audit entries cannot be taken into the Merkle tree",
            registry=self.registry,
        )
        self.audit_heads = Counter(
            "strongroom_audit_heads",
            "Heads of the audit log kept outside the store",
            ["place", "outcome"],
            registry=self.registry,
        )
        self._doors()
        self._make_recall()

    def _doors(self) -> None:
        self.tls_connections = Counter(
            "strongroom_tls_connections",
            "TLS connections, by surface and group of the key exchange",
            ["surface", "group"],
            registry=self.registry,
        )
        self.tls_refused = Counter(
            "strongroom_tls_refused", "TLS handshakes that failed", ["surface"], registry=self.registry
        )

    def _make_recall(self) -> None:
        hits = Counter("strongroom_recall_hits", "Returned hits by lane", ["lane"], registry=self.registry)
        self.hits_by_meaning, self.hits_by_keyword = hits.labels("vector"), hits.labels("keyword")
        self.loaded_namespaces = Gauge(
            "strongroom_loaded_namespaces", "Namespaces with their index in memory", registry=self.registry
        )
        self.index_bytes = Gauge(
            "strongroom_index_bytes",
            "Memory of the loaded indexes, by their own count",
            registry=self.registry,
        )
        self.evicted = Counter(
            "strongroom_evicted_namespaces",
            "Indexes let go because all together took more memory than they may",
            registry=self.registry,
        )
        self.vector_lanes = Gauge(
            "strongroom_vector_lanes",
            "Loaded namespaces by what a search for ten reads: all vectors, short codes, or vectors of lists",
            ["reads"],
            registry=self.registry,
        )
        self.recall_sampled = Gauge(
            "strongroom_recall_sampled",
            "Share of the true ten nearest that searches find, sampled; the least of the loaded namespaces",
            registry=self.registry,
        )

    def operation(self, name: str, outcome: str, seconds: float) -> None:
        self._operations.observe(((name, outcome), seconds))

    def step(self, name: str, seconds: float) -> None:
        self._steps.observe(((name,), seconds))

    def steps(self, *each: tuple[tuple[str], float]) -> None:
        """Several at once, each by its name."""
        self._steps.observe(*each)

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)
