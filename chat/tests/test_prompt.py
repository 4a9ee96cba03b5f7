"""Which part of a conversation's history is sent."""

from typing import Any

from pytest_django import Settings

from bench.openai_double import OpenAIDouble
from chat.estimates import context_tokens, estimate_message
from chat.models import Message
from conftest import ApiClient

MODEL = "smollm2-135m"


def sent(upstream: OpenAIDouble) -> list[str]:
    return [message["content"] for message in upstream.requests[-1]["body"]["messages"]]


def test_the_oldest_turns_are_left_out_whole(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 512
    cid = alice.conversation()
    answers: list[dict[str, Any]] = [alice.say(cid, f"{n} " + "x" * 150, model=MODEL).json() for n in range(5)]

    texts = sent(upstream)
    assert answers[0]["history_truncated"] is False
    assert answers[-1]["history_truncated"] is True
    assert texts[0].startswith("2 x")
    assert texts[1].startswith("echo: 2 x")
    assert texts[-1].startswith("4 x")
    assert sum(estimate_message({"content": text}).likely for text in texts) <= 512 * 3 / 4
    assert Message.objects.count() == 10


def test_a_message_that_cannot_fit_is_refused(alice: ApiClient, upstream: OpenAIDouble, settings: Settings) -> None:
    settings.OPENAI_CONTEXT_TOKENS = 512

    answer = alice.say(alice.conversation(), "x" * 3000, model=MODEL)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert upstream.requests == []


def test_windows_come_from_the_price_list(settings: Settings) -> None:
    assert context_tokens("gpt-4o-mini") == 128_000
