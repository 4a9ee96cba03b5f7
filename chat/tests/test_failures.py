"""A turn that fails: of the upstream, of our own, or because its conversation is gone."""

import io
import logging

import pytest
from pytest_django import Settings

from analytics import fairness
from analytics.ledger import refusals
from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Conversation, Message
from chat.turns import lifecycle
from conftest import ApiClient
from llmapi.log_formats import LogfmtFormatter


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "retry", "tokens"),
    [
        (Behaviour(status=500), 502, "upstream_error", None, 0),
        (Behaviour(status=503, headers={"Retry-After": "7"}), 502, "upstream_error", None, 0),
        (Behaviour(status=429), 429, "upstream_rate_limited", None, 0),
        (
            Behaviour(status=429, error={"message": "pay", "code": "insufficient_quota"}),
            502,
            "upstream_error",
            "false",
            0,
        ),
        (Behaviour(status=401), 502, "upstream_error", "false", 0),
        (Behaviour(status=404), 502, "upstream_error", "false", 0),
        (Behaviour(status=400), 400, "invalid_request", None, 0),
        (
            Behaviour(status=400, error={"message": "x", "code": "context_length_exceeded"}),
            400,
            "context_length_exceeded",
            None,
            0,
        ),
        (Behaviour(raw=b"<html>"), 502, "upstream_error", "false", 5),
        (Behaviour(raw=b"{}"), 502, "upstream_error", "false", 5),
        (Behaviour(raw=b'{"choices": []}'), 502, "upstream_error", "false", 5),
        (Behaviour(raw=b'{"choices": [{"message": {"content": 5}}]}'), 502, "upstream_error", "false", 5),
        (Behaviour(raw=b"[" * 9999), 502, "upstream_error", "false", 5),
        (Behaviour(cut=True), 502, "upstream_error", "false", 5),
        (Behaviour(refuse=True), 502, "upstream_error", "false", 5),
    ],
)
def test_an_upstream_failure_is_told_and_recorded(
    alice: ApiClient,
    upstream: OpenAIDouble,
    behaviour: Behaviour,
    status: int,
    code: str,
    retry: str | None,
    tokens: int,
) -> None:
    """What OpenAI may have billed without a figure is booked as the prompt's estimate."""
    upstream.plan(behaviour)

    answer = alice.say(alice.conversation(), "Hi")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == retry
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code, usage.total_tokens) == ("failed", code, tokens)
    assert AnalyticsEvent.objects.get().event_name == "chat.failed"
    assert Message.objects.count() == 0
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("behaviour", [Behaviour(delay=1), Behaviour(dribble=0.05)])
def test_a_slow_upstream_is_a_504(
    alice: ApiClient, upstream: OpenAIDouble, settings: Settings, behaviour: Behaviour
) -> None:
    settings.UPSTREAM_TIMEOUT_SECONDS = 0.2
    upstream.plan(behaviour)

    answer = alice.say(alice.conversation(), "Hi")

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert answer["x-should-retry"] == "false"
    assert UsageEvent.objects.get().error_code == "upstream_timeout"


def test_with_a_key_a_retry_is_safe_and_not_forbidden(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(cut=True))

    answer = alice.say(alice.conversation(), "Hi", key="k")

    assert answer.status_code == 502
    assert "x-should-retry" not in answer


