"""What providers send that is no good answer: it is never passed for one, and told by the status that it stands for."""

import io
import json
import logging
from typing import Any

import pytest

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey, Message
from chat.tests.provider_shapes import DONE, HI, STOP, USAGE, C, E, U, say, sse
from chat.tests.streaming import events
from conftest import ApiClient
from llmapi.log_formats import LogfmtFormatter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([HI], id="text and nothing else"),
        pytest.param([HI, E({"error": {"message": "overloaded", "code": 529}}), DONE], id="an error"),
        pytest.param([HI, E({"error": "overloaded"}), DONE], id="an error that is a word"),
        pytest.param(
            [HI, b'event: error\ndata: {"message": "overloaded", "code": 503}\n\n', DONE], id="an error event"
        ),
        pytest.param([HI, E({"object": "error", "message": "x", "code": 500}), DONE], id="vLLM's"),
        pytest.param([HI, C({"content": ""}, "error"), DONE], id="an error for a reason (OpenRouter)"),
        pytest.param([HI, C({}, "insufficient_system_resource"), DONE], id="DeepSeek's"),
        pytest.param([HI, C({}, "function_call_filter: MALFORMED_FUNCTION_CALL"), DONE], id="Google's"),
        pytest.param([HI, b'error: {"code":500,"message":"boom","type":"server_error"}\n\n', DONE], id="llama.cpp's"),
        pytest.param([HI, b"event: error\ndata: upstream overloaded\n\n", DONE], id="an error event of words"),
        pytest.param([HI, b'data: {"choices": [{"delta": {"content": "l\n\n', STOP, DONE], id="half a chunk"),
    ],
)
def test_a_bad_stream_is_never_passed_for_good(alice: ApiClient, upstream: OpenAIDouble, parts: list[bytes]) -> None:
    upstream.plan(sse(*parts))

    chunks = events(say(alice, key="k"))

    assert chunks[-2]["error"]["code"] == "upstream_error"
    assert not [chunk for chunk in chunks[:-2] if chunk["choices"][0]["finish_reason"]]
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code) == ("failed", "upstream_error")
    assert usage.total_tokens > 0
    assert Message.objects.count() == IdempotencyKey.objects.count() == 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"error": {"message": "overloaded", "code": 529}}, 502, "upstream_error"),
        ({"error": {"message": "overloaded", "type": "overloaded_error"}}, 502, "upstream_error"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 502, "upstream_error"),
        ({"error": "upstream connect error"}, 502, "upstream_error"),
        ({"error": {"message": "slow down", "code": 429}}, 429, "upstream_rate_limited"),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        ([{"error": {"message": "x", "code": 429, "status": "RESOURCE_EXHAUSTED"}}], 429, "upstream_rate_limited"),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, 400, "invalid_request"),
        ({"detail": "Not authenticated"}, 502, "upstream_error"),
        ({"errors": [{"message": "no", "code": 10000}]}, 502, "upstream_error"),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 502, "upstream_error"),
        ({"error": {"message": "This model's maximum context length is 8192 tokens."}}, 400, "context_length_exceeded"),
        (
            {
                "error": {
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                    "code": 400,
                }
            },
            400,
            "context_length_exceeded",
        ),
    ],
)
def test_an_error_under_200_has_the_status_that_it_stands_for(
    alice: ApiClient,
    upstream: OpenAIDouble,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    status: int,
    code: str,
    stream: bool,
) -> None:
    log = io.StringIO()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, LogfmtFormatter))
    monkeypatch.setattr(handler, "stream", log)
    as_events = sse(C({"role": "assistant", "content": ""}), E(answer), DONE)
    upstream.plan(as_events if stream else Behaviour(raw=json.dumps(answer).encode()))

    told = say(alice, stream=stream)

    assert (told.status_code, told.json()["error"]["code"]) == (status, code)
    assert told.headers.get("x-should-retry") != "false" or "operator" in told.json()["error"]["message"]
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens) == ("failed", 0)
    words = json.dumps(answer).split('"message": "')[-1].split('"')[0] if "message" in json.dumps(answer) else ""
    assert words in log.getvalue()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "answer", "told", "code"),
    [
        (413, {"error": {"message": "TPM", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, 502, "upstream_error"),
        (402, {"error": {"message": "Insufficient Balance"}}, 502, "upstream_error"),
        (500, {"error": {"message": "maximum context length is 4096 tokens"}}, 400, "context_length_exceeded"),
        (500, {"error": {"message": "x", "code": "rate_limit_exceeded"}}, 429, "upstream_rate_limited"),
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "too high"}]}, 400, "invalid_request"),
        (429, "<html>slow down</html>", 429, "upstream_rate_limited"),
        (524, "<html>a timeout occurred</html>", 504, "upstream_timeout"),
        (403, "<html>blocked</html>", 502, "upstream_error"),
    ],
)
def test_an_error_under_a_wrong_status(
    alice: ApiClient, upstream: OpenAIDouble, status: int, answer: Any, told: int, code: str, stream: bool
) -> None:
    raw = answer if isinstance(answer, str) else json.dumps(answer)
    upstream.plan(Behaviour(status=status, raw=raw.encode()))

    found = say(alice, stream=stream)

    assert (found.status_code, found.json()["error"]["code"]) == (told, code)
    # A gateway that gave up may have passed the request on.
    assert UsageEvent.objects.get().total_tokens == (5 if told == 504 else 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        [C({"role": "assistant"}), C({}, "MALFORMED_FUNCTION_CALL", usage={**USAGE, "total_tokens": 3095})],
        [E({"error": {"message": "x"}, "choices": [], "usage": {**USAGE, "total_tokens": 3095}})],
        [HI, E({"error": {"message": "x"}, "usage": {**USAGE, "total_tokens": 3095}})],
        [HI, U(prompt_tokens=5, completion_tokens=2, total_tokens=3095)],
    ],
)
def test_what_a_failure_says_it_sold_is_booked(
    alice: ApiClient, upstream: OpenAIDouble, parts: list[bytes], stream: bool
) -> None:
    """And the SDK is told not to buy it again."""
    upstream.plan(sse(*parts))

    answer = say(alice, stream=stream)

    if answer.status_code == 200:
        assert events(answer)[-2]["error"]["code"] == "upstream_error"
    else:
        assert (answer.status_code, answer["x-should-retry"]) == (502, "false")
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens, usage.is_estimated) == ("failed", 3095, False)


