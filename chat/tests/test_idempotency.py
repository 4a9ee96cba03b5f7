"""The Idempotency-Key header: one turn for one key."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from analytics import fairness
from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import IdempotencyKey, Message
from chat.turns import lifecycle
from chat.turns.settling import settlements
from conftest import ApiClient

URL = "/v1/chat/completions"


def test_it_works(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()

    first = alice.say(cid, "Hi", key="k-1")
    again = alice.say(cid, "Hi", key="k-1")

    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert again["x-request-id"] != first["x-request-id"]
    assert len(upstream.requests) == 1
    assert Message.objects.count() == 2
    assert UsageEvent.objects.count() == 1
    assert AnalyticsEvent.objects.filter(event_name="chat.replayed").count() == 1


def test_a_key_with_another_request_is_a_conflict(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi", key="k-1")

    answer = alice.say(cid, "Ho", key="k-1")

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "idempotency_key_reused"
    assert answer.json()["error"]["message"] == "Idempotency key reused with different request"
    assert answer["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_order_and_quotes_do_not_count(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.send(URL, f'{{"conversation_id":"{cid}","message":"Hi"}}', key="k-1")

    again = alice.send(URL, f'{{ "message": "Hi", "conversation_id": "{cid}" }}', key='"k-1"')

    assert again["Idempotent-Replayed"] == "true"


def test_bobs_key_is_not_alices(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    alice.say(alice.conversation(), "Hi", key="k-1")

    answer = bob.say(bob.conversation(), "Hi", key="k-1")

    assert answer.status_code == 200
    assert "Idempotent-Replayed" not in answer


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "kéy", "tab\tkey", '""'])
def test_what_is_not_a_key_is_refused(alice: ApiClient, upstream: OpenAIDouble, key: str) -> None:
    answer = alice.say(alice.conversation(), "Hi", key=key)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"
    assert upstream.requests == []


def test_a_failed_turn_releases_its_key(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(status=500))

    assert alice.say(cid, "Hi", key="k-1").status_code == 502
    retried = alice.say(cid, "Hi", key="k-1")

    assert retried.status_code == 200
    assert "Idempotent-Replayed" not in retried
    assert Message.objects.count() == 2
    assert list(UsageEvent.objects.order_by("id").values_list("status", flat=True)) == ["failed", "completed"]


def test_a_refused_request_leaves_its_key_free(alice: ApiClient, upstream: OpenAIDouble) -> None:
    assert alice.say("c_nobody", "Hi", key="k-1").status_code == 404

    assert alice.say(alice.conversation(), "Hi", key="k-1").status_code == 200


def test_a_key_is_kept_for_a_day(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    alice.say(cid, "Hi", key="k-1")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))

    answer = alice.say(cid, "Something else", key="k-1")

    assert answer.status_code == 200
    assert len(upstream.requests) == 2
    assert IdempotencyKey.objects.count() == 1


def hold(alice: ApiClient, cid: str, *, lease: timedelta) -> str:
    """Leave behind what a process leaves that dies while its turn runs."""
    alice.say(cid, "Hi", key="k-1")
    until = timezone.now() + lease
    IdempotencyKey.objects.update(response_json=None, locked_until=until)
    Message.objects.all().delete()
    AnalyticsEvent.objects.all().delete()
    UsageEvent.objects.update(status="pending", finished_at=None, total_tokens=0, locked_until=until)
    return UsageEvent.objects.get().request_id


def test_a_running_twin_is_409_with_retry_after(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    hold(alice, cid, lease=timedelta(minutes=1))

    answer = alice.say(cid, "Hi", key="k-1")

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "idempotency_in_progress"
    assert answer["Retry-After"] == "1"
    assert "x-should-retry" not in answer


def test_a_dead_process_loses_its_key_to_the_next_retry(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    dead = hold(alice, cid, lease=timedelta(seconds=-1))

    answer = alice.say(cid, "Hi", key="k-1")

    assert answer.status_code == 200
    assert UsageEvent.objects.get(request_id=dead).status == "abandoned"
    assert UsageEvent.objects.get(request_id=answer.json()["id"]).status == "completed"
    assert Message.objects.count() == 2


def test_a_superseded_turn_counts_tokens_and_writes_no_reply(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """The process was only slow: another request took the key over while the upstream answered."""
    cid = alice.conversation()
    gate = threading.Event()
    upstream.plan(Behaviour(gate=gate))
    original = fairness.close_connection

    def steal() -> None:
        original()
        IdempotencyKey.objects.update(request_id="r_another")
        gate.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "close_connection", steal)
        answer = alice.say(cid, "Hi", key="k-1")

    usage = UsageEvent.objects.get()
    assert answer.status_code == 409
    assert (usage.status, usage.total_tokens) == ("abandoned", upstream.sold[0]["total_tokens"])
    assert Message.objects.count() == 0


def test_settling_twice_is_settling_once(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """The answer to a commit got lost: the same turn is written again."""
    original = settlements.work

    def twice(*args: Any) -> Any:
        original(*args)
        return original(*args)

    cid = alice.conversation()
    for key in (None, "k-1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settlements, "work", twice)
            assert alice.say(cid, "Hi", key=key).status_code == 200

    assert Message.objects.count() == 4
    assert AnalyticsEvent.objects.filter(event_name="chat.completed").count() == 2
    assert set(UsageEvent.objects.values_list("status", flat=True)) == {"completed"}


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_once_are_one_turn(upstream: OpenAIDouble, settings: Settings) -> None:
    """In threads of one process; test_server.py does the same against processes."""
    settings.IDEMPOTENCY_WAIT_SECONDS = 20
    alice = ApiClient("alice")
    cid = alice.conversation()
    upstream.default = Behaviour(delay=0.5)

    def say(_: int) -> bytes:
        try:
            body: bytes = alice.say(cid, "Hi", key="k-1").content
            return body
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(say, range(8)))

    assert len(answers) == 1
    assert len(upstream.requests) == 1
    assert Message.objects.count() == 2
    assert UsageEvent.objects.count() == 1
