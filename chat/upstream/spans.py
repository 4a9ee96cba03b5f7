"""A span for each call to the model's provider, by OpenTelemetry's conventions for generative AI.

Names: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md. A span never holds what
was said: no message, and no words of an error either.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import urlsplit

from django.conf import settings

from chat import tracing
from chat.exceptions import ApiError
from chat.upstream.replies import Call, Reply

# What has always been asked, whoever answers by it.
PROVIDER = "openai"
# Our own event, beside the attribute `gen_ai.response.time_to_first_chunk`: it can be seen in the span's time line.
FIRST_CHUNK = "first_chunk"
PORTS = {"http": 80, "https": 443}
Attributes = dict[str, str | bool | int | float | list[str]]


def _nothing() -> None:
    pass


OFF: AbstractContextManager[Callable[[], None]] = nullcontext(_nothing)


def calling(reply: Reply, *, is_stream: bool) -> AbstractContextManager[Callable[[], None]]:
    """Trace a call while the block runs, if calls are traced. It yields what to call with each piece that comes."""
    return _traced(reply, is_stream=is_stream) if tracing.tracer() else OFF


@contextmanager
def _traced(reply: Reply, *, is_stream: bool) -> Iterator[Callable[[], None]]:
    from opentelemetry.trace import SpanKind, StatusCode

    tracer = tracing.tracer()
    assert tracer
    asked = asked_for(reply.call, is_stream=is_stream)
    span = tracer.start_span(f"chat {reply.call.body['model']}", kind=SpanKind.CLIENT, attributes=asked)
    began, is_first = time.monotonic(), is_stream

    def note_piece() -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            span.add_event(FIRST_CHUNK)
            span.set_attribute("gen_ai.response.time_to_first_chunk", time.monotonic() - began)

    try:
        yield note_piece
    except BaseException as exc:
        span.set_attribute("error.type", exc.default_code if isinstance(exc, ApiError) else type(exc).__name__)
        span.set_status(StatusCode.ERROR)
        raise
    finally:
        span.set_attributes(answered_with(reply))
        span.end()


def asked_for(call: Call, *, is_stream: bool) -> Attributes:
    address = urlsplit(settings.OPENAI_BASE_URL)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": call.body["model"],
        "gen_ai.request.stream": is_stream,
        "server.address": address.hostname or "",
        "server.port": address.port or PORTS[address.scheme],
        "llmapi.request_id": call.request_id,
    }


def answered_with(reply: Reply) -> Attributes:
    """Return what has come of the reply; tokens only where the provider itself has told them."""
    found: Attributes = {"gen_ai.response.model": reply.model} if reply.has_choice else {}
    if reply.finish_reason:
        found["gen_ai.response.finish_reasons"] = [reply.finish_reason]
    if reply.usage.is_known and not (tokens := reply.usage.tokens(prompt=0, completion=0)).is_estimated:
        found |= {
            "gen_ai.usage.input_tokens": tokens.prompt,
            "gen_ai.usage.output_tokens": tokens.completion,
            "gen_ai.usage.cache_read.input_tokens": tokens.cached,
            "gen_ai.usage.reasoning.output_tokens": tokens.reasoning,
        }
    return found
