"""Both official SDKs, unmodified, against a real server; docs/sdks.md shows what comes of it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import openai
import pytest
from openai import DefaultHttpxClient, OpenAI
from pydantic import BaseModel

from analytics.models import UsageEvent
from bench.dialects import DIALECTS
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken, Message
from conftest import Server
from llmapi.launch import ROOT

WEATHER: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


class Number(BaseModel):
    n: int


def say(content: Any) -> Any:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}


def create(client: OpenAI) -> None:
    reply = client.chat.completions.create(**say("Hi"))
    assert reply.choices[0].message.content == "echo: Hi"
    assert reply._request_id == reply.id


def stream(client: OpenAI) -> None:
    chunks = client.chat.completions.create(**say("one two"), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo: one two"


def stream_with_usage(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(**say("Hi"), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens > 0


def raw_response(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**say("Hi"))
    assert raw.headers["x-request-id"] == raw.parse().id


def streaming_response(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**say("Hi")) as response:
        assert json.loads(b"".join(response.iter_bytes()))["reply"] == "echo: Hi"


def stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(**say("one two")) as events:
        assert events.get_final_completion().choices[0].message.content == "echo: one two"


def tool_calls(client: OpenAI) -> None:
    memory = {"conversation_id": client.conversations.create().id}
    first = client.chat.completions.create(**say("weather"), tools=WEATHER, extra_body=memory)
    (call,) = first.choices[0].message.tool_calls or []
    assert call.to_dict() == TOOL_CALL
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second = client.chat.completions.create(model="gpt-4o-mini", messages=[result], tools=WEATHER, extra_body=memory)
    assert second.choices[0].message.content == "echo: sunny"


def streamed_tool_calls(client: OpenAI) -> None:
    with client.chat.completions.stream(**say("weather"), tools=WEATHER) as events:
        (call,) = events.get_final_completion().choices[0].message.tool_calls or []
    assert call.function.arguments == '{"city": "Oslo"}'


def json_schema(client: OpenAI) -> None:
    reply = client.chat.completions.parse(**say("json"), response_format=Number)
    assert reply.choices[0].message.parsed == Number(n=5)


def next_turn(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    message = client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message
    for sent_back in (message, message.to_dict(), message.model_dump()):  # the last has a null for what is not there
        turns = [*messages, sent_back, {"role": "user", "content": "Ho"}]
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=turns)
        assert reply.choices[0].message.content == "echo: Ho"


def next_turn_after_a_stream(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    for text in ("Ho", "Hu"):
        with client.chat.completions.stream(model="gpt-4o-mini", messages=messages) as events:
            messages.append(events.get_final_completion().choices[0].message)
        messages.append({"role": "user", "content": text})
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert reply.choices[0].message.content == "echo: Hu"


def next_turn_after_parse(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "json"}]
    reply = client.chat.completions.parse(model="gpt-4o-mini", messages=messages, response_format=Number)
    messages += [reply.choices[0].message, {"role": "user", "content": "json"}]
    reply = client.chat.completions.parse(model="gpt-4o-mini", messages=messages, response_format=Number)
    assert reply.choices[0].message.parsed == Number(n=5)


def sunny(message: Any) -> Any:
    """Answer the calls of a message."""
    return [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]


def tool_loop(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "weather"}]
    while isinstance(messages[-1], dict):
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=WEATHER)
        message = reply.choices[0].message
        messages += [message, *sunny(message)] if message.tool_calls else [message]
    assert messages[-1].content == "echo: sunny"


def streamed_tool_loop(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "weather"}]
    while isinstance(messages[-1], dict):
        with client.chat.completions.stream(model="gpt-4o-mini", messages=messages, tools=WEATHER) as events:
            message = events.get_final_completion().choices[0].message
        messages += [message, *sunny(message)] if message.tool_calls else [message]
    assert messages[-1].content == "echo: sunny"


def streamed_conversation(client: OpenAI) -> None:
    """Read it as OpenAI's quickstart does, which takes every chunk to have a choice."""
    memory = {"conversation_id": client.conversations.create().id}
    for _ in range(2):
        chunks: Any = client.chat.completions.create(**say("one two"), stream=True, extra_body=memory)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo: one two"


