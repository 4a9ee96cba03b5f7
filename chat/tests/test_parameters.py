"""What llmapi adds to a request: who is behind it, how hard the model thinks, and room for that in its bound."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pytest_django import Settings

from analytics.models import UsageEvent
from bench.dialects import DIALECTS, LLAMA_CPP, MISTRAL, VLLM_OLD, Dialect
from bench.openai_double import Behaviour, OpenAIDouble
from bench.openai_rules import refusal_of
from chat.estimates import most_reply_tokens
from chat.models import ClientToken, Message
from chat.tests.streaming import assemble, events
from chat.upstream.parameters import default_effort
from conftest import ApiClient, wait_until

URL = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]
LUNA = "gpt-6-luna"


def ask(client: ApiClient, **fields: Any) -> Any:
    return client.send(URL, {"messages": [{"role": "user", "content": "Hi"}], **fields})


def sent(upstream: OpenAIDouble, name: str) -> list[Any]:
    return [request["body"].get(name) for request in upstream.requests]


@pytest.fixture
def luna(settings: Settings) -> None:
    settings.OPENAI_MODEL = LUNA
    settings.OPENAI_MODELS = [LUNA, "gpt-4o-mini"]


# --- who is behind a request ---


def test_a_person_has_one_identifier_that_tells_nothing(
    alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble
) -> None:
    for client, user in ((alice, "ada"), (alice, "ada"), (alice, "grace"), (bob, "ada")):
        ask(client, user=user)

    ada, again, grace, other_client = sent(upstream, "safety_identifier")
    assert ada == again
    assert len({ada, grace, other_client}) == 3
    assert len(ada) == 43
    assert "ada" not in str(upstream.requests[0]["body"])


def test_a_conversation_has_one_cache_key(alice: ApiClient, upstream: OpenAIDouble) -> None:
    first, second = alice.conversation(), alice.conversation()
    for cid in (first, first, second):
        alice.say(cid, "Hi")

    one, again, other = sent(upstream, "prompt_cache_key")
    assert one == again != other
    assert first not in str(upstream.requests[0]["body"])


def test_what_the_client_says_itself_holds(alice: ApiClient, upstream: OpenAIDouble) -> None:
    ask(alice, safety_identifier="s", prompt_cache_key="p")

    assert (sent(upstream, "safety_identifier"), sent(upstream, "prompt_cache_key")) == (["s"], ["p"])


# --- upstreams that do not know a field ---


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_is_asked_again_without_what_it_refuses(
    alice: ApiClient, upstream: OpenAIDouble, dialect: Dialect, stream: bool
) -> None:
    """It is remembered: only the first turn of a process is refused. A refused request costs nothing."""
    ClientToken.objects.update(day_tokens=10**6)  # which bounds each reply
    cid = alice.conversation()
    for _ in range(3):
        answer = alice.say(cid, "Hi", stream=stream)
        assert answer.status_code == 200, answer.content
        if stream:
            assemble(events(answer))

    assert len(upstream.requests) == 3
    assert len(upstream.refused) <= 5
    assert UsageEvent.objects.filter(status="completed").count() == UsageEvent.objects.count() == 3
    bounds = {"max_tokens", "max_completion_tokens"} & set(upstream.requests[-1]["body"])
    assert bounds == {"max_tokens" if dialect in (MISTRAL, VLLM_OLD) else "max_completion_tokens"}


@pytest.mark.parametrize(("dialect", "name"), [(MISTRAL, "max_tokens"), (LLAMA_CPP, "max_completion_tokens")])
def test_a_bound_goes_by_the_name_that_the_upstream_knows(
    alice: ApiClient, upstream: OpenAIDouble, dialect: Dialect, name: str
) -> None:
    upstream.dialect = dialect

    assert ask(alice, max_completion_tokens=7).status_code == 200
    assert sent(upstream, name) == [7]


@pytest.mark.usefixtures("luna")
def test_a_client_that_sends_the_old_bound_to_a_new_model(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert ask(alice, max_tokens=7).status_code == 200
    assert sent(upstream, "max_completion_tokens") == [7]


def test_a_client_is_told_of_its_own_field(alice: ApiClient, upstream: OpenAIDouble) -> None:
    answer = ask(alice, reasoning_effort="low")  # gpt-4o-mini does not think

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "reasoning_effort")
    assert ask(alice).status_code == 200


def test_a_value_that_is_too_high_is_the_clients(alice: ApiClient, upstream: OpenAIDouble) -> None:
    error = {"message": "max_tokens is too large: 9. It must be at most 4.", "param": "max_tokens", "code": None}
    upstream.plan(Behaviour(status=400, error=error))

    answer = ask(alice, max_tokens=9)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("message", "bounds"),
    [
        ("max_completion_tokens is too large: 4096. This model supports at most 2048 completion tokens.", [4096, 2048]),
        ("`max_completion_tokens` must be less than or equal to `1024`", [4096, 1024]),
        ("'max_completion_tokens' is too large: 4096.", [4096, 2048]),
    ],
)
@pytest.mark.parametrize("param", ["max_completion_tokens", None])
def test_our_own_bound_that_is_too_high_is_lowered(
    alice: ApiClient, upstream: OpenAIDouble, message: str, bounds: list[int], param: str | None
) -> None:
    """A budget never breaks an upstream that worked without one, and never lets a turn go without a bound."""
    ClientToken.objects.update(day_tokens=10**6)
    upstream.plan(Behaviour(status=400, error={"message": message, "param": param, "code": None}))

    assert ask(alice).status_code == 200
    assert sent(upstream, "max_completion_tokens") == bounds


def test_a_reply_that_does_not_fit_beside_its_prompt_is_bound_lower(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """vLLM's words. They are of this prompt, so nothing is remembered."""
    ClientToken.objects.update(day_tokens=10**6)
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 8192 "
        "tokens and your request has 5000 input tokens (4096 > 8192 - 5000)."
    )
    upstream.plan(Behaviour(status=400, error={"message": message, "param": None, "code": None}))

    assert [ask(alice).status_code for _ in range(2)] == [200, 200]
    assert sent(upstream, "max_completion_tokens") == [4096, 2048, 4096]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"message": "Invalid value: 'stream_options'. Supported values are: 'text'.", "param": None}},
        {"error": {"message": "bad", "param": "response_format.type"}},
        {"error": {"message": "unknown field `x`, expected one of `model`, `stream_options`, `safety_identifier`"}},
        {
            "detail": [
                {"msg": "Field required", "loc": ["body", "z"], "input": {"stream_options": 1, "prompt_cache_key": 2}}
            ]
        },
        {"error": {"message": "content_filter: how do I use stream_options, which is unknown to me"}},
    ],
)
@pytest.mark.django_db(transaction=True)
def test_nothing_is_learnt_from_a_refusal_of_something_else(
    alice: ApiClient, upstream: OpenAIDouble, answer: Any
) -> None:
    upstream.plan(Behaviour(status=400, raw=json.dumps(answer).encode()))
    question = "how do I use stream_options, which is unknown to me"

    refused = alice.say(alice.conversation(), question, stream=True)
    b"".join(alice.say(alice.conversation(), "Hi", stream=True).streaming_content)

    assert refused.status_code in {400, 502}
    assert {"stream_options", "safety_identifier", "prompt_cache_key"} <= set(upstream.requests[-1]["body"])


