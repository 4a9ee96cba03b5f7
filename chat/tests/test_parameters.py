"""What llmapi adds to a request: who is behind it, how hard the model thinks, and room for that in its bound."""

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
from conftest import ApiClient

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


def test_our_own_bound_that_is_too_high_is_left_out(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """A budget never breaks an upstream that worked without one."""
    ClientToken.objects.update(day_tokens=10**6)
    error = {"message": "max_completion_tokens is too large: 4096.", "param": "max_completion_tokens"}
    again = {"message": "max_tokens is too large: 4096.", "param": "max_tokens"}
    upstream.plan(Behaviour(status=400, error=error), Behaviour(status=400, error=again))

    assert ask(alice).status_code == 200
    assert not {"max_tokens", "max_completion_tokens"} & set(upstream.requests[-1]["body"])


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
