"""Prometheus metrics: durations, counts and gauges; never content, never a namespace in clear."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip


class Metrics:
    """One registry per engine, so that several stores in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._operations = Histogram(
            "strongroom_operation_seconds",
            "Duration of an engine operation, authorization and audit included",
            ["operation", "outcome"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._steps = Histogram(
            "strongroom_step_seconds",
            "Duration of a step inside an operation",
            ["step"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._operation_children: dict[tuple[str, str], Histogram] = {}
        self._step_children: dict[str, Histogram] = {}
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
        self.http_dropped = Counter(
            "strongroom_http_dropped",
            "HTTP connections closed for their client's sake, and bodies refused, by reason",
            ["reason"],
            registry=self.registry,
        )

    def _make_recall(self) -> None:
        hits = Counter("strongroom_recall_hits", "Returned hits by lane", ["lane"], registry=self.registry)
        self.hits_by_meaning, self.hits_by_keyword = hits.labels("vector"), hits.labels("keyword")
        self.loaded_namespaces = Gauge(
            "strongroom_loaded_namespaces", "Namespaces with their index in memory", registry=self.registry
        )
        self.loading = Gauge(
            "strongroom_loading_namespaces",
            "Namespaces that are being read from their rows just now",
            registry=self.registry,
        )
        self.loading_share = Gauge(
            "strongroom_loading_share",
            "How much of it was read of the one of them that is least far; 1: none is being read",
            registry=self.registry,
        )
        self.index_bytes = Gauge(
            "strongroom_index_bytes",
            "Memory of the loaded indexes, by their own count",
            registry=self.registry,
        )
        self.large_page_bytes = Gauge(
            "strongroom_large_page_bytes",
            "Memory of the process that the last round has left in pages of 2 MiB",
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
        child = self._operation_children.get((name, outcome))
        if child is None:
            child = self._operations.labels(name, outcome)
            self._operation_children[(name, outcome)] = child
        child.observe(seconds)

    def step(self, name: str, seconds: float) -> None:
        child = self._step_children.get(name)
        if child is None:
            child = self._step_children[name] = self._steps.labels(name)
        child.observe(seconds)

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)
