"""For any interleaving of the shapes that providers send, cut anywhere: what was readable is kept, what is kept is
acceptable to a strict provider, and the stream helpers of both SDKs finish."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from bench.openai_rules import refusal_of
from chat.models import Message
from chat.tests.streaming import assemble
from chat.turns.chunks import chunk_of, last_chunk
from chat.turns.messages import canonical
from chat.upstream.client import take
from chat.upstream.frames import frames
from chat.upstream.replies import Call, Completion, Reply, choice_of
from llmapi.launch import ROOT

CALL = Call("r_1", {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}, prompt_tokens=9)
HEAD = {"id": "u1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@dataclass
class Stream:
    """A stream as a provider sends it, and what is to be read from it."""

    events: list[bytes]
    text: str = ""
    thoughts: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)  # names and arguments
    total: int = 0


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta: Any, finish_reason: Any = None, **more: Any) -> bytes:
    return event({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more})


# --- shapes ---

SIGNS_OF_LIFE: list[Any] = [None, [], {}, {"type": "ping"}, {**HEAD, "choices": []}, {"x_groq": {"id": "r"}}]
NOISE = st.sampled_from(
    [
        *(b": keep-alive\n\n", b"event: ping\ndata:\n\n", b"data: ping\n\n", b"id: 7\n\n", b"\n\n"),
        *map(event, SIGNS_OF_LIFE),
        *(event({**HEAD, "choices": None}), chunk({}), chunk(None), chunk({"content": None, "tool_calls": []})),
        chunk({"role": "assistant", "content": "", "refusal": None, "audio": None, "function_call": None}),
    ]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
ARGUMENTS = st.dictionaries(TEXT, st.integers(), max_size=2).map(json.dumps)


def text_events(text: str, shape: str) -> list[bytes]:
    if shape == "parts":
        return [chunk({"content": [{"type": "text", "text": text}]})]
    if shape == "halves":
        # UTF-16 units, each in a chunk of its own: the halves of a pair come apart.
        units = text.encode("utf-16-le")
        pieces = [units[n : n + 2].decode("utf-16-le", "surrogatepass") for n in range(0, len(units), 2)]
        return [chunk({"content": piece}) for piece in pieces]
    if shape == "bytes":
        # Bytes of UTF-8, each in a chunk of its own, as servers of token models send them.
        raw = [bytes([byte]) for byte in text.encode()]
        return [chunk({"content": "@@"}).replace(b'"@@"', json_string(byte)) for byte in raw]
    return [chunk({"content": text}, **({"usage": None} if shape == "usage" else {}))]


def json_string(byte: bytes) -> bytes:
    return b'"' + (json.dumps(byte.decode())[1:-1].encode() if byte < b"\x80" else byte) + b'"'


def call_events(position: int, name: str, arguments: str, shape: str) -> list[bytes]:
    function = {"name": name, "arguments": arguments}
    middle = len(arguments) // 2
    head, rest = arguments[:middle], arguments[middle:]
    match shape:
        case "whole":
            deltas: list[dict[str, Any]] = [{"id": f"c{position}", "type": "function", "function": function}]
        case "no id":
            deltas = [{"index": position, "id": "", "function": function}]
        case "all at zero":
            deltas = [{"index": 0, "id": f"c{position}", "type": "function", "function": function}]
        case "empty":
            deltas = [
                {"index": position, "id": f"c{position}", "function": {"name": name, "arguments": head}},
                {"index": position, "id": "", "type": "", "function": {"name": "", "arguments": rest}},
            ]
        case "object":
            deltas = [
                {"index": position, "id": f"c{position}", "function": {**function, "arguments": json.loads(arguments)}}
            ]
        case _:
            deltas = [
                {
                    "index": position,
                    "id": f"c{position}",
                    "type": "function",
                    "function": {**function, "arguments": ""},
                },
                {"index": position, "function": {"arguments": head}},
                {"index": position, "function": {"arguments": rest}},
            ]
    return [chunk({"tool_calls": [delta]}) for delta in deltas]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    found = Stream([])
    parts = draw(st.lists(st.sampled_from(["text", "thought", "noise", "noise"]), max_size=8))
    for part in parts:
        if part == "noise":
            found.events.append(draw(NOISE))
        elif part == "thought":
            thought = draw(TEXT)
            found.thoughts += thought
            name = draw(st.sampled_from(["reasoning", "reasoning_content"]))
            found.events.append(chunk({name: thought}))
        else:
            text = draw(TEXT)
            found.text += text
            shape = draw(st.sampled_from(["plain", "parts", "halves", "bytes", "usage"]))
            found.events += text_events(text, shape)
    shape = draw(st.sampled_from(["whole", "no id", "all at zero", "empty", "object", "pieces"]))
    for position in range(draw(st.integers(0, 3))):
        arguments = draw(ARGUMENTS)
        found.calls.append((f"f{position}", arguments))
        found.events += call_events(position, f"f{position}", arguments, shape)
    finish_reason = draw(st.sampled_from(["stop", "STOP", "tool_calls", "length", "", None, "odd"]))
    found.events.append(chunk({}, finish_reason))
    figures = draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=3))
    for prompt, completion in figures:
        found.events.append(
            event({**HEAD, "choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})
        )
        found.total = max(found.total, prompt + completion)
    found.events.append(draw(NOISE))
    if not finish_reason or draw(st.booleans()):
        found.events.append(b"data: [DONE]\n\n")
    return found


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(places)]


def read(pieces: list[bytes]) -> tuple[Completion, list[dict[str, Any]]]:
    """Read a stream as a turn does. Returns the completion, and the chunks that a client gets."""
    reply = Reply(CALL)
    role = choice_of({"role": "assistant", "content": None})
    choices = list(take(reply, frames(iter(pieces))))
    completion = reply.completion()
    answer = {**completion.body, "id": "r_1"}
    return completion, [*(chunk_of(reply.head(), "r_1", choice) for choice in (role, *choices)), last_chunk(answer)]


kept: list[list[dict[str, Any]]] = []  # for the JavaScript SDK


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    stream=streams(),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_what_was_readable_is_kept(stream: Stream, cuts: list[int], line_end: bytes) -> None:
    data = b"".join(stream.events).replace(b"\n", line_end)

    completion, chunks = read(pieces_of(data, cuts))

    message = completion.message
    assert (message["content"] or "") == stream.text
    assert message.get("reasoning_content", "") == stream.thoughts
    calls = message.get("tool_calls", [])
    told = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
    assert told == [(name, json.loads(arguments)) for name, arguments in stream.calls]
    assert completion.tokens.total >= stream.total
    # What is stored is what was said, and goes upstream as any provider takes it.
    row = Message.from_openai(message, conversation_id="c_1", request_id="r_1")
    assert row.as_openai() == message
    sent = canonical(row.as_openai())
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
    history = [{"role": "user", "content": "hi"}, *([sent] if sent else []), *results, {"role": "user", "content": "?"}]
    assert refusal_of({"model": "gpt-4o-mini", "messages": history}) is None
    # What a client puts together is what was stored.
    live = assemble([*chunks, "[DONE]"])
    assert (live["message"].get("content") or "") == stream.text
    assert live["message"].get("tool_calls", []) == calls
    state: Any = ChatCompletionStreamState()
    for one in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(one))
    final = state.get_final_completion() if live["finish_reason"] != "length" else state.current_completion_snapshot
    assert (final.choices[0].message.content or "") == stream.text
    kept.append(chunks)


HELPER = """
import { ChatCompletionStream } from "openai/lib/ChatCompletionStream";
const streams = JSON.parse(await new Response(process.stdin).text());
const texts = [];
for (const chunks of streams) {
  const lines = new ReadableStream({ start(sink) {
    for (const chunk of chunks) sink.enqueue(new TextEncoder().encode(JSON.stringify(chunk) + "\\n"));
    sink.close();
  } });
  const completion = await ChatCompletionStream.fromReadableStream(lines).finalChatCompletion();
  texts.push([completion.choices[0].message.content ?? "", completion.choices[0].finish_reason]);
}
console.log(JSON.stringify(texts));
"""


def test_the_javascript_helper_finishes() -> None:
    if not kept:  # the other test runs in another process
        test_what_was_readable_is_kept()
    sample = kept[-100:]
    result = subprocess.run(
        [ROOT / ".venv" / "bin" / "node", "--input-type=module", "-e", HELPER],
        cwd=ROOT / "chat" / "tests" / "sdk",
        input=json.dumps(sample),
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    expected = [assemble([*chunks, "[DONE]"]) for chunks in sample]
    assert json.loads(result.stdout) == [
        [live["message"].get("content") or "", live["finish_reason"]] for live in expected
    ]
