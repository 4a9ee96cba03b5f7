"""Which part of a conversation's history is sent."""

from typing import Any

import pytest
from pytest_django import Settings

from bench.openai_double import OpenAIDouble
from chat.estimates import (
    context_tokens,
    estimate_message,
    estimate_parameters,
    most_reply_tokens,
)
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

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    # These words are what frameworks look for.
    assert error["message"].startswith("This model's maximum context length is 512 tokens. However, your messages ")
    assert "resulted in 1004 tokens" in error["message"]
    assert upstream.requests == []


def test_windows_come_from_the_price_list(settings: Settings) -> None:
    assert context_tokens("gpt-4o-mini") == 128_000


def pdf(size: int) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * (size * 4 // 3)}}


def audio(seconds: int, kind: str, rate: int) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": "A" * (seconds * rate * 4 // 3), "format": kind}}


@pytest.mark.parametrize(
    ("part", "likely", "most"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000_000}}, 1500, 1500),
        (pdf(500_000), 22_000, 153_000),
        (pdf(15_000_000), 50_000, 4_503_000),
        ({"type": "file", "file": {"file_id": "file_1"}}, 2000, 75_000),
        ({"type": "file", "file": {"file_data": "data:text/plain;base64," + "A" * 39_977}}, 10_000, 30_000),
        ({"type": "file", "file": {"file_data": "data:application/x-ndjson;base64," + "A" * 39_968}}, 10_000, 30_000),
        ({"type": "file", "file": {"file_data": "A" * 40_000, "filename": "table.CSV"}}, 10_000, 30_000),
        ({"type": "file", "file": {"file_data": "data:text/plain," + "a" * 29_984}}, 10_000, 30_000),
        (audio(60, "wav", 32_000), 600, 2400),
        (audio(60, "mp3", 16_000), 600, 9600),
    ],
)
def test_what_is_no_text_is_estimated_flat(part: dict[str, Any], likely: int, most: int) -> None:
    estimate = estimate_message({"role": "user", "content": [part]})

    assert (estimate.likely - 4, estimate.most - 4) == (likely, most)


@pytest.mark.parametrize("part", [{"type": "file"}, {"type": "input_audio", "input_audio": "x"}, {"type": "image_url"}])
def test_parts_that_were_stored_unread_are_estimated(part: dict[str, Any]) -> None:
    assert estimate_message({"role": "user", "content": [part]}).likely >= 4


def test_a_prediction_may_be_billed_with_the_reply() -> None:
    prediction = {"type": "content", "content": "x" * 1000}

    assert most_reply_tokens("gpt-4o", {"max_tokens": 10, "prediction": prediction}) >= 1010


def test_fields_that_only_the_upstream_knows_are_part_of_the_prompt(settings: Settings) -> None:
    settings.UPSTREAM_FIELDS = ["documents"]

    assert estimate_parameters({"documents": ["x" * 1000]}).most > 1000
