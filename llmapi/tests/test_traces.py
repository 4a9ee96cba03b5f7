"""Spans as a collector gets them from a real server; and a collector that stops to answer."""

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest
from django.core.checks import run_checks
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pytest_django import Settings

from bench.openai_double import Behaviour, OpenAIDouble
from conftest import Server, wait_until
from llmapi import checks
from llmapi.launch import ROOT

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROMPT, REPLY, WORDS = "a-word-of-the-prompt", "a-word-of-the-reply", "words-of-an-error"


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP. With `gate`, it answers only once that is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.bodies: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()

    def spans(self) -> list[Span]:
        exports = map(ExportTraceServiceRequest.FromString, list(self.bodies))
        return [
            span
            for export in exports
            for sent in export.resource_spans
            for scope in sent.scope_spans
            for span in scope.spans
        ]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.gate.wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield collector
        collector.gate.set()
        collector.shutdown()


def chat(server: Server, **fields: Any) -> tuple[int, str, bytes]:
    """Send a turn as a part of our trace. Returns status, request id and body."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    body = {"messages": [{"role": "user", "content": PROMPT}], **fields}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    read = answer.status, answer.headers["x-request-id"], answer.read()
    connection.close()
    return read


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, str(kind))


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: value_of(one.value) for one in span.attributes}


def test_spans(serve: Callable[..., Server], upstream: OpenAIDouble, collector: Collector) -> None:
    sending = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
    server = serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, WEB_CONCURRENCY="2", **sending)
    upstream.plan(Behaviour(text=REPLY, cached=1), Behaviour(pieces=[REPLY, "two"], pause=0.05))
    upstream.plan(Behaviour(status=400, error={"message": WORDS, "code": "bad", "param": None}))

    whole, streamed, failed = chat(server), chat(server, stream=True), chat(server)

    def of_turns() -> dict[tuple[str, int], Span]:
        found = {(str(attributes(span)["llmapi.request_id"]), span.kind): span for span in collector.spans()}
        return {key: span for key, span in found.items() if key[0] in {whole[1], streamed[1], failed[1]}}

    wait_until(lambda: len(of_turns()) == 6)
    spans = of_turns()
    for status, request_id, _ in (whole, streamed, failed):
        request, call = spans[request_id, Span.SPAN_KIND_SERVER], spans[request_id, Span.SPAN_KIND_CLIENT]
        assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
        assert (call.trace_id, call.parent_span_id) == (request.trace_id, request.span_id)
        assert (request.name, call.name) == ("POST /v1/chat/completions", "chat gpt-4o-mini")
        assert attributes(request)["http.response.status_code"] == status
        assert attributes(request)["http.route"] == "/v1/chat/completions"
        assert request.end_time_unix_nano >= call.end_time_unix_nano
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "server.address": "127.0.0.1",
        "server.port": upstream.server.server_port,
    }
    answered = {"gen_ai.response.model": "gpt-4o-mini", "gen_ai.response.finish_reasons": ["stop"]}
    sold = {
        "gen_ai.usage.input_tokens": upstream.sold[0]["prompt_tokens"],
        "gen_ai.usage.output_tokens": upstream.sold[0]["completion_tokens"],
        "gen_ai.usage.cache_read.input_tokens": 1,
        "gen_ai.usage.reasoning.output_tokens": 0,
    }
    call = spans[whole[1], Span.SPAN_KIND_CLIENT]
    ours = {"gen_ai.request.stream": False, "llmapi.request_id": whole[1]}
    assert attributes(call) == {**asked, **answered, **sold, **ours}

    call = spans[streamed[1], Span.SPAN_KIND_CLIENT]
    (first,) = call.events
    assert first.name == "first_chunk"
    assert call.start_time_unix_nano <= first.time_unix_nano <= call.end_time_unix_nano
    assert attributes(call)["gen_ai.request.stream"] is True
    assert attributes(call)["gen_ai.response.time_to_first_chunk"] > 0

    call = spans[failed[1], Span.SPAN_KIND_CLIENT]
    assert failed[0] >= 400
    assert (call.status.code, call.status.message) == (Status.STATUS_CODE_ERROR, "")
    assert attributes(call)["error.type"] == json.loads(failed[2])["error"]["code"]
    assert "gen_ai.usage.input_tokens" not in attributes(call)

    everything = b"".join(collector.bodies)
    assert [word for word in (PROMPT, REPLY, WORDS, server.token) if word.encode() in everything] == []
    assert [name for sent in upstream.requests for name in sent["headers"] if name.lower() == "traceparent"] == []

    # A collector that has stopped to answer holds no turn up.
    collector.gate.clear()
    exports = len(collector.bodies)
    chat(server)
    wait_until(lambda: len(collector.bodies) > exports)
    assert [chat(server, stream=is_stream)[0] for is_stream in (True, False) * 3] == [200] * 6


def test_nothing_is_imported_without_the_setting() -> None:
    code = "import sys; from llmapi.wsgi import application; print([m for m in sys.modules if 'opentelemetry' in m])"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_what_is_missing_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def problems() -> list[str | None]:
        return [problem.id for problem in run_checks() if problem.id == "llmapi.E007"]

    settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:4318"
    assert problems() == []

    def without(module: str) -> Any:
        if module.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(module)
        return find_spec(module)

    monkeypatch.setattr(checks, "find_spec", without)
    assert problems() == ["llmapi.E007"]

    settings.OTEL_EXPORTER_OTLP_ENDPOINT = ""
    assert problems() == []
