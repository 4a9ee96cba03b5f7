"""Totals above lists, the pages of usage and of one user, and what client tokens have used."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from analytics.formatting import format_value
from analytics.models import RollupDay, UsageEvent
from analytics.rollups import schedule
from analytics.tests.sample_week import (
    ANN,
    MON,
    SUN,
    TODAY,
    TUE,
    WED,
    at,
    event,
    make_current,
    row,
    turn,
    write_built_week,
    write_week,
)
from bench.openai_double import OpenAIDouble
from chat.models import Budget, ClientToken, Conversation
from conftest import ApiClient
from llmapi.staff import breakdown, totals

USAGE = "/admin/analytics/usageevent/"
USER = f"{USAGE}user/"
BREAKDOWN = f"{USAGE}breakdown/"


def sums(admin: Client, **query: Any) -> tuple[dict[str, str], str]:
    answer = admin.get(USAGE, query)
    assert answer.status_code == 200
    found: totals.Totals = answer.context["totals"]
    return dict(found.labelled), found.note


ALL = {
    "pending turns": "1",
    "completed turns": "12",
    "failed turns": "1",
    "abandoned turns": "1",
    "prompt tokens": "1,080",
    "cached tokens": "480",
    "completion tokens": "120",
    "reasoning tokens": "60",
    "total tokens": "1,200",
    # The model of cid has no known price.
    "cost": "–",
}


def test_totals_count_deleted_turns_and_say_so(staff: Client) -> None:
    """Deleting turns does not delete their totals."""
    write_built_week()
    RollupDay.objects.filter(day__lte=TUE.date()).update(purged_at=timezone.now())
    UsageEvent.objects.filter(created_at__lt=WED).delete()
    deleted = f"Single turns of days up to {TUE.date()} are deleted, but counted here."

    assert sums(staff) == (ALL, deleted)
    of_ann, note = sums(staff, user="ann")
    assert (of_ann["completed turns"], of_ann["total tokens"]) == ("6", "600")
    assert note.endswith(deleted)
    assert sums(staff, **{"from": WED.date()})[1] == ""


def test_older_figures_say_when_they_were_computed(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of many rows is added up every minute, and the list shows newer turns."""
    write_built_week()
    monkeypatch.setattr(schedule, "CHEAP_EVENTS", 0)
    built_at = timezone.now() - timedelta(minutes=4)
    RollupDay.objects.filter(is_partial=True).update(built_at=built_at)
    turn(ANN, timezone.now())
    as_of = f"As of {built_at:%Y-%m-%d %H:%M} UTC."

    found, note = sums(staff)
    assert (found["completed turns"], note) == ("12", as_of)
    for page in (BREAKDOWN, f"{USER}?user=ann", "/admin/"):
        assert as_of in staff.get(page).content.decode()


def test_a_turn_past_midnight_is_completed_once(staff: Client) -> None:
    """Opened on one day, and completed on the next."""
    row(ANN, at(SUN, 23, 59))
    event(ANN, TODAY)

    page = staff.get(f"{USER}?user=ann&days=1")

    assert (page.context["table"].total.turns, page.context["table"].total.tokens) == (1, 0)


def test_totals_follow_the_filters(staff: Client) -> None:
    write_built_week()
    UsageEvent.objects.filter(created_at__lt=TODAY).update(total_tokens=0)  # rows are not added up

    assert sums(staff) == (ALL, "")
    figures, note = sums(staff, client=1, model="gpt", to=SUN.date())
    assert (figures["completed turns"], figures["total tokens"], figures["cost"], note) == ("8", "800", "$0.000008", "")
    assert sums(staff, app_version="2.0")[0]["failed turns"] == "1"
    assert sums(staff, status="failed") == ({"failed turns": "1"}, "")
    assert sums(staff, **{"from": TODAY.date()})[0]["completed turns"] == "2"
    assert sums(staff, user="ann") == (
        {"completed turns": "6", "total tokens": "600", "cost": "$0.000006"},
        "Turns without a reply count only for tokens and cost.",
    )
    assert sums(staff, user="ann", client=1, to=MON.date())[0]["completed turns"] == "3"
    assert sums(staff, user="ann", model="local")[0]["completed turns"] == "0"


