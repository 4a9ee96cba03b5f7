"""Chunks of OpenAI's streams, made from a stored answer."""

import json
from typing import Any

from chat.turns.reply_log import ReplyLog


def chunk_of(answer: dict[str, Any], request_id: str, /, *choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"id": request_id, "object": "chat.completion.chunk", "created": answer["created"], "model": answer["model"]}
    return {**head, "choices": [*choices], **more}


def last_choice(finish_reason: str) -> dict[str, Any]:
    return {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}


def usage_chunk(answer: dict[str, Any]) -> dict[str, Any]:
    return chunk_of(answer, answer["id"], usage=answer["usage"])


def whole_reply(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a stored answer into chunks: the whole reply in one, and its end."""
    choice = answer["choices"][0]
    delta = {name: value for name, value in choice["message"].items() if value is not None}
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
    whole = {"index": 0, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}
    first = {name: answer[name] for name in ("request_id", "conversation_id", "history_truncated")}
    end = last_choice(choice["finish_reason"])
    return [chunk_of(answer, answer["id"], whole, **first), chunk_of(answer, answer["id"], end)]


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
    choice = answer["choices"][0]
    message = choice["message"]
    content = message.get("content") or ""
    has_more = any(value for name, value in message.items() if name not in {"role", "content", "annotations"})
    is_beginning = content == text if has_end else content.startswith(text)
    if len(answer["choices"]) > 1 or has_more or not is_beginning:
        return None
    delta = {"content": content[len(text) :]}
    rest = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}] if delta["content"] else []
    end = [] if has_end else [last_choice(choice["finish_reason"])]
    return [chunk_of(answer, answer["id"], choice) for choice in (*rest, *end)]


def replay(answer: dict[str, Any]) -> ReplyLog:
    """Turn a stored answer into a stream."""
    log = ReplyLog()
    for chunk in whole_reply(answer):
        log.append(chunk)
    log.close(usage=usage_chunk(answer))
    return log