@pytest.mark.parametrize("status", [401, 429, 500])
def test_nothing_is_learnt_from_another_status(alice: ApiClient, upstream: OpenAIDouble, status: int) -> None:
    upstream.plan(Behaviour(status=status, error={"message": "unknown parameter: safety_identifier", "code": None}))

    assert ask(alice).status_code in {429, 502}
    assert len(upstream.requests) == 1


def test_a_prompt_that_names_the_bound_does_not_lose_it(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """Its words may be what a refusal quotes, so nothing is remembered; the other name is tried all the same."""
    ClientToken.objects.update(day_tokens=10**6)
    upstream.dialect = MISTRAL

    answer = ask(alice, messages=[{"role": "user", "content": "what is max_completion_tokens?"}])

    assert answer.status_code == 200
    assert sent(upstream, "max_tokens") == [4096]


@pytest.mark.parametrize("quoting", ["Hi", "what are max_tokens and max_completion_tokens?"])
def test_an_upstream_that_knows_no_bound_is_not_asked_for_ever(
    alice: ApiClient, upstream: OpenAIDouble, quoting: str
) -> None:
    """The client is told of the bound that it has sent."""
    upstream.choose = lambda body: next(
        (
            Behaviour(status=400, error={"message": f"Unknown parameter: '{name}'.", "param": name, "code": None})
            for name in ("max_tokens", "max_completion_tokens")
            if name in body
        ),
        None,
    )

    answer = ask(alice, messages=[{"role": "user", "content": quoting}], max_completion_tokens=9)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in {"max_tokens", "max_completion_tokens"}
    assert len(upstream.requests) <= 4


def test_an_upstream_that_refuses_without_a_name(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(status=400, error={"message": "Extra inputs are not permitted", "code": None}))

    assert ask(alice).status_code == 200
    assert "safety_identifier" not in upstream.requests[-1]["body"]


@pytest.mark.django_db(transaction=True)
def test_first_requests_at_once_all_learn(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.dialect = MISTRAL
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(ask, alice) for _ in range(6)]
        wait_until(lambda: len(upstream.requests) == 6)
        gate.set()

        assert [each.result().status_code for each in running] == [200] * 6


# --- forms of messages ---


@pytest.mark.parametrize(
    ("words", "first", "then"),
    [
        ("unknown variant `developer`, expected one of `system`", {"role": "developer"}, {"role": "system"}),
        ("Unsupported: messages[0].name", {"name": "ann"}, {}),
    ],
)
def test_a_form_that_an_upstream_does_not_take_is_learnt(
    alice: ApiClient, upstream: OpenAIDouble, words: str, first: dict[str, Any], then: dict[str, Any]
) -> None:
    plain = {"role": "user", "content": "Hi"}
    upstream.plan(Behaviour(status=400, error={"message": words, "code": None}))

    for _ in range(2):
        assert alice.send(URL, {"messages": [{**plain, **first}, plain]}).status_code == 200

    assert [request["body"]["messages"][0] for request in upstream.requests] == [
        *({**plain, **form} for form in (first, then, then)),
    ]


def test_call_ids_that_an_upstream_does_not_take_are_made_short(alice: ApiClient, upstream: OpenAIDouble) -> None:
    words = "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."
    upstream.plan(Behaviour(status=400, error={"message": words, "code": None}))
    call = {"id": "call_1", "type": "function", "function": {"name": "w", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    ]

    assert alice.send(URL, {"messages": messages}).status_code == 200
    _, called, answered = upstream.requests[-1]["body"]["messages"]
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert len(answered["tool_call_id"]) == 9


@pytest.mark.parametrize("status", [400, 413])
def test_a_picture_that_is_gone_ends_no_conversation(alice: ApiClient, upstream: OpenAIDouble, status: int) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/expired.png"}}
    cid = alice.conversation()
    content = [{"type": "text", "text": "look"}, picture]
    alice.send(URL, {"conversation_id": cid, "messages": [{"role": "user", "content": content}]})
    error = {"message": "Error while downloading the image.", "code": "invalid_image_url", "param": None}
    upstream.plan(Behaviour(status=status, error=error))

    assert alice.say(cid, "and now?").status_code == 200
    assert upstream.requests[-1]["body"]["messages"][0]["content"] == "look\n[image_url]"


def test_where_a_refusal_points_into_the_history_no_message_of_the_client_is_blamed(
    alice: ApiClient, upstream: OpenAIDouble
) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi")
    for index, param in ((2, "messages[0].content"), (0, None)):
        error = {"message": "too long", "param": f"messages[{index}].content", "code": None}
        upstream.plan(Behaviour(status=400, error=error))
        assert alice.say(cid, "Ho").json()["error"]["param"] == param


# --- how hard the model thinks ---


@pytest.mark.parametrize(
    ("model", "setting", "fields", "effort"),
    [
        (LUNA, "none", {}, "none"),
        (LUNA, "low", {}, "low"),
        (LUNA, "low", {"tools": TOOLS}, "none"),
        (LUNA, "low", {"temperature": 0.5}, "none"),
        (LUNA, "none", {"reasoning_effort": "high"}, ""),
        ("gpt-5.1", "none", {}, "none"),
        ("gpt-5", "none", {}, ""),
        ("gpt-5", "low", {}, "low"),
        ("o3", "none", {"tools": TOOLS}, ""),
        ("gpt-4o-mini", "low", {}, ""),
        ("mistral-small", "low", {}, ""),
    ],
)
def test_effort(settings: Settings, model: str, setting: str, fields: dict[str, Any], effort: str) -> None:
    settings.OPENAI_REASONING_EFFORT = setting

    assert default_effort(model, fields) == effort


@pytest.mark.usefixtures("luna")
@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS}, {"temperature": 0.5, "top_p": 0.5}])
@pytest.mark.parametrize("effort", ["none", "low"])
def test_the_default_model_takes_what_clients_send(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, fields: dict[str, Any], effort: str
) -> None:
    settings.OPENAI_REASONING_EFFORT = effort

    assert ask(alice, **fields).status_code == 200
    assert refusal_of(upstream.requests[0]["body"]) is None


