"""The bytes of a streamed reply."""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import proto

from chat.api.protobuf import fill
from chat.exceptions import ApiError, error_body
from chat.turns.reply_log import dump
from chat.upstream.replies import choice_of
from protos.chat_pb2 import ChatChunk, Error


class EventStream:
    """OpenAI's server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    end = b"data: [DONE]\n\n"

    def __init__(self) -> None:
        self._last: bytes | None = None

    def chunk(self, chunk: bytes) -> bytes:
        self._last = chunk
        return b"data: " + chunk + b"\n\n"

    def heartbeat(self) -> bytes:
        """Make a sign of life that loses no word with any reader: a chunk that adds nothing to the reply.

        A comment would do for a full parser of event streams. A reader that splits at blank lines and takes what
        begins with `data:` would drop the chunk after a comment of one line, and some SDKs choke on a comment with a
        blank line. Before the first chunk, whose id is not known yet, that is still the best there is.
        """
        if self._last is None:
            return b": ping\n\n"
        chunk = json.loads(self._last)
        head = {name: chunk[name] for name in ("id", "object", "created", "model")}
        return b"data: " + dump({**head, "choices": [choice_of({"content": ""})]}) + b"\n\n"

    def error(self, error: Mapping[str, Any], hints: Mapping[str, Any]) -> bytes:
        """Tell the error. OpenAI's has no place for the hints."""
        return self.chunk(json.dumps({"error": error}, ensure_ascii=False).encode())


class ProtobufStream:
    """`ChatChunk` messages, each after its length as a varint."""

    end = b""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def heartbeat(self) -> bytes:
        """Make an empty message."""
        return b"\0"

    def chunk(self, chunk: bytes) -> bytes:
        return self.frame(fill(ChatChunk(), json.loads(chunk)))

    def error(self, error: Mapping[str, Any], hints: Mapping[str, Any]) -> bytes:
        return self.frame(ChatChunk(error=fill(Error(), {**error, **hints})))

    def frame(self, message: ChatChunk) -> bytes:
        framed = io.BytesIO()
        proto.serialize_length_prefixed(message, framed)
        return framed.getvalue()


def render_stream(
    log: Iterable[list[bytes]], usage: Callable[[], bytes | None], form: EventStream | ProtobufStream
) -> Iterator[bytes]:
    """Yield the bytes of a reply's log. `usage` is called at the end, and returns None where no usage is wanted."""
    try:
        for fresh in log:
            yield b"".join(map(form.chunk, fresh)) or form.heartbeat()
        if last := usage():
            yield form.chunk(last)
    except ApiError as exc:
        error = error_body(exc.status_code, str(exc.detail), exc.default_code, exc.param)["error"]
        wait_ms = None if exc.retry_after is None else 1000 * math.ceil(exc.retry_after)
        yield form.error(error, {"retry_after_ms": wait_ms, "should_retry": exc.should_retry})
    yield form.end
