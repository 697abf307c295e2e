"""OpenTelemetry spans: the conventions are kept, and nothing that is protected gets into them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import strongroom
from strongroom.config import Config, EmbeddingConfig, TelemetryConfig, parse_config
from strongroom.engine import Engine
from strongroom.engine._telemetry import SILENT, make_telemetry
from strongroom.errors import ConfigurationError, MemoryNotFoundError

SECRETS = ("prefers annual billing", "company_a", "user:42", "vip-tag", "harbour", "confidential-kind")


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        collector = self
        self.bodies: list[bytes] = []
        self.headers: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    raw = __import__("gzip").decompress(raw)
                collector.bodies.append(raw)
                collector.headers.append(self.headers.get("authorization", ""))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    out = Collector()
    yield out
    out.close()


def test_operations_become_spans_of_the_memory_conventions_without_any_content(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name, operation, store, count, error; in the bytes on the wire none of the words stored or asked."""
    monkeypatch.setenv("OTLP_SECRET", "Bearer collector-token")
    telemetry = TelemetryConfig(enabled=True, endpoint=collector.url, authorization="env:OTLP_SECRET")
    config = Config(embedding=EmbeddingConfig(provider="none"), telemetry=telemetry)
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data", worker=False) as room:
        memory = room.store(
            "prefers annual billing", namespace="company_a/support", subject="user:42", tags=["vip-tag"],
            kind="confidential-kind", metadata={"place": "harbour"},
        )  # fmt: skip
        room.search("annual harbour", namespaces=["company_a/*"], mode="keyword")
        room.update(memory.memory_id, namespace="company_a/support", tags=[])
        room.delete(memory.memory_id, namespace="company_a/support")
        with pytest.raises(MemoryNotFoundError):
            room.get(memory.memory_id, namespace="company_a/support")
        store_id = str(room.engine.ledger.store_id)
    spans = []
    for body in collector.bodies:
        parsed = ExportTraceServiceRequest.FromString(body)
        spans += [s for r in parsed.resource_spans for c in r.scope_spans for s in c.spans]
        for secret in SECRETS:
            assert secret.encode() not in body
        assert memory.memory_id.bytes not in body and str(memory.memory_id).encode() not in body
    found = {s.name: {a.key: a.value for a in s.attributes} for s in spans}
    assert list(found) == [
        "create_memory",
        "search_memory",
        "update_memory",
        "delete_memory",
        "strongroom read",
    ]
    for name in ("create_memory", "search_memory", "update_memory", "delete_memory"):
        assert found[name]["gen_ai.operation.name"].string_value == name
        assert found[name]["gen_ai.memory.store.id"].string_value == store_id
        assert found[name]["gen_ai.provider.name"].string_value == "strongroom"
    assert found["create_memory"]["gen_ai.memory.record.count"].int_value == 1
    assert found["strongroom read"]["error.type"].string_value == "memory_not_found"
    assert set(collector.headers) == {"Bearer collector-token"}
    assert not any(s.events for s in spans), "exceptions are not recorded: their text could be content"


def test_nothing_is_sent_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables of OpenTelemetry alone switch nothing on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    strongroom.init(tmp_path / "data")
    engine = Engine.open(tmp_path / "data", worker=False)
    try:
        assert engine.telemetry is SILENT
    finally:
        engine.close()


def test_a_program_of_its_own_gets_the_spans_through_its_provider(tmp_path: Path) -> None:
    """Embedded, with a tracer provider of the program: our tracer asks the global one."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    telemetry = make_telemetry(
        TelemetryConfig(enabled=True, endpoint="https://127.0.0.1:1/v1/traces"), "store"
    )
    memory = InMemorySpanExporter()
    provider = telemetry._provider  # type: ignore[attr-defined]
    provider._active_span_processor.shutdown()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    with pytest.raises(ValueError, match="content"), telemetry.span("sql", "rest", "r1"):
        raise ValueError("content")
    (span,) = memory.get_finished_spans()
    assert span.name == "strongroom sql" and span.attributes["error.type"] == "_OTHER"
    assert "content" not in span.to_json()


@pytest.mark.parametrize("endpoint", ["http://collector.example.org/v1/traces", "ftp://x", "collector:4318"])
def test_an_endpoint_in_clear_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError):
        make_telemetry(TelemetryConfig(enabled=True, endpoint=endpoint), "store")


def test_the_settings_are_off_by_default() -> None:
    assert parse_config("").telemetry == TelemetryConfig() and not TelemetryConfig().enabled
