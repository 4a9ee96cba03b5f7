"""POST /v1/events."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from analytics import ledger
from analytics.metrics.active_users import dau
from analytics.metrics.engagement import time_spent
from analytics.metrics.sources import Table
from analytics.metrics.usage import success_rate
from analytics.models import AnalyticsEvent, UsageEvent
from analytics.query import Filters, Period, Query, midnight, today
from analytics.rollups import schedule, store
from analytics.rollups.coverage import bring_up_to_date
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import ClientToken
from conftest import ApiClient

URL = "/v1/events"
DAY = timedelta(days=1)


def reply(client: ApiClient, **fields: Any) -> tuple[str, str]:
    """A conversation with one turn, and that turn."""
    cid = client.conversation()
    answer = client.say(cid, "Hi", **fields)
    return cid, answer.json()["request_id"]


def tell(client: ApiClient, *events: dict[str, Any], **fields: Any) -> Any:
    return client.send(URL, {"events": [*events], **fields})


def told() -> Any:
    return AnalyticsEvent.objects.filter(event_name__startswith="client.").order_by("id")


def test_it_works(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid, rid = reply(alice, user="ann", metadata={"app_version": "1.4"})

    answer = tell(
        alice,
        {"name": "opened", "user": "ann", "metadata": {"app_version": "1.5", "page": "home"}},
        {"name": "opened", "conversation_id": cid},
        {"name": "thumbs_up", "request_id": rid, "id": "e-1"},
        {"name": "regenerated", "request_id": rid, "conversation_id": cid, "user": "bob"},
    )

    assert (answer.status_code, answer.json()) == (201, {"object": "events", "stored": 4, "duplicates": 0})
    rows = told().values_list("event_name", "user_id", "conversation_id", "request_id", "model", "app_version")
    nobody = f"token:{alice.token_row.pk}"
    assert list(rows) == [
        ("client.opened", "ann", "", "", "", "1.5"),
        ("client.opened", nobody, cid, "", "", ""),
        ("client.regenerated", "bob", cid, rid, "gpt-4o-mini", "1.4"),
        ("client.thumbs_up", "ann", cid, rid, "gpt-4o-mini", "1.4"),
    ]
    first = told().first()
    assert first.metadata_json == {"app_version": "1.5", "page": "home"}
    assert abs(timezone.now() - first.created_at) < timedelta(seconds=10)
    assert set(told().values_list("client_token_id", flat=True)) == {alice.token_row.pk}


def test_an_event_that_is_sent_again_is_stored_once(alice: ApiClient, bob: ApiClient) -> None:
    batch = [{"name": "opened", "id": "e-1"}, {"name": "opened", "id": "e-2"}]

    assert tell(alice, *batch).json() == {"object": "events", "stored": 2, "duplicates": 0}
    more = [*batch, {"name": "opened", "id": "e-3"}, {"name": "opened", "id": "e-3"}]
    assert tell(alice, *more).json() == {"object": "events", "stored": 1, "duplicates": 3}
    # An id is its client's own; an event without one is always new.
    assert tell(bob, *batch).json()["stored"] == 2
    assert [tell(bob, {"name": "opened"}).json()["stored"] for _ in range(2)] == [1, 1]
    assert told().count() == 7


@pytest.mark.django_db(transaction=True)
def test_batches_at_the_same_time_are_stored_once(alice: ApiClient) -> None:
    token = {"authorization": f"Bearer {alice.token}"}
    batch = {"events": [{"name": "opened", "id": f"e-{n}"} for n in range(20)]}

    def send(_: int) -> int:
        try:
            return Client().post(URL, batch, "application/json", headers=token).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(send, range(4))) == [201] * 4

    assert told().count() == 20


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({}, "name"),
        ({"name": "closed"}, "name"),
        ({"name": "chat.completed"}, "name"),
        ({"name": "thumbs_up"}, "request_id"),
        ({"name": "opened", "id": "x" * 65}, "id"),
        ({"name": "opened", "id": ""}, "id"),
        ({"name": "opened", "user": 5}, "user"),
        ({"name": "opened", "mood": "good"}, "mood"),
        ({"name": "opened", "metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"name": "opened", "metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"name": "opened", "occurred_at": "yesterday"}, "occurred_at"),
        ({"name": "opened", "occurred_at": "2026-03-02T09:30:00"}, "occurred_at"),
        ({"name": "opened", "occurred_at": True}, "occurred_at"),
        ({"name": "opened", "occurred_at": timezone.now().timestamp() * 1000}, "occurred_at"),
        ({"name": "opened", "occurred_at": 1e300}, "occurred_at"),
        ({"name": "opened", "occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
        ({"name": "opened", "occurred_at": timezone.now().timestamp() - 90_000}, "occurred_at"),
    ],
)
def test_a_bad_event_is_named_and_nothing_is_stored(alice: ApiClient, event: dict[str, Any], param: str) -> None:
    answer = tell(alice, {"name": "opened"}, event)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", f"events[1].{param}")
    assert not told().exists()


@pytest.mark.parametrize("body", [{}, {"events": []}, {"events": "opened"}, {"events": [{"name": "opened"}] * 101}])
def test_a_batch_is_bounded(alice: ApiClient, body: Any) -> None:
    answer = alice.send(URL, body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "events")


def test_what_is_somebody_elses_is_not_there(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    cid, rid = reply(alice)

    def refused(event: dict[str, Any]) -> tuple[int, str, str]:
        answer = tell(bob, {"name": "opened"}, {"name": "opened"}, event)
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["param"]

    assert refused({"name": "opened", "conversation_id": cid}) == (
        404,
        "conversation_not_found",
        "events[2].conversation_id",
    )
    assert refused({"name": "thumbs_up", "request_id": rid}) == (404, "completion_not_found", "events[2].request_id")
    assert not told().exists()

    other, _ = reply(alice)
    answer = tell(alice, {"name": "thumbs_up", "request_id": rid, "conversation_id": other})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "events[0].conversation_id")


def test_a_deleted_conversation_can_still_be_judged(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid, rid = reply(alice)
    alice.delete(f"/v1/conversations/{cid}")

    assert tell(alice, {"name": "thumbs_down", "request_id": rid, "conversation_id": cid}).status_code == 201


@pytest.mark.parametrize("form", [datetime.timestamp, datetime.isoformat])
def test_a_wrong_clock_does_no_harm(alice: ApiClient, form: Callable[[datetime], Any]) -> None:
    clock = timezone.now() + timedelta(days=400)

    tell(
        alice,
        {"name": "opened", "occurred_at": form(clock - timedelta(hours=23))},
        {"name": "opened", "occurred_at": form(clock)},
        {"name": "opened"},
        {"name": "opened", "occurred_at": form(clock + timedelta(hours=1))},
        sent_at=form(clock),
    )

    ages = [round((timezone.now() - at).total_seconds() / 3600) for at in told().values_list("created_at", flat=True)]
    assert ages == [23, 0, 0, 0]
    assert not told().filter(created_at__gt=timezone.now()).exists()


def test_it_counts_among_the_requests_of_the_minute(alice: ApiClient) -> None:
    ClientToken.objects.update(rate_limit_per_min=2)

    answers = [tell(alice, {"name": "opened"}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[1]["x-ratelimit-remaining-requests"] == "0"
    assert told().count() == 2
    assert ledger.flush_refusals() == 1


def test_who_may_not(alice: ApiClient) -> None:
    ClientToken.objects.update(is_active=False)

    assert tell(alice, {"name": "opened"}).status_code == 401
    assert alice.get(URL).status_code == 401


def test_they_are_time_spent_and_nobody_is_active_for_them(alice: ApiClient, upstream: OpenAIDouble) -> None:
    now = timezone.now()
    began = max(now - timedelta(hours=1), midnight(today()))
    alice.send("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "user": "ann"})

    tell(alice, *({"name": "opened", "user": user, "occurred_at": began.timestamp()} for user in ("ann", "eve")))

    bring_up_to_date()
    table = Table(Query.last_days(1))
    assert dau(table)[0]["users"] == 1
    spent = time_spent(table)
    assert (spent["count"], spent["median_seconds"]) == (2, 0)
    assert abs(spent["p90_seconds"] - (now - began).total_seconds()) < 60


def test_a_late_event_is_counted_in_a_closed_day(alice: ApiClient, set_clock: Callable[..., None]) -> None:
    """Of an evening whose day has been built by the time its events come: once, though they come twice."""
    noon = midnight(today()) + timedelta(hours=12)
    set_clock(noon)
    evening = noon - timedelta(hours=16)
    yesterday = evening.astimezone(UTC).date()
    AnalyticsEvent.objects.create(
        event_name="client.opened", client_token_id=1, user_id="ann", created_at=evening - timedelta(hours=1)
    )
    assert store.build_day(yesterday)
    assert schedule.due(noon) == []
    batch = [{"name": "opened", "id": "e-1", "user": "ann", "occurred_at": evening.timestamp()}]

    tell(alice, *batch)

    assert schedule.due(noon) == [yesterday]
    assert store.build_day(yesterday)
    assert time_spent(Table(Query(Period(yesterday, yesterday))))["median_seconds"] == 3600
    tell(alice, *batch)
    assert schedule.due(noon) == []
    assert time_spent(Table(Query(Period(yesterday, yesterday))))["count"] == 1


def test_queries(alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    cid, rid = reply(alice)
    events = [
        {"name": "thumbs_up", "request_id": rid, "id": f"e-{n}"}
        if n % 2
        else {"name": "opened", "conversation_id": cid}
        for n in range(50)
    ]

    # Token, limit, those known, turns, conversations, those known by now, the insert, and a savepoint around both.
    with django_assert_num_queries(9):
        assert tell(alice, *events).json()["stored"] == 50


def test_a_batch_that_got_no_answer_can_be_sent_again(
    alice: ApiClient, upstream: OpenAIDouble, set_clock: Callable[..., None]
) -> None:
    """Whatever has become since of what it names, and however old it is by now."""
    cid, rid = reply(alice)
    asked_at = timezone.now()
    batch = [
        {
            "name": "opened",
            "conversation_id": cid,
            "id": "a",
            "occurred_at": (asked_at - timedelta(hours=23)).isoformat(),
        },
        {"name": "thumbs_up", "request_id": rid, "id": "b"},
    ]
    assert tell(alice, *batch).json() == {"object": "events", "stored": 2, "duplicates": 0}

    assert alice.delete(f"/v1/conversations/{cid}").status_code == 200
    set_clock(asked_at + timedelta(hours=2))

    assert tell(alice, *batch).json() == {"object": "events", "stored": 0, "duplicates": 2}
    answer = tell(alice, *batch, {"name": "opened", "conversation_id": cid})
    assert answer.json()["error"]["param"] == "events[2].conversation_id"
    answer = tell(alice, *batch, {"name": "opened", "occurred_at": (asked_at - timedelta(hours=23)).isoformat()})
    assert answer.json()["error"]["param"] == "events[2].occurred_at"


def test_a_turn_that_still_runs_can_be_told_of(alice: ApiClient, upstream: OpenAIDouble) -> None:
    _, rid = reply(alice)
    UsageEvent.objects.update(status="pending", finished_at=None)

    assert tell(alice, {"name": "first_token_shown", "request_id": rid}).status_code == 201


@pytest.mark.parametrize("digits", [20, 400])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_time_of_no_century(alice: ApiClient, digits: int, sign: str) -> None:
    answer = alice.send(URL, {"events": [{"name": "opened", "occurred_at": int(f"{sign}1{'0' * digits}")}]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "events[0].occurred_at"


def test_a_turn_keeps_the_name_that_was_asked_for(alice: ApiClient, upstream: OpenAIDouble) -> None:
    """OpenAI answers with dated names; what fails is never given one."""
    upstream.plan(Behaviour(model="gpt-4o-mini-2024-07-18"), Behaviour(status=500))
    for _ in range(2):
        alice.send("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})

    completed, failed = UsageEvent.objects.order_by("pk")
    assert (completed.model, completed.served_model) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert (failed.model, failed.served_model) == ("gpt-4o-mini", "")
    bring_up_to_date()
    assert success_rate(Table(Query.last_days(1, Filters(model="gpt-4o-mini")))) == 0.5
