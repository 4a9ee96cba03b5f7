"""What is kept is acceptable tomorrow: any provider takes the history, however it came about."""

import random
from itertools import pairwise
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from bench.dialects import GROQ, MISTRAL
from bench.openai_double import Behaviour, OpenAIDouble
from bench.openai_rules import refusal_of
from chat.models import Conversation, Message
from chat.turns import prompt
from chat.turns.cuts import Stored
from chat.turns.history import StoredMessage
from chat.turns.messages import canonical
from conftest import ApiClient

URL = "/v1/chat/completions"
MODEL = "smollm2-135m"  # its window is OPENAI_CONTEXT_TOKENS
WEATHER = {"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}


def call(call_id: str = "call_1", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "w", "arguments": arguments}}


def calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(call_id: str = "call_1", content: str = "sun") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}


def store(alice: ApiClient, *messages: dict[str, Any], request_id: str = "") -> str:
    """Store messages as an earlier version may have done."""
    cid = alice.conversation()
    for message in messages:
        Message.from_openai(message, conversation_id=cid, request_id=request_id).save()
    return cid


def sent(upstream: OpenAIDouble) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = upstream.requests[-1]["body"]["messages"]
    return messages


@pytest.mark.parametrize(
    ("stored", "history"),
    [
        pytest.param(
            [USER, {**REPLY, "tool_calls": [], "function_call": None, "refusal": None, "audio": None}],
            [USER, REPLY],
            id="empty fields",
        ),
        pytest.param([USER, {**REPLY, "annotations": [], "reasoning": "hm"}], [USER, REPLY], id="other fields"),
        pytest.param([USER, {"role": "assistant", "content": ""}], [USER], id="an empty reply"),
        pytest.param([USER, {"role": "assistant", "content": None}], [USER], id="a reply of null"),
        pytest.param([USER, {"role": "assistant", "content": []}], [USER], id="a reply of no parts"),
        pytest.param(
            [USER, {"role": "assistant", "content": [{"type": "text", "text": "ho"}]}], [USER, REPLY], id="parts"
        ),
        pytest.param(
            [USER, {"role": "assistant", "content": None, "refusal": "no"}],
            [USER, {"role": "assistant", "content": "no"}],
            id="a refusal",
        ),
        pytest.param([USER, result(), REPLY], [USER, REPLY], id="a result without a call"),
        pytest.param([USER, calling(call()), USER, REPLY], [USER, USER, REPLY], id="a call without a result"),
        pytest.param(
            [USER, calling(call(), content="wait"), USER], [USER, {**REPLY, "content": "wait"}, USER], id="with text"
        ),
        pytest.param(
            [USER, calling(call("a"), call("b")), result("a"), REPLY],
            [USER, calling(call("a")), result("a"), REPLY],
            id="one of two calls without a result",
        ),
        pytest.param(
            [USER, calling(call()), result(), result(content="rain"), REPLY],
            [USER, calling(call()), result(), REPLY],
            id="two results of one call",
        ),
        pytest.param(
            [USER, calling(call()), USER, REPLY, result()],
            [USER, USER, REPLY, calling(call()), result()],
            id="a turn between a call and its result",
        ),
        pytest.param(
            [USER, calling(call()), result(), calling(call()), result(content="rain"), REPLY],
            [USER, calling(call()), result(), calling(call()), result(content="rain"), REPLY],
            id="an id that is used again",
        ),
        pytest.param(
            [USER, calling(call(arguments='{"a')), result(), calling(call("b", "")), result("b")],
            [USER, calling(call()), result(), calling(call("b")), result("b")],
            id="arguments that are no JSON",
        ),
        pytest.param(
            [USER, calling({"id": "x", "type": "function", "function": {"arguments": "{}"}}), REPLY],
            [USER, REPLY],
            id="a call without a name",
        ),
    ],
)
@pytest.mark.parametrize("dialect", ["openai", "strict"])
def test_history_is_repaired_when_it_is_read(
    alice: ApiClient, upstream: OpenAIDouble, stored: list[Any], history: list[Any], dialect: str
) -> None:
    if dialect == "strict":
        upstream.dialect = MISTRAL
    cid = store(alice, *stored)

    answer = alice.say(cid, "and then?")

    assert answer.status_code == 200, answer.content
    assert sent(upstream) == [*history, {"role": "user", "content": "and then?"}]