def image_parts(client: OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    client.chat.completions.create(**say([{"type": "text", "text": "What?"}, image]))


def parameters(client: OpenAI) -> None:
    client.chat.completions.create(
        **say("Hi"),
        temperature=0.5,
        top_p=1,
        max_completion_tokens=50,
        seed=1,
        stop=["x"],
        logprobs=True,
        top_logprobs=2,
        user="u",
        metadata={"a": "b"},
        service_tier="auto",
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={"50256": -100},
    )


def memory_and_key(client: OpenAI) -> None:
    memory: Any = {
        "extra_body": {"conversation_id": client.conversations.create().id},
        "extra_headers": {"Idempotency-Key": "py-1"},
    }
    first = client.chat.completions.create(**say("Hi"), **memory)
    assert client.chat.completions.create(**say("Hi"), **memory) == first
    with pytest.raises(openai.ConflictError) as conflict:
        client.chat.completions.create(**say("Ho"), **memory)
    assert conflict.value.code == "idempotency_key_reused"


def retry_with_key(client: OpenAI) -> None:
    reply = client.chat.completions.create(**say("flaky py"), extra_headers={"Idempotency-Key": "py-2"})
    assert reply.choices[0].message.content == "echo: flaky py"


def models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert client.models.retrieve(names[0]).id == "gpt-4o-mini"


def conversations(client: OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "1"})
    assert client.conversations.retrieve(made.id).metadata == {"a": "1"}
    assert client.conversations.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def items(client: OpenAI) -> None:
    conversation_id = client.conversations.create().id
    for start in (0, 15, 30):
        batch: Any = [{"role": "user", "content": str(start + n)} for n in range(15)]
        client.conversations.items.create(conversation_id, items=batch)
    everything = [str(n) for n in range(45)]
    pages = client.conversations.items
    oldest_first: Any = pages.list(conversation_id, order="asc", limit=20)
    assert [item.content[0].text for item in oldest_first] == everything
    newest_first: Any = pages.list(conversation_id)
    assert [item.content[0].text for item in newest_first] == everything[::-1]
    last: Any = next(iter(pages.list(conversation_id, limit=1)))
    assert pages.retrieve(last.id, conversation_id=conversation_id) == last
    assert pages.delete(last.id, conversation_id=conversation_id).id == conversation_id


def broken_stream(client: OpenAI) -> None:
    list(client.chat.completions.create(**say("broken"), stream=True))


def wrong_token(client: OpenAI) -> None:
    client.with_options(api_key="wrong").models.list()


CALLS: dict[str, Callable[[OpenAI], object]] = {
    "chat.completions.create": create,
    "chat.completions.create, stream": stream,
    "chat.completions.create, stream with usage": stream_with_usage,
    "with_raw_response": raw_response,
    "with_streaming_response": streaming_response,
    "chat.completions.stream": stream_helper,
    "tool calls": tool_calls,
    "tool calls, streamed": streamed_tool_calls,
    "response_format, JSON schema": json_schema,
    "messages.append(message), and a next turn": next_turn,
    "the same after chat.completions.stream": next_turn_after_a_stream,
    "the same after chat.completions.parse": next_turn_after_parse,
    "a loop of tools": tool_loop,
    "a loop of tools, streamed": streamed_tool_loop,
    "image parts": image_parts,
    "temperature, seed, stop, logprobs, …": parameters,
    "a conversation and an Idempotency-Key": memory_and_key,
    "a conversation, stream": streamed_conversation,
    "an automatic retry with a key": retry_with_key,
    "models.list, retrieve": models,
    "conversations.create, retrieve, update, delete": conversations,
    "conversations.items.create, list, retrieve, delete": items,
    "an error in the middle of a stream": broken_stream,
    "a wrong token": wrong_token,
    "n=2": lambda client: client.chat.completions.create(**say("Hi"), n=2),
    "an unknown field": lambda client: client.chat.completions.create(**say("Hi"), modalities=["audio"]),
    "chat.completions.list": lambda client: client.chat.completions.list(),
    "responses.create": lambda client: client.responses.create(model="gpt-4o-mini", input="Hi"),
    "embeddings.create": lambda client: client.embeddings.create(model="gpt-4o-mini", input="Hi"),
    "files.list": lambda client: client.files.list(),
}


# What OpenAI's documents show: creating, streaming, tools, parsed output, and each reply sent back.
LOOPS = [
    "chat.completions.create",
    "chat.completions.create, stream with usage",
    "chat.completions.stream",
    "messages.append(message), and a next turn",
    "the same after chat.completions.stream",
    "the same after chat.completions.parse",
    "a loop of tools",
    "a loop of tools, streamed",
    "tool calls",
    "a conversation, stream",
]


def reply(content: str | None, **fields: Any) -> Behaviour:
    """A reply in the shape that OpenAI gives it."""
    return Behaviour(message={"role": "assistant", "content": content, "refusal": None, "annotations": [], **fields})