@pytest.mark.parametrize(
    ("status", "answer", "told", "retry"),
    [
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, 502, "false"),
        (400, {"error": {"message": "API key not valid.", "status": "INVALID_ARGUMENT", "code": 400}}, 502, "false"),
        (429, {"error": {"message": "Insufficient balance, please recharge", "code": "1113"}}, 502, "false"),
        (429, {"error": {"type": "exceeded_current_quota_error", "message": "x"}}, 502, "false"),
        (413, {"error": {"message": "Request too large: Limit 6000", "code": "rate_limit_exceeded"}}, 400, None),
        (424, {"message": "model error"}, 502, None),
    ],
)
def test_whose_trouble_it_is(
    alice: ApiClient, upstream: OpenAIDouble, status: int, answer: Any, told: int, retry: str | None
) -> None:
    upstream.plan(Behaviour(status=status, raw=json.dumps(answer).encode()))

    found = say(alice, stream=False)

    assert (found.status_code, found.headers.get("x-should-retry")) == (told, retry)
    assert b"xa***" not in found.content


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"Retry-After": "7"}, "", "7"),
        ({"Retry-After": "3600"}, "", "120"),
        ({"retry-after-ms": "2500"}, "", "3"),
        ({"Retry-After": "20s"}, "", "20"),
        ({}, "Rate limit reached. Please try again in 20.387s.", "21"),
        ({}, "slow down", "5"),
    ],
)
def test_the_providers_wait_is_passed_on(
    alice: ApiClient, upstream: OpenAIDouble, headers: dict[str, str], message: str, seconds: str
) -> None:
    upstream.plan(Behaviour(status=429, headers=headers, error={"message": message, "code": "rate_limit_exceeded"}))

    assert say(alice, stream=False)["Retry-After"] == seconds


def test_an_error_body_is_bounded(alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status says what there is to know: nothing was sold."""
    monkeypatch.setattr("chat.upstream.client.ERROR_BODY_SECONDS", 0.2)
    for behaviour in (
        Behaviour(status=429, raw=b"x" * 60, dribble=0.05),
        Behaviour(status=429, raw=b"x" * 200_000),
        Behaviour(status=429, raw=b"x" * 60, cut=True),
        Behaviour(status=429, raw=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ):
        upstream.plan(behaviour)
        assert say(alice, stream=False).json()["error"]["code"] == "upstream_rate_limited"
    assert not UsageEvent.objects.filter(total_tokens__gt=0).exists()


def test_words_that_are_no_json_are_read(alice: ApiClient, upstream: OpenAIDouble) -> None:
    words = b"This model's maximum context length is 4096 tokens."
    for raw in (words, b"data: " + json.dumps({"error": {"message": words.decode()}}).encode() + b"\n\n"):
        upstream.plan(Behaviour(status=400, raw=raw))
        assert say(alice, stream=False).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("text", ["my secret " * 60, 'my secret "quoted"\nprompt'])
def test_a_prompt_that_a_provider_quotes_is_not_logged(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    log = io.StringIO()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, LogfmtFormatter))
    monkeypatch.setattr(handler, "stream", log)
    for quoted in (text, json.dumps(text), repr(text)):
        upstream.plan(Behaviour(status=500, error={"message": f"cannot answer {quoted}", "code": None}))
        alice.say(alice.conversation(), text)

    assert "cannot answer" in log.getvalue()
    assert "my secret" not in log.getvalue()


@pytest.mark.parametrize(("behaviour", "tokens"), [(sse(DONE), 5), (sse(b": nothing\n\n"), 5), (Behaviour(raw=b""), 5)])
def test_no_reply_at_all(alice: ApiClient, upstream: OpenAIDouble, behaviour: Behaviour, tokens: int) -> None:
    upstream.plan(behaviour)

    answer = say(alice)

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert UsageEvent.objects.get().total_tokens == tokens
