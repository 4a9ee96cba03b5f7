"""Chunks of OpenAI's streams, made from a stored answer."""

import json
from collections.abc import Mapping
from typing import Any

from chat.turns.reply_log import ReplyLog, dump
from chat.upstream.replies import choice_of

# What all chunks of a reply have in common, beside its id.
SHARED = ("created", "model", "service_tier", "system_fingerprint")
# What the last chunk says of the whole reply.
AT_THE_END = ("cancelled", "incomplete_details", "citations", "search_results", "moderation")


def chunk_of(head: dict[str, Any], request_id: str, /, *choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Make a chunk of the reply that `head` is the completion of, or its `Reply.head()`."""
    shared: dict[str, Any] = {name: head[name] for name in SHARED if name in head}
    return {"id": request_id, "object": "chat.completion.chunk", **shared, "choices": [*choices], **more}


class ChunkEncoder:
    """Makes the JSON of one reply's chunks. What they have in common is written once."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._head: dict[str, Any] | None = None
        self._start = b""

    def encode(self, head: dict[str, Any], choice: dict[str, Any]) -> bytes:
        if head != self._head:  # Some providers say the service tier only in a later chunk.
            self._head = head
            self._start = dump(chunk_of(head, self._request_id)).removesuffix(b"]}")
        return b"%b%b]}" % (self._start, dump(choice))


def choice_in(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choice of an answer, with its message. Answers that were stored long ago may be of any shape."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    reason = choice.get("finish_reason")
    return {
        **choice,
        "message": message if isinstance(message, dict) else {},
        "finish_reason": reason if isinstance(reason, str) else "stop",
    }


def last_chunk(answer: dict[str, Any]) -> dict[str, Any]:
    """Make the chunk that ends a reply."""
    more = {name: answer[name] for name in AT_THE_END if answer.get(name)}
    return chunk_of(answer, answer["id"], choice_of({}, finish_reason=choice_in(answer)["finish_reason"]), **more)


def usage_chunk(answer: dict[str, Any]) -> dict[str, Any]:
    return chunk_of(answer, answer["id"], usage=answer.get("usage"))


def whole_reply(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a stored answer into chunks: the whole reply in one, and its end."""
    choice = choice_in(answer)
    delta = {name: value for name, value in choice["message"].items() if value is not None or name == "content"}
    if calls := delta.pop("tool_calls", None):
        calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    first = {name: answer[name] for name in ("request_id", "conversation_id", "history_truncated")}
    whole = chunk_of(answer, answer["id"], choice_of(delta, choice.get("logprobs")), **first)
    return [whole, last_chunk(answer)]


def rest_of_reply(answer: dict[str, Any], seen: list[bytes]) -> list[dict[str, Any]] | None:
    """Make those chunks of a stored answer that follow the ones `seen`. None where that cannot be told exactly.

    It can where the reply is plain text, and what was seen is its beginning.
    """
    if not seen:
        return whole_reply(answer)
    text, has_end = "", False
    for choice in (choice for chunk in seen for choice in json.loads(chunk)["choices"]):
        delta = choice.get("delta") or {}
        has_more = any(value for name, value in delta.items() if name not in {"role", "content"})
        if choice.get("index") or choice.get("logprobs") or has_more:
            return None
        text += delta.get("content") or ""
        has_end = has_end or bool(choice.get("finish_reason"))
    message = choice_in(answer)["message"]
    content = message.get("content") or ""
    has_more = any(value for name, value in message.items() if name not in {"role", "content", "annotations"})
    is_beginning = content == text if has_end else content.startswith(text)
    if len(answer["choices"]) > 1 or has_more or not is_beginning:
        return None
    rest = content[len(text) :]
    chunks = [chunk_of(answer, answer["id"], choice_of({"content": rest}))] if rest else []
    return chunks if has_end else [*chunks, last_chunk(answer)]


def replay(answer: dict[str, Any]) -> ReplyLog:
    """Turn a stored answer into a stream."""
    log = ReplyLog()
    for chunk in whole_reply(answer):
        log.append(chunk)
    log.close(usage=usage_chunk(answer))
    return log
