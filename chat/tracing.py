"""Traces for an OpenTelemetry collector, of requests and of calls to the model's provider; off by default.

Nothing of OpenTelemetry is imported unless OTEL_EXPORTER_OTLP_ENDPOINT is set. Spans are sent by a thread, in batches.
Where the collector is slow or away, they wait in a queue of bounded length, and are dropped once it is full. Further
settings of its SDK have the names of its specification (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_…).
"""

import os
import threading
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

# What `start` imports.
MODULES = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace.export")
# How long the end of a process waits for its last spans to be sent.
STOP_SECONDS = 1

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def tracer() -> "Tracer | None":
    """Return what makes spans; None where there are to be none."""
    return _tracer


def start(version: str) -> None:
    """Begin to send spans, in a process that has just been forked: threads belong to one process."""
    global _provider, _tracer
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or "llmapi"
    resource = Resource.create({"service.name": name, "service.version": version, "process.pid": os.getpid()})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces")
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("llmapi", version)


def stop() -> None:
    """Send the last spans, and wait for that STOP_SECONDS at most: the SDK itself would wait for half a minute."""
    if _provider:
        sender = threading.Thread(target=_provider.shutdown, name="last-spans", daemon=True)
        sender.start()
        sender.join(STOP_SECONDS)
