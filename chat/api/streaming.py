"""The bytes of a streamed reply."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import proto
from google.protobuf.json_format import ParseDict

from chat.exceptions import ApiError, error_body
from protos.chat_pb2 import ChatChunk


class EventStream:
    """OpenAI's server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    # A comment, without the blank line that ends an event: after one, some SDKs parse an empty event.
    heartbeat = b": ping\n"
    end = b"data: [DONE]\n\n"

    def chunk(self, chunk: bytes) -> bytes:
        return b"data: " + chunk + b"\n\n"

    def error(self, error: Mapping[str, Any]) -> bytes:
        return self.chunk(json.dumps({"error": error}, ensure_ascii=False).encode())


class ProtobufStream:
    """`ChatChunk` messages, each after its length as a varint."""

    heartbeat = b"\0"
    end = b""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def chunk(self, chunk: bytes) -> bytes:
        fields = json.loads(chunk)
        choice = fields["choices"][0] if fields["choices"] else {}
        # Of what describes the whole reply, the first chunk alone tells.
        names = ("request_id", "conversation_id", "model", "history_truncated") if "request_id" in fields else ()
        message = {name: fields[name] for name in (*names, "usage") if name in fields}
        delta = (choice.get("delta") or {}).get("content")
        return self.frame({**message, "delta": delta, "finish_reason": choice.get("finish_reason")})

    def error(self, error: Mapping[str, Any]) -> bytes:
        return self.frame({"error": error})

    def frame(self, message: dict[str, Any]) -> bytes:
        framed = io.BytesIO()
        proto.serialize_length_prefixed(ParseDict(message, ChatChunk(), ignore_unknown_fields=True), framed)
        return framed.getvalue()


def render_stream(
    log: Iterable[list[bytes]], usage: Callable[[], bytes | None], form: EventStream | ProtobufStream
) -> Iterator[bytes]:
    """Yield the bytes of a reply's log. `usage` is called at the end, and returns None where no usage is wanted."""
    try:
        for fresh in log:
            yield b"".join(map(form.chunk, fresh)) or form.heartbeat
        if last := usage():
            yield form.chunk(last)
    except ApiError as exc:
        yield form.error(error_body(exc.status_code, str(exc.detail), exc.default_code, exc.param)["error"])
    yield form.end