@pytest.mark.usefixtures("luna")
@pytest.mark.parametrize("effort", ["none", "low", "medium", "high"])
def test_a_budget_leaves_room_for_thinking(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, effort: str
) -> None:
    settings.OPENAI_REASONING_EFFORT = effort
    ClientToken.objects.update(day_tokens=10**6)
    upstream.plan(Behaviour(reasoning=4096))

    answer = ask(alice).json()

    assert answer["reply"] == "echo: Hi"
    bound = 4096 + {"none": 0, "low": 4096, "medium": 16_384, "high": 24_576}[effort]
    assert sent(upstream, "max_completion_tokens") == [bound]
    assert most_reply_tokens(LUNA, {"reasoning_effort": effort}) == bound


@pytest.mark.usefixtures("luna")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_thinking_has_eaten_is_told_as_such(
    alice: ApiClient, upstream: OpenAIDouble, stream: bool
) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(reasoning=50))

    answer = alice.say(cid, "Hi", stream=stream, reasoning_effort="low", max_completion_tokens=50)

    last = events(answer)[-2] if stream else answer.json()
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["incomplete_details"] == {"reason": "max_output_tokens"}
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code, usage.reasoning_tokens) == ("completed", "empty_reply", 50)
    assert Message.objects.get(role="assistant").content == ""
    assert alice.say(cid, "Hello?").status_code == 200
    assert [message["role"] for message in upstream.requests[-1]["body"]["messages"]] == ["user", "user"]


def test_every_dialect_is_known_by_a_name() -> None:
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS) == 11
