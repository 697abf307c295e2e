"""Prometheus metrics of this surface."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["WireMetrics"]


class WireMetrics:
    """In the engine's registry. The engine itself counts and times the statements."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge(
            "strongroom_pgwire_connections", "Signed-in connections of the Postgres wire", registry=registry
        )
        self.held = Gauge(
            "strongroom_pgwire_held_bytes",
            "What all connections of the Postgres wire hold: statements, portals, answers not fetched",
            registry=registry,
        )
        self.refused = Counter(
            "strongroom_pgwire_ended",
            "Connections ended by the server, by SQLSTATE or reason",
            ["reason"],
            registry=registry,
        )
        self.cancels = Counter(
            "strongroom_pgwire_cancels", "Cancel requests of the Postgres wire", registry=registry
        )
