from collections.abc import Iterable, Mapping
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from chat.api.protobuf import fill, messages_of
from chat.upstream.text import storable
from protos.chat_pb2 import Error


class ProtobufRenderer(BaseRenderer):
    """Renders an answer as the message of its route, and every error as `Error`."""

    media_type = "application/x-protobuf"
    format = "pb"
    charset = None
    render_style = "binary"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        if data is None:
            return b""
        if "error" in data:
            return error_message(data["error"], renderer_context["response"].headers).SerializeToString()
        return fill(messages_of(renderer_context["view"]).answer(), data).SerializeToString()


def error_message(error: Mapping[str, Any], headers: Mapping[str, str]) -> Error:
    """Make the message, with what the headers of the answer say about another try."""
    hints: dict[str, Any] = {}
    if "Retry-After" in headers:
        hints["retry_after_ms"] = 1000 * int(headers["Retry-After"])
    if "x-should-retry" in headers:
        hints["should_retry"] = headers["x-should-retry"] == "true"
    return fill(Error(), {**error, **hints})


class RegisteredProtobufRenderer(ProtobufRenderer):
    """Renders the media type that RFC 9996 registers."""

    media_type = "application/protobuf"


def accepted_type(media_range: str) -> str:
    """Return the media type of one entry of `Accept`, without its weight; `*/*` where it says nothing else."""
    kind, *parameters = (part.strip() for part in media_range.lower().split(";"))
    if kind in {"*", "text/*", "text/event-stream"}:
        return "*/*"
    return ";".join([kind, *(parameter for parameter in parameters if not parameter.startswith("q="))])


class TotalJSONRenderer(JSONRenderer):
    """Renders every answer, those among them that were stored long ago with a NaN or an Infinity of the upstream."""

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        try:
            rendered: bytes = super().render(data, accepted_media_type, renderer_context)
        except ValueError:
            rendered = super().render(storable(data), accepted_media_type, renderer_context)
        return rendered


RENDERERS = [TotalJSONRenderer, ProtobufRenderer, RegisteredProtobufRenderer]


class SameFormatNegotiation(DefaultContentNegotiation):
    """Answers a client that accepts anything in the format of its request.

    As in OpenAI's API, `stream` in the body asks for an event stream. A client that accepts only event streams gets
    errors as JSON, so for negotiation it accepts anything. How much it would like each type does not count.
    """

    def get_accept_list(self, request: Request) -> list[str]:
        return [accepted_type(media_range) for media_range in super().get_accept_list(request)] or ["*/*"]

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if set(self.get_accept_list(request)) == {"*/*"}:
            sent = (request.content_type or "").partition(";")[0].strip().lower()
            for renderer in renderers:
                if renderer.media_type == sent and format_suffix in (None, renderer.format):
                    return renderer, renderer.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return chosen