@pytest.mark.parametrize("query", [{"q": "r_0"}, {"conversation": "c_1"}, {"user": "bob", "status": "failed"}])
def test_no_totals_where_rollups_tell_none(staff: Client, query: dict[str, str]) -> None:
    write_built_week()

    assert staff.get(USAGE, query).context["totals"] is None


def test_breakdown(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    write_week()
    turn({**ANN, "model": "asked"}, at(TODAY, 1), "failed")
    ClientToken.objects.create(pk=1, name="<b>web</b>", digest="x")

    monkeypatch.setattr(breakdown, "MAX_USER_DAYS", 8)
    answer = staff.get(BREAKDOWN, {"from": f"{MON.date()}"})
    tables = {
        table.title: [(*row.labels, row.turns, row.tokens, row.cost) for row in table.rows]
        for table in answer.context["tables"]
    }

    assert tables == {
        "By client": [("<b>web</b>", 9, 900, "$0.000009"), ("2", 3, 300, "–")],
        "By model": [("gpt", 9, 900, "$0.000009"), ("local", 3, 300, "–")],
        "By user": [("ann", 6, 600, "$0.000006"), ("bob", 3, 300, "$0.000003"), ("cid", 3, 300, "–")],
    }
    text = answer.content.decode()
    assert "&lt;b&gt;web&lt;/b&gt;" in text
    assert f"{USAGE}?from={MON.date()}&amp;to={TODAY.date()}&amp;user=ann" in text
    of_one = staff.get(BREAKDOWN, {"from": f"{MON.date()}", "client": "2"}).context["tables"]
    assert [row.labels for row in of_one[2].rows] == [["cid"]]


def test_a_breakdown_of_many_days_has_no_users(staff: Client) -> None:
    year = staff.get(BREAKDOWN, {"from": f"{TODAY.date() - timedelta(days=365)}"})

    assert [table.title for table in year.context["tables"]] == ["By client", "By model"]
    for query in (
        {"from": "x"},
        {"from": "2020-01-01"},
        {"client": "x"},
        {"model": "\0"},
        {"from": "2026-02-02", "to": "2026-02-01"},
    ):
        assert staff.get(BREAKDOWN, query).status_code == 302


def test_a_user_and_all_that_is_theirs(staff: Client, alice: ApiClient) -> None:
    write_week()
    Conversation.objects.create(pk="c_22", client_token=alice.token_row, user_id="ann", metadata={"x": "a secret"})

    answer = staff.get(USER, {"user": "ann", "days": "30"})
    text = answer.content.decode()

    assert [(row.labels[1], row.turns, row.tokens, row.cost) for row in answer.context["table"].rows] == [
        ("gpt", 6, 600, "$0.000006")
    ]
    assert answer.context["table"].total.tokens == 600
    assert "/admin/chat/conversation/c_5F22/change/" in text
    assert "secret" not in text
    assert text.count("/admin/analytics/usageevent/") > 6
    for name in ("analytics/usageevent", "analytics/analyticsevent", "chat/conversation"):
        assert f'/admin/{name}/?user=ann"' in text
    assert "First active on" in text


def test_figures_have_thousands_separators(staff: Client) -> None:
    turn(ANN, TODAY, latency_ms=12345, total_tokens=6789)

    answer = staff.get(USER, {"user": "ann"}).content.decode()

    assert "12,345" in answer
    assert "6,789" in answer
    assert format_value(None) == "–"


def test_a_user_with_any_name(staff: Client) -> None:
    name = "a/b?c&d=<script>é\"' "
    turn({**ANN, "user_id": name}, TODAY)

    row = staff.get(USAGE).content.decode()
    answer = staff.get(USER, {"user": name})

    assert "<script>é" not in row
    assert "user/?user=a%2Fb%3Fc%26d%3D%3Cscript%3E%C3%A9" in row
    assert "<script>é" not in answer.content.decode()
    assert len(answer.context["turns"]) == 1
    assert len(answer.context["events"]) == 1
    for query in ({}, {"user": ""}, {"user": "\0"}, {"user": "x" * 256}):
        assert staff.get(USER, query).status_code == 404
    assert b"Nothing is known" in staff.get(USER, {"user": "nobody"}).content


def test_the_page_of_a_user_respects_permissions(clerk: Callable[..., Client]) -> None:
    event(ANN, TODAY)
    client = clerk("view_usageevent")

    text = client.get(USER, {"user": "ann"}).content.decode()

    assert "All turns of this user" in text
    assert "All conversations" not in text
    assert "All events" not in text


def test_pages_of_figures_need_the_permission(clerk: Callable[..., Client]) -> None:
    client = clerk("view_conversation")

    assert client.get(USER, {"user": "ann"}).status_code == 403
    assert client.get(BREAKDOWN).status_code == 403


def test_pages_take_a_constant_number_of_queries(
    staff: Client, alice: ApiClient, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    def write(client_id: int) -> None:
        for _ in range(3):
            turn({**ANN, "client_token_id": client_id}, timezone.now())

    def read() -> None:
        make_current()
        # Session, user; two whether today is current; usage, turns, clients, first day, conversations, events.
        with django_assert_num_queries(10):
            staff.get(USER, {"user": "ann"})
        # Session, user; two whether today is current; three tables, and names of clients.
        with django_assert_num_queries(8):
            staff.get(BREAKDOWN)
        # Session, user, row, name of the client.
        with django_assert_num_queries(4):
            staff.get(change)

    write(alice.token_row.pk)
    change = reverse("admin:analytics_usageevent_change", args=[UsageEvent.objects.all()[0].pk])
    staff.get(change)  # Django looks up the content type once a process
    read()
    write(alice.token_row.pk + 1)
    read()


def test_client_tokens_show_their_use_of_budgets(
    staff: Client, alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble
) -> None:
    limits = {"day_tokens": 1000, "month_usd": Decimal("0.01"), "user_day_tokens": 200, "concurrent_turns": 3}
    ClientToken.objects.filter(pk=alice.token_row.pk).update(**limits)
    alice.send(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 9, "user": "u1"},
    )

    text = staff.get("/admin/chat/clienttoken/").content.decode()

    assert "8 tokens, $0.000003" in text
    assert "0 tokens, $0.00" in text
    assert "concurrent turns: 0 of 3 turns (0%)" in text
    assert "day tokens: 8 of 1,000 tokens (1%)" in text
    assert "month usd: $0.0000 of $0.0100 (0%)" in text
    assert "200 tokens" not in text

    page = staff.get(reverse("admin:chat_clienttoken_change", args=[alice.token_row.pk])).content.decode()
    assert "8 of 1,000 tokens" in page
    assert "992 tokens" in page
    assert f"breakdown/?client={alice.token_row.pk}" in page

    user = staff.get(USER, {"user": "u1"}).content.decode()
    assert "8 of 200 tokens (4%)" in user
    assert "1,000 tokens" not in user


def test_a_used_up_budget_is_marked(staff: Client, alice: ApiClient) -> None:
    ClientToken.objects.filter(pk=alice.token_row.pk).update(day_tokens=10)
    Budget.objects.create(
        key=f"{alice.token_row.pk}:tokens:{TODAY.date()}:",
        client_token=alice.token_row,
        unit="tokens",
        period=f"{TODAY.date()}",
        used=12,
        most=10,
        resets_at=at(TODAY, 24),
    )

    page = staff.get(reverse("admin:chat_clienttoken_change", args=[alice.token_row.pk])).content.decode()

    assert 'class="full"' in page
    assert "12 of 10 tokens (120%)" in page
    assert "12 of 10 tokens" in staff.get("/admin/chat/budget/").content.decode()
