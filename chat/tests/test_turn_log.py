"""The line in the log that tells how a turn was settled."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from analytics import ledger
from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey
from chat.turns import lifecycle, recovery
from chat.upstream.words import Heard, without_known
from conftest import ApiClient


def turns_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "turn"]


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def test_a_turn_is_one_line(alice: ApiClient, upstream: OpenAIDouble, caplog: pytest.LogCaptureFixture) -> None:
    upstream.plan(Behaviour(cached=3, model="gpt-4o-mini-2024-07-18"))
    cid = alice.conversation()

    answer = alice.say(cid, "Hi", user="zoe@example.com")

    (told,) = turns_in(caplog)
    row = UsageEvent.objects.get()
    expected = {
        "request_id": answer["x-request-id"],
        "client": "alice",
        "client_id": alice.token_row.pk,
        "user": ledger.pseudonym("zoe@example.com"),
        "conversation": cid,
        "model": "gpt-4o-mini",
        "served_model": "gpt-4o-mini-2024-07-18",
        "status": "completed",
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": 3,
        "completion_tokens": row.completion_tokens,
        "latency_ms": row.latency_ms,
        "upstream_status": 200,
    }
    assert {name: told[name] for name in expected} == expected
    assert told["cost_usd"] == (row.cost_nanos or 0) / 1e9 > 0
    assert "zoe" not in str(told)


def test_a_failed_turn_tells_what_the_provider_said(
    alice: ApiClient, upstream: OpenAIDouble, caplog: pytest.LogCaptureFixture
) -> None:
    error = {"message": "The server is overloaded", "code": "overloaded_error"}
    upstream.plan(Behaviour(status=503, error=error, headers={"x-request-id": "req_9"}))

    alice.say(alice.conversation(), "Hi")

    (told,) = turns_in(caplog)
    assert (told["status"], told["code"]) == ("failed", "upstream_error")
    assert (told["upstream_status"], told["upstream_request_id"]) == (503, "req_9")
    assert (told["upstream_code"], told["upstream_error"]) == ("overloaded_error", "The server is overloaded")


def test_a_superseded_turn_is_told_as_abandoned(
    alice: ApiClient, upstream: OpenAIDouble, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = lifecycle.complete

    def lose_the_key(turn: Any) -> Any:
        IdempotencyKey.objects.update(request_id="r_other")
        return original(turn)

    monkeypatch.setattr(lifecycle, "complete", lose_the_key)

    alice.say(alice.conversation(), "Hi", key="k")

    (told,) = turns_in(caplog)
    row = UsageEvent.objects.get()
    assert (told["status"], told["code"]) == (row.status, row.error_code) == ("abandoned", "superseded")


def test_a_turn_that_died_is_told_once_it_is_closed(
    alice: ApiClient,
    upstream: OpenAIDouble,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    request_id = alice.say(alice.conversation(), "Hi")["x-request-id"]
    UsageEvent.objects.update(status="pending", finished_at=None, locked_until=timezone.now() - timedelta(minutes=1))
    caplog.clear()

    def fail(abandoned: Any) -> None:
        raise DatabaseError

    with monkeypatch.context() as patch, django_capture_on_commit_callbacks(execute=True):
        patch.setattr(recovery, "release", fail)
        with pytest.raises(DatabaseError), transaction.atomic():
            recovery.settle_all_abandoned()
    assert turns_in(caplog) == []

    with django_capture_on_commit_callbacks(execute=True):
        assert recovery.settle_all_abandoned() == (1, 0)
    (told,) = turns_in(caplog)
    assert (told["request_id"], told["status"], told["code"]) == (request_id, "abandoned", "abandoned")
    assert told["latency_ms"] is None


def test_a_turn_that_cannot_be_settled_is_not_told_as_settled(
    alice: ApiClient, upstream: OpenAIDouble, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise DatabaseError

    monkeypatch.setattr("chat.turns.settling.budget_differences", fail)

    assert alice.say(alice.conversation(), "Hi").status_code == 500
    assert turns_in(caplog) == []


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("This model's maximum context length is 8192 tokens.", "This model's maximum context length is 8192 tokens."),
        ("no Sphinx, then sphi, then SPHINX-quartz", "no […], then […], then […]"),
        (r"{\"input\":\"a\nsphinx\" and \u0073phinx}", r"{\"input\":\"a […]\" and […]}"),
        ("黒 is not allowed, 白 is", "[…] is not allowed, 白 is"),
        ("key sk-0123456789abc, Bearer abcdefghijk", "[key], [key]"),
        ("test-01234", "[…]"),
        ("x" * 41, "[…]"),
    ],
)
def test_words_of_the_request_are_left_out(words: str, left: str) -> None:
    assert without_known(words, ["maximum sphinx of black quartz", "黒い石英のスフィンクス"]) == left


def test_words_beside_a_long_prompt_are_not_told() -> None:
    heard = Heard()
    heard.note_error("", "cannot answer y", ["x" * 300_000])

    assert "cannot" not in heard.words
    assert heard.code == ""


def test_an_id_that_is_none_is_not_told() -> None:
    heard = Heard()
    heard.note(500, {"x-request-id": "a b\n"})

    assert heard.request_id == ""
