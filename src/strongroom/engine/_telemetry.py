"""OpenTelemetry spans around operations, by the memory conventions of GenAI. Content is never captured.

    span            for                                   gen_ai.operation.name
    create_memory   store                                 create_memory
    search_memory   search                                search_memory
    update_memory   update                                update_memory
    delete_memory   delete                                delete_memory
    strongroom NAME everything else                       -

Attributes: ``gen_ai.provider.name``, ``gen_ai.memory.store.id`` (the store's UUID),
``gen_ai.memory.record.count``, ``error.type`` (our error code), ``strongroom.surface``,
``strongroom.request_id``. No content, query, tag, memory id, principal, or name of a namespace.
The conventions are in development (read in November 2026).

Spans are made when ``[telemetry] endpoint`` names where to send them (needs the extra ``otel``), or when the
program that embeds Strongroom has set up a tracer provider of its own and ``[telemetry] enabled`` is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from strongroom.config import TelemetryConfig, resolve_reference
from strongroom.errors import ConfigurationError, StrongroomError

if TYPE_CHECKING:
    from strongroom.engine._call import Call

__all__ = ["SILENT", "Telemetry", "make_telemetry"]

_NAMES: Final = {
    "store": "create_memory",
    "search": "search_memory",
    "update": "update_memory",
    "delete": "delete_memory",
}
_NOTHING: Final = nullcontext()
_EXTRA: Final = "pip install strongroom[otel]"


class Telemetry(Protocol):
    """Makes a span around an operation."""

    def span(self, action: str, surface: str, request_id: str) -> Any:
        """A context manager; it gives a function that takes the ``Call`` when the operation is over."""

    def close(self) -> None:
        """Send what is waiting."""


class _Silent:
    def span(self, action: str, surface: str, request_id: str) -> Any:
        return _NOTHING

    def close(self) -> None:
        return


SILENT: Final[Telemetry] = _Silent()


class _Spans:
    def __init__(self, tracer: Any, store_id: str, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = tracer
        self._store_id = store_id
        self._provider = provider
        self._kind = SpanKind.INTERNAL
        self._failed = Status(StatusCode.ERROR)

    @contextmanager
    def span(self, action: str, surface: str, request_id: str) -> Iterator[Any]:
        name = _NAMES.get(action)
        attributes = {
            "gen_ai.provider.name": "strongroom",
            "gen_ai.memory.store.id": self._store_id,
            "strongroom.surface": surface,
            "strongroom.request_id": request_id,
        }
        if name is not None:
            attributes["gen_ai.operation.name"] = name
        with self._tracer.start_as_current_span(
            name or f"strongroom {action}",
            kind=self._kind,
            attributes=attributes,
            record_exception=False,  # its text could hold content
            set_status_on_exception=False,
        ) as span:

            def done(call: Call) -> None:
                span.set_attribute("gen_ai.memory.record.count", call.count)

            try:
                yield done
            except BaseException as e:
                span.set_attribute("error.type", e.code if isinstance(e, StrongroomError) else "_OTHER")
                span.set_status(self._failed)
                raise

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()


def make_telemetry(config: TelemetryConfig, store_id: str) -> Telemetry:
    """What the configuration asks for.

    Raises:
        ConfigurationError: OpenTelemetry is asked for and not installed, or the endpoint cannot be used.
    """
    if not config.enabled:
        return SILENT
    try:
        from opentelemetry import trace

        if not config.endpoint:
            return _Spans(trace.get_tracer("strongroom"), store_id, None)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError("[telemetry] needs OpenTelemetry", hint=_EXTRA) from None
    if not config.endpoint.startswith("https://") and not config.endpoint.startswith("http://127.0.0.1:"):
        raise ConfigurationError(
            "[telemetry] endpoint is an https address, or http://127.0.0.1:PORT of a collector beside it"
        )
    headers = {}
    if config.authorization:
        headers["authorization"] = resolve_reference(config.authorization)
    exporter = OTLPSpanExporter(
        endpoint=config.endpoint,
        headers=headers,
        timeout=config.timeout_ms / 1000,
        certificate_file=config.ca_file or None,
    )
    provider = TracerProvider(resource=Resource({"service.name": config.service_name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return _Spans(provider.get_tracer("strongroom"), store_id, provider)
