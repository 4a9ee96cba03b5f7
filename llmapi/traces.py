"""A span for each request, by OpenTelemetry's conventions for HTTP servers. Loaded only where traces are sent."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chat import tracing
from llmapi.observe import METHODS, route_of

MAX_PATH = 200
w3c = TraceContextTextMapPropagator()


class TraceMiddleware:
    """Trace a request until its answer has been sent: as a part of the trace that its `traceparent` names, if any."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not (tracer := tracing.tracer()):
            return self.get_response(request)
        method = request.method if request.method in METHODS else "_OTHER"
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": request.path[:MAX_PATH],
            "url.scheme": request.scheme,
            "llmapi.request_id": request.request_id,  # type: ignore[attr-defined]
        }
        # A context of its own, so that nothing of another request can be its parent.
        parent = w3c.extract(request.headers, context.Context())
        span = tracer.start_span(method, parent, trace.SpanKind.SERVER, attributes)
        token = context.attach(trace.set_span_in_context(span, parent))
        try:
            response = self.get_response(request)
        except BaseException:
            span.end()
            raise
        finally:
            context.detach(token)
        if (route := route_of(request)) != "none":
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= 500:
            span.set_attribute("error.type", str(response.status_code))
            span.set_status(trace.StatusCode.ERROR)
        # Django calls these when the server closes the answer, whether or not it was sent whole.
        response._resource_closers.append(span.end)  # type: ignore[attr-defined]
        return response
