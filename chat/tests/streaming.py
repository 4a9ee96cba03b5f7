"""Reading streams in tests."""

import json
from typing import Any

from conftest import ApiClient

URL = "/v1/chat/completions"


def events(answer: Any) -> list[Any]:
    """The data of the events: chunks, then "[DONE]"."""
    assert answer.status_code == 200, answer.content
    assert answer["Content-Type"] == "text/event-stream; charset=utf-8"
    blocks = b"".join(answer.streaming_content).decode().replace(": ping\n", "").split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block[6:]) if block != "data: [DONE]" else "[DONE]" for block in blocks]


def text_of(chunks: list[Any]) -> str:
    deltas = (choice["delta"] for chunk in chunks if chunk != "[DONE]" for choice in chunk.get("choices", []))
    return "".join(delta.get("content") or "" for delta in deltas)


def stream(client: ApiClient, message: str = "a b c", key: str | None = None, **fields: Any) -> Any:
    return client.send(URL, {"messages": [{"role": "user", "content": message}], "stream": True, **fields}, key)