def played(upstream: OpenAIDouble) -> None:
    """The double answers by what it is told."""
    tries = count()

    def choose(body: dict[str, Any]) -> Behaviour | None:
        text = body["messages"][-1]["content"]
        if text == "weather":
            return reply(None, tool_calls=[TOOL_CALL])
        if text == "json":
            return reply('{"n": 5}')
        if text == "broken":
            return Behaviour(text="one two three", stop_after=2, ending="error")
        if str(text).startswith("flaky") and next(tries) % 2 == 0:
            return Behaviour(status=500)
        return reply(f"echo: {text}") if isinstance(text, str) else None

    upstream.choose = choose


def outcome(call: Callable[[OpenAI], object], client: OpenAI) -> str:
    try:
        call(client)
    except openai.APIError as exc:
        return exc.code or "no code"
    return "works"


def with_python(server: Server, names: Iterable[str] = CALLS) -> dict[str, str]:
    with OpenAI(api_key=server.token, base_url=f"{server.url}/v1", max_retries=2) as client:
        return {name: outcome(CALLS[name], client) for name in names}


def with_javascript(server: Server, names: Iterable[str] = CALLS) -> dict[str, str]:
    folder = ROOT / "chat" / "tests" / "sdk"
    env = {**os.environ, "TOKEN": server.token, "BASE_URL": f"{server.url}/v1", "ONLY": json.dumps([*names])}
    node = ROOT / ".venv" / "bin" / "node"
    result = subprocess.run([node, "calls.mjs"], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    outcomes: dict[str, str] = json.loads(result.stdout)
    return outcomes


def shown(result: str) -> str:
    return "works" if result == "works" else f"`{result}`"


# The SDK warns of its own `parsed` when a parsed message is sent back.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_what_works_is_what_the_page_says(server: Server, upstream: OpenAIDouble) -> None:
    played(upstream)

    python, javascript = with_python(server), with_javascript(server)

    assert list(javascript) == list(CALLS)
    table = [f"| {name} | {shown(python[name])} | {shown(javascript[name])} |" for name in CALLS]
    assert "\n".join(table) in (ROOT / "docs" / "sdks.md").read_text(), "\n".join(table)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.clients
@pytest.mark.usefixtures("dialect")
def test_the_documented_loops_work_with_every_provider(serve: Callable[..., Server], upstream: OpenAIDouble) -> None:
    """docs/providers.md has the table. Each has its own server, because a server learns what its upstream takes."""
    played(upstream)
    server = serve(WEB_CONCURRENCY="1", OPENAI_MODEL="gpt-4o-mini")

    for outcomes in (with_python(server, LOOPS), with_javascript(server, LOOPS)):
        assert outcomes == dict.fromkeys(LOOPS, "works")


def test_the_page_has_every_provider_and_loop() -> None:
    page = (ROOT / "docs" / "providers.md").read_text()

    assert f"| provider | {' | '.join(LOOPS)} |" in page
    for dialect in DIALECTS:
        assert f"| {dialect.name} |{' works |' * len(LOOPS)}" in page


def test_a_retried_request_with_a_key_is_one_turn(server: Server, upstream: OpenAIDouble) -> None:
    """The answer gets lost after the turn is settled; the SDK sends the request again by itself."""
    with OpenAI(api_key=server.token, base_url=f"{server.url}/v1", max_retries=2, timeout=0.7) as client:
        conversation_id = client.conversations.create().id
        upstream.plan(Behaviour(delay=1))

        reply = client.chat.completions.create(
            **say("Hi"), extra_body={"conversation_id": conversation_id}, extra_headers={"Idempotency-Key": "k"}
        )

    assert reply.choices[0].message.content == "echo: Hi"
    assert len(upstream.requests) == 1
    assert Message.objects.count() == 2
    assert UsageEvent.objects.count() == 1


def test_a_conflict_is_not_retried_and_a_limit_waits_as_told(server: Server, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(rate_limit_per_min=20)  # the next one 3 s after the last: time enough to be refused
    sent: list[Any] = []
    counting = DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with OpenAI(api_key=server.token, base_url=f"{server.url}/v1", max_retries=2, http_client=counting) as client:
        client.chat.completions.create(**say("Hi"), extra_headers={"Idempotency-Key": "k"})
        with pytest.raises(openai.ConflictError):
            client.chat.completions.create(**say("Ho"), extra_headers={"Idempotency-Key": "k"})
        assert len(sent) == 2

        while server.post("/v1/conversations", {})[0] != 429:
            pass
        raw = client.models.with_raw_response.list()
        assert raw.status_code == 200
        assert raw.retries_taken >= 1
