"""Shapes of what providers send, as tests write them down."""

import json
from typing import Any

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Message
from chat.tests.streaming import assemble, events
from conftest import ApiClient

CHUNK = {"id": "u1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}


DONE = b"data: [DONE]\n\n"


def E(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def C(delta: Any, fin: Any = None, **top: Any) -> bytes:
    return E({**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": fin}], **top})


def U(**usage: int) -> bytes:
    return E({**CHUNK, "choices": [], "usage": usage})


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


OK = U(prompt_tokens=5, completion_tokens=2, total_tokens=7)


HI = C({"role": "assistant", "content": "Hi"})


STOP = C({}, "stop")


def sse(*parts: bytes, **more: Any) -> Behaviour:
    return Behaviour(raw=b"".join(parts), headers={"Content-Type": "text/event-stream"}, **more)


def whole(message: Any, finish_reason: Any = "stop", **more: Any) -> Behaviour:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "u1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Behaviour(raw=json.dumps({**body, "usage": USAGE, **more}).encode())


def TC(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"tool_calls": list(calls)}


def say(alice: ApiClient, cid: str = "", **fields: Any) -> Any:
    return alice.say(cid or alice.conversation(), "hi", **{"stream": True, **fields})


def completed(alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour) -> dict[str, Any]:
    """Take a turn as a stream, and return what its client has put together: well-formed, stored, and replayed."""
    upstream.plan(behaviour)
    cid = alice.conversation()

    live = assemble(events(say(alice, cid, key="k")))

    assert UsageEvent.objects.get().status == "completed"
    assert assemble(events(say(alice, cid, key="k"))) == live
    reply = live["message"]
    stored = Message.objects.get(role="assistant")
    assert stored.content == (reply.get("content") or "")
    assert stored.as_openai().get("tool_calls") == reply.get("tool_calls")
    second = alice.say(cid, "and then?")
    assert second.status_code == 200, second.content
    return live