def test_an_upstream_that_is_not_there(alice: ApiClient, settings: Settings, port: int) -> None:
    settings.OPENAI_BASE_URL = f"http://127.0.0.1:{port}/v1"

    answer = alice.say(alice.conversation(), "Hi")

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert "x-should-retry" not in answer  # nothing was bought


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("OPENAI_API_KEY", "\u201csk-curly-quotes\u201d"),
        ("OPENAI_API_KEY", "sk-line\nend"),
        ("OPENAI_BASE_URL", "127.0.0.1:9/v1"),
        ("OPENAI_BASE_URL", "http://[::1/v1"),
        ("OPENAI_BASE_URL", "http://no.such.host.invalid/v1"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("HTTP_PROXY", "ftp://127.0.0.1:9"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.django_db(transaction=True)
def test_what_never_left_the_machine_costs_nothing(
    alice: ApiClient,
    upstream: OpenAIDouble,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: str,
    stream: bool,
) -> None:
    """The SDK is told not to send it again where that cannot help."""
    cid = alice.conversation()
    with monkeypatch.context() as patch:
        if setting.endswith("PROXY"):
            patch.setenv(setting, value)
            settings.OPENAI_BASE_URL = "http://example.invalid/v1"
        else:
            setattr(settings, setting, value)
        answer = alice.say(cid, "Hi", stream=stream)

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens, usage.is_estimated) == ("failed", 0, False)
    assert upstream.requests == []


@pytest.mark.parametrize("key", [None, "k"])
def test_our_own_bug_is_bought_once(alice: ApiClient, upstream: OpenAIDouble, key: str | None) -> None:
    """Without a key the SDK must not try again by itself: each try would buy the answer anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat.upstream.replies.Reply.completion", lambda self: 1 / 0)
        answer = alice.say(alice.conversation(), "Hi", key=key)

    assert answer.status_code == 500
    assert answer.headers.get("x-should-retry") == (None if key else "false")
    assert UsageEvent.objects.get().is_estimated


def test_retry_after_of_the_upstream_is_passed_on(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(status=429, headers={"Retry-After": "7"}), Behaviour(status=429))

    assert [alice.say(alice.conversation(), "Hi")["Retry-After"] for _ in range(2)] == ["7", "5"]


def test_limits_of_the_upstream_are_no_refusal_of_ours(alice: ApiClient, upstream: OpenAIDouble) -> None:
    upstream.plan(Behaviour(status=429))

    assert alice.say(alice.conversation(), "Hi").status_code == 429
    assert refusals._counted == {}


def test_no_secret_prompt_or_reply_is_told_or_logged(
    alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    handler = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, LogfmtFormatter))
    monkeypatch.setattr(handler, "stream", log)
    upstream.plan(
        Behaviour(status=401, error={"message": "Incorrect API key provided: sk-test-0123456789"}),
        Behaviour(),
        Behaviour(raw=b"bought reply"),
    )
    cid = alice.conversation()

    answers = [alice.say(cid, "my secret prompt") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [502, 200, 502]
    printed = log.getvalue()
    assert "status=502" in printed
    for secret in ("sk-test", "secret prompt", "bought reply", alice.token):
        assert secret not in printed
    assert b"sk-test" not in answers[0].content


def test_a_bug_is_a_500_without_traceback_and_frees_the_key(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat.upstream.replies.Reply.completion", lambda self: 1 / 0)
        answer = alice.say(cid, "Hi", key="k")

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert b"ZeroDivision" not in answer.content
    assert UsageEvent.objects.get().error_code == "internal_error"
    assert alice.say(cid, "Hi", key="k").status_code == 200


@pytest.mark.parametrize("key", [None, "k"])
def test_a_bug_while_settling_loses_no_cost(alice: ApiClient, upstream: OpenAIDouble, key: str | None) -> None:
    cid = alice.conversation()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Message, "columns_of", lambda *args, **kwargs: 1 / 0)
        answer = alice.say(cid, "Hi", key=key)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.total_tokens) == ("failed", upstream.sold[0]["total_tokens"])
    assert Message.objects.count() == 0
    assert alice.say(cid, "Hi", key=key).status_code == 200


def test_a_conversation_deleted_meanwhile(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    original = fairness.close_connection

    def delete() -> None:
        original()
        Conversation.objects.all().delete()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "close_connection", delete)
        answer = alice.say(cid, "Hi", key="k")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "conversation_not_found")
    assert UsageEvent.objects.get().total_tokens == upstream.sold[0]["total_tokens"]
    assert Message.objects.count() == 0