def test_any_history_is_acceptable(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """Whatever was stored, in whatever order: the next turn is taken, and what is sent is well-formed."""
    pieces = [USER, REPLY, result("a"), result("b"), calling(call("a")), calling(call("a"), call("b"), content="x")]
    pieces += [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "system", "content": "s"}]
    dice = random.Random(13)  # noqa: S311
    for _ in range(40):
        cid = store(alice, *dice.choices(pieces, k=dice.randrange(9)), request_id=dice.choice(["", "r_1"]))
        assert alice.say(cid, "and then?").status_code == 200
        assert refusal_of(upstream.requests[-1]["body"]) is None


def test_the_result_of_a_stored_call_is_sent_after_it(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(message=calling(call())))
    alice.say(cid, "weather?", tools=[WEATHER])

    answer = alice.send(URL, {"conversation_id": cid, "messages": [result()], "tools": [WEATHER]})

    assert answer.status_code == 200, answer.content
    assert sent(upstream) == [{"role": "user", "content": "weather?"}, calling(call()), result()]


def test_a_loop_that_sends_everything_again_is_stored_once(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """A library that runs the loop itself sends the whole exchange with each step."""
    cid = alice.conversation()
    exchange: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": "weather?"}]
    for call_id in ("a", "b"):
        upstream.plan(Behaviour(message=calling(call(call_id, '{"n": 1}'))))
        told = alice.send(URL, {"conversation_id": cid, "messages": exchange, "tools": [WEATHER]}).json()
        told["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = '{"n":1}'
        exchange += [told["choices"][0]["message"], result(call_id)]
    exchange.append(alice.send(URL, {"conversation_id": cid, "messages": exchange}).json()["choices"][0]["message"])
    exchange.append(USER)
    alice.send(URL, {"conversation_id": cid, "messages": exchange})

    assert [message["role"] for message in sent(upstream)] == [
        *("system", "user", "assistant", "tool", "assistant", "tool", "assistant", "user"),
    ]
    assert Message.objects.count() == 9


def test_what_only_looks_like_a_repetition_is_new(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = store(alice, USER, REPLY)

    alice.send(URL, {"conversation_id": cid, "messages": [{"role": "user", "content": "other"}, REPLY, USER]})

    assert len(sent(upstream)) == 5
    assert Message.objects.count() == 6


def test_a_reply_that_is_sent_back_alone_is_answered(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = store(alice, USER, REPLY)

    assert alice.send(URL, {"conversation_id": cid, "messages": [REPLY]}).status_code == 200
    assert sent(upstream) == [USER, REPLY, REPLY]


def test_a_result_that_answers_nothing_is_told(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """Only the client can mend it, and it loses nothing: the conversation goes on."""
    cid = store(alice, USER, REPLY)

    answer = alice.send(URL, {"conversation_id": cid, "messages": [result("other")]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].role"
    assert alice.say(cid, "and then?").status_code == 200


def rounds(count: int) -> list[dict[str, Any]]:
    found = [{"role": "user", "content": "the question"}]
    for number in range(count):
        found += [calling(call(f"call_{number}")), result(f"call_{number}", f"result {number} " + "x" * 60)]
    return found


@pytest.mark.parametrize(("count", "context"), [(200, 128_000), (10, 600), (200, 8192), (250, 128_000)])
@pytest.mark.parametrize("last", ["result", "user"])
def test_a_long_tool_loop_is_cut_in_whole_rounds(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, count: int, context: int, last: str
) -> None:
    settings.OPENAI_CONTEXT_TOKENS = context
    cid = store(alice, *rounds(count), calling(call("last")))
    new = [result("last")] if last == "result" else [USER]

    answer = alice.send(URL, {"conversation_id": cid, "messages": new, "model": MODEL})

    assert answer.status_code == 200, answer.content
    messages = sent(upstream)
    assert messages[0] == {"role": "user", "content": "the question"}
    assert refusal_of(upstream.requests[-1]["body"]) is None
    assert messages[-2 if last == "user" else -3] == rounds(count)[-1]
    if context == 600:
        assert answer.json()["history_truncated"]


def test_a_long_history_is_cut_by_half_and_then_holds(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings
) -> None:
    """So the prompts of many turns begin with the same messages, which the provider has in its cache."""
    settings.HISTORY_TOKENS = 400
    cid = alice.conversation()
    beginnings, sizes = [], []
    for number in range(40):
        alice.say(cid, f"{number} " + "x" * 30)
        beginnings.append(sent(upstream)[0]["content"].split()[0])
        sizes.append(len(sent(upstream)))

    cuts = [index for index, (one, other) in enumerate(pairwise(beginnings)) if one != other]
    assert 3 <= len(cuts) <= 8
    assert all(sizes[cut + 1] <= sizes[cut] * 0.6 for cut in cuts)
    assert max(sizes) < 30
    assert Message.objects.count() == 80
    assert (
        alice.get(f"/v1/conversations/{cid}/items?limit=100&order=asc").json()["data"][0]["content"][0]["text"][0]
        == "0"
    )


def test_the_last_exchange_is_never_cut_for_its_cost(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """A reply of 8,700 tokens is over half of what history may cost, and the next message is about it."""
    cid = alice.conversation()
    for number in range(4):
        upstream.plan(Behaviour(text=f"{number} " + "x" * 26_000))
        alice.say(cid, "and then?")
        assert number == 0 or sent(upstream)[-2]["content"].startswith(f"{number - 1} x")
    assert len(sent(upstream)) <= 5


def test_what_was_kept_of_a_long_loop_stays(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = store(alice, *rounds(250), {"role": "assistant", "content": "THE ANSWER"})
    sizes = []
    for text in ("one", "two", "three"):
        alice.say(cid, text)
        sizes.append(len(sent(upstream)))
        assert {"role": "assistant", "content": "THE ANSWER"} in sent(upstream)
        assert sent(upstream)[0] == {"role": "user", "content": "the question"}
        assert refusal_of(upstream.requests[-1]["body"]) is None
    assert sizes == [sizes[0], sizes[0] + 2, sizes[0] + 4]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_never_cut(alice: ApiClient, upstream: OpenAIDouble, settings: Settings, role: str) -> None:
    instruction = {"role": role, "content": "ALWAYS ANSWER IN FRENCH"}
    for tokens, context in ((400, 128_000), (0, 600)):
        settings.HISTORY_TOKENS, settings.OPENAI_CONTEXT_TOKENS = tokens, context
        cid = store(alice, instruction)
        for _ in range(12):
            alice.say(cid, "x" * 150, model=MODEL)
            assert sent(upstream)[0] == instruction
        assert len(sent(upstream)) < 14


def test_a_small_model_cuts_nothing_for_good(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 600
    cid = store(alice, *[USER, REPLY] * 220)

    alice.say(cid, "x" * 1100, model=MODEL)
    assert len(sent(upstream)) < 30
    alice.say(cid, "hi", model="gpt-4o-mini")

    assert len(sent(upstream)) > 150


def test_a_window_that_is_full_moves_by_halves(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    """A local server's prefix cache is what makes a long prompt fast."""
    settings.OPENAI_CONTEXT_TOKENS = 2048
    cid = alice.conversation()
    beginnings = []
    for number in range(40):
        alice.say(cid, f"{number} " + "x" * 200, model=MODEL)
        beginnings.append(sent(upstream)[0]["content"].split()[0])

    assert len(set(beginnings)) <= 10


def test_a_result_finds_a_call_that_was_cut_away(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    """Some calls wait for a person's approval, and the talk goes on."""
    settings.HISTORY_TOKENS = 200
    cid = store(alice, USER, calling(call("late")))
    for _ in range(12):
        alice.say(cid, "x" * 100)

    answer = alice.send(URL, {"conversation_id": cid, "messages": [result("late")]})

    assert answer.status_code == 200, answer.content
    assert sent(upstream)[-2:] == [calling(call("late")), result("late")]


@pytest.mark.parametrize(
    "extra",
    [
        {"tool_calls": {"a": 1}},
        {"tool_calls": ["a"]},
        {"tool_calls": [None]},
        {"tool_calls": [{"id": ["x"], "function": {"name": "w"}}]},
        {"refusal": {"a": 1}},
        {"content": {"a": 1}},
        {"content": [None, "x", {"type": "text"}]},
    ],
)
def test_odd_rows_end_no_conversation(alice: ApiClient, upstream: OpenAIDouble, extra: dict[str, Any]) -> None:
    cid = store(alice, USER, REPLY)
    Message.objects.filter(role="assistant").update(extra=extra)

    assert alice.say(cid, "hi").status_code == 200
    assert alice.get(f"/v1/conversations/{cid}/items").status_code == 200


@pytest.mark.parametrize(
    ("given", "name"), [("functions.w", "functions_w"), ("x" * 70, "x" * 64), ("погода", "______")]
)
def test_a_tool_name_is_one_that_openai_takes_back(given: str, name: str) -> None:
    sent_back = canonical(calling({"id": "a", "type": "function", "function": {"name": given, "arguments": "{}"}}))

    assert sent_back
    assert sent_back["tool_calls"][0]["function"]["name"] == name


def test_text_in_parts_is_text_where_few_take_parts(alice: ApiClient, upstream: OpenAIDouble) -> None:
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    cid = store(alice, {"role": "system", "content": [*text, picture]}, {"role": "user", "content": text})

    alice.send(URL, {"conversation_id": cid, "messages": [{"role": "user", "content": [*text, picture]}]})

    assert [message["content"] for message in sent(upstream)] == ["a\nb", "a\nb", [*text, picture]]


def test_a_cut_is_told(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.HISTORY_TOKENS = 60
    cid = alice.conversation()

    told = [alice.say(cid, "x" * 60).json()["history_truncated"] for _ in range(5)]

    assert told == [False, False, True, True, True]


def test_a_cut_for_want_of_room_is_for_one_turn(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 600
    cid = alice.conversation()
    alice.say(cid, "first", model=MODEL)

    alice.say(cid, "y" * 1200, model=MODEL)
    alice.say(cid, "last", model="gpt-4o-mini")

    assert sent(upstream)[0]["content"] == "first"
    assert Conversation.objects.get().history_from is None


def test_more_messages_than_are_read_are_cut_for_good(
    alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    cid = store(alice, *[USER, REPLY] * 250)
    alice.say(cid, "one")
    first = len(sent(upstream))

    with django_assert_num_queries(13):
        alice.say(cid, "two")

    assert 150 < first < 210
    assert len(sent(upstream)) == first + 2


def test_a_greeting_by_the_assistant_is_part_of_the_history(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = store(alice, {"role": "assistant", "content": "Welcome!"})

    alice.say(cid, "hi")

    assert sent(upstream) == [{"role": "assistant", "content": "Welcome!"}, USER]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ("", {}),
        ("reasoning_content", {"reasoning_content": "hm"}),
        ("reasoning", {"reasoning": "hm"}),
        ("reasoning_details", {"reasoning_details": [{"text": "hm"}]}),
    ],
)
def test_reasoning_goes_back_where_the_upstream_wants_it(settings: Settings, fields: str, kept: dict[str, Any]) -> None:
    settings.UPSTREAM_MESSAGE_FIELDS = [fields] if fields else []

    message = canonical({**REPLY, "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]})

    assert message == {**REPLY, **kept}


def test_a_thought_signature_goes_back_to_google(settings: Settings) -> None:
    signed = {**call(), "extra_content": {"google": {"thought_signature": "s"}}}
    assert canonical(calling(signed)) == calling(call())

    settings.UPSTREAM_MESSAGE_FIELDS = ["extra_content"]
    assert canonical(calling(signed)) == calling(signed)


def test_what_one_provider_said_another_takes(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    for dialect in (MISTRAL, GROQ):
        upstream.dialect = dialect
        assert alice.say(cid, "hi").status_code == 200


@given(
    contents=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=40)), max_size=12),
    tokens=st.sampled_from([0, 30, 16_000]),
    model=st.sampled_from(["gpt-4o-mini", "small"]),
)
def test_a_history_of_texts_is_sent_as_any_other(contents: list[tuple[str, str]], tokens: int, model: str) -> None:
    """The short way through it gives what the long way gives."""
    rows = [
        StoredMessage(n + 1, role, text, {"refusal": None}, f"r_{n // 2}") for n, (role, text) in enumerate(contents)
    ]
    stored = Stored.of(Conversation(conversation_id="c_1", history_from=None, instructions_to=None), rows)
    new = [{"role": "user", "content": "Hi"}]

    with override_settings(HISTORY_TOKENS=tokens, OPENAI_CONTEXT_TOKENS=400):
        short = prompt.build(stored, new, model=model, parameters={"max_tokens": 200})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prompt, "whole_history", lambda _: None)
            long = prompt.build(stored, new, model=model, parameters={"max_tokens": 200})

    def visible(built: prompt.Prompt) -> tuple[Any, ...]:
        return built.messages, built.size, built.first_new, built.cut.is_truncated, built.cut.history_from

    assert visible(short) == visible(long)
