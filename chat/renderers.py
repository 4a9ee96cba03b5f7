from collections.abc import Iterable, Mapping
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from protos.chat_pb2 import ChatResponse, Error, Usage


class ProtobufRenderer(BaseRenderer):
    """A completion as `ChatResponse`; whatever goes wrong as `Error`."""

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
    """The media type that RFC 9996 registers."""

    media_type = "application/protobuf"


def error_message(error: Mapping[str, Any]) -> Error:
    return Error(**{field: error[field] for field in ("message", "type", "code", "param") if error[field]})


def response_message(completion: Mapping[str, Any]) -> ChatResponse:
    usage = completion["usage"]
    return ChatResponse(
        request_id=completion["request_id"],
        conversation_id=completion["conversation_id"] or "",
        reply=completion["reply"] or "",
        model=completion["model"],
        finish_reason=completion["choices"][0]["finish_reason"] or "",
        created=completion["created"],
        history_truncated=completion["history_truncated"],
        usage=Usage(
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            total_tokens=usage["total_tokens"],
            latency_ms=usage["latency_ms"],
        ),
    )


class SameFormatNegotiation(DefaultContentNegotiation):
    """A client that takes anything is answered in the format it spoke."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if self.get_accept_list(request) == ["*/*"]:
            spoken = (request.content_type or "").partition(";")[0].strip().lower()
            for renderer in renderers:
                if renderer.media_type == spoken and format_suffix in (None, renderer.format):
                    return renderer, renderer.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return chosen
