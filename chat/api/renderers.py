from collections.abc import Iterable, Mapping
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from protos.chat_pb2 import ChatResponse, Error, Usage


class ProtobufRenderer(BaseRenderer):
    """Renders a completion as `ChatResponse`, and every error as `Error`."""

    media_type = "application/x-protobuf"
    format = "pb"
    charset = None
    render_style = "binary"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        if data is None:
            return b""
        if "error" in data:
            return error_message(data["error"]).SerializeToString()
        return response_message(data).SerializeToString()


class RegisteredProtobufRenderer(ProtobufRenderer):
    """Renders the media type that RFC 9996 registers."""

    media_type = "application/protobuf"


RENDERERS = [JSONRenderer, ProtobufRenderer, RegisteredProtobufRenderer]


def error_message(error: Mapping[str, Any]) -> Error:
    return Error(**{field: error[field] for field in ("message", "type", "code", "param") if error[field]})


def response_message(completion: Mapping[str, Any]) -> ChatResponse:
    return ChatResponse(
        request_id=completion["request_id"],
        conversation_id=completion["conversation_id"] or "",
        reply=completion["reply"] or "",
        model=completion["model"],
        finish_reason=completion["choices"][0]["finish_reason"] or "",
        created=completion["created"],
        history_truncated=completion["history_truncated"],
        usage=usage_message(completion["usage"]),
    )


def usage_message(usage: Mapping[str, Any]) -> Usage:
    return Usage(**{field.name: usage[field.name] for field in Usage.DESCRIPTOR.fields})


class SameFormatNegotiation(DefaultContentNegotiation):
    """Answers a client that accepts anything in the format of its request.

    As in OpenAI's API, `stream` in the body asks for an event stream. A client that accepts only event streams gets
    errors as JSON, so for negotiation it accepts anything.
    """

    def get_accept_list(self, request: Request) -> list[str]:
        accepted: list[str] = super().get_accept_list(request)
        return ["*/*" if media_type == "text/event-stream" else media_type for media_type in accepted]

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
