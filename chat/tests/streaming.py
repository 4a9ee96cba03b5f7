"""Reading streams in tests."""

import json
from typing import Any

from conftest import ApiClient

URL = "/v1/chat/completions"


def events(answer: Any) -> list[Any]:
    """The data of the events: chunks, then "[DONE]"."""
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/event-stream; charset=utf-8"
    blocks = b"".join(answer.streaming_content).decode().replace(": ping\n\n", "").split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block[6:]) if block != "data: [DONE]" else "[DONE]" for block in blocks]


def text_of(chunks: list[Any]) -> str:
    deltas = (choice["delta"] for chunk in chunks if chunk != "[DONE]" for choice in chunk.get("choices", []))
    return "".join(delta.get("content") or "" for delta in deltas)


def stream(client: ApiClient, message: str = "a b c", key: str | None = None, **fields: Any) -> Any:
    return client.send(URL, {"messages": [{"role": "user", "content": message}], "stream": True, **fields}, key)


def assemble(chunks: list[Any]) -> dict[str, Any]:
    """Put a reply together as OpenAI's SDKs do, and check on the way that its chunks are well-formed."""
    message: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    finish_reason = None
    assert chunks[-1] == "[DONE]"
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1
    for chunk in chunks[:-1]:
        assert chunk["object"] == "chat.completion.chunk"
        if not chunk["choices"]:
            assert chunk["usage"]["total_tokens"] >= 0
            continue
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        assert finish_reason is None, "nothing comes after the finish reason"
        finish_reason = choice["finish_reason"]
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                for piece in value:
                    add_call(calls, dict(piece))
            elif isinstance(value, str) and name != "role":
                value.encode()  # raises where it ends in half a character
                message[name] = (message.get(name) or "") + value
            else:
                message[name] = value
    assert finish_reason in {"stop", "length", "tool_calls", "content_filter"}
    assert message["role"] == "assistant"
    if calls:
        message["tool_calls"] = calls
        assert all(json.loads(call["function"]["arguments"]) is not None for call in calls)
    return {"message": message, "finish_reason": finish_reason}


def add_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece.pop("index")
    if index == len(calls):
        assert piece["id"]
        assert piece["function"]["name"]
        calls.append({**piece, "function": dict(piece["function"])})
    else:
        assert set(piece) == {"function"}
        calls[index]["function"]["arguments"] += piece["function"]["arguments"]
