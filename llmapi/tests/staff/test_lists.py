"""Lists: filters, searches, links, and a constant number of queries."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from analytics.models import AnalyticsEvent, UsageEvent
from analytics.tests.sample_week import ANN, BOB, CID, TODAY, make_current, row, turn, write_built_week
from chat.models import AuditRecord, Budget, ClientToken, Conversation, IdempotencyKey

USAGE = "analytics_usageevent"
EVENTS = "analytics_analyticsevent"
LISTS = {
    # Session, user and rows; beside them, names of clients, choices of filters, and what the rows add up to.
    USAGE: 10,
    EVENTS: 7,
    "chat_conversation": 5,
    "chat_idempotencykey": 5,
    "chat_clienttoken": 7,
    "chat_budget": 5,
    "chat_auditrecord": 3,
}


def url(name: str, page: str = "changelist") -> str:
    return reverse(f"admin:{name}_{page}")


def write(count: int) -> None:
    """Write `count` rows for every list."""
    now = timezone.now()
    for n in range(count):
        client = ClientToken(name=f"client {n}", day_tokens=1000, user_month_usd=Decimal(1))
        client.renew()
        client.save()
        who = {**ANN, "client_token_id": client.pk}
        turn(who, now - timedelta(seconds=n), conversation_id=f"c_{client.pk}")
        Conversation.objects.create(pk=f"c_{client.pk}", client_token=client, user_id="ann")
        key = f"{client.pk}:tokens:{TODAY.date()}:"
        Budget.objects.create(key=key, client_token=client, unit="tokens", period=f"{TODAY.date()}", used=n, most=1000)
        IdempotencyKey.objects.create(client_token=client, idempotency_key=f"k{n}", request_id="r_1", locked_until=now)
        AuditRecord.objects.create(staff_id=1, staff_name="staff", action="read", subject="conversations")


def listed(admin: Client, name: str, **query: Any) -> list[Any]:
    page = admin.get(url(name), query)
    assert page.status_code == 200
    return [row.pk for row in page.context["cl"].result_list]


@pytest.mark.parametrize("name", LISTS)
def test_lists_take_a_constant_number_of_queries(
    staff: Client, name: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    write(1)
    staff.get(url(name))
    make_current()
    with django_assert_num_queries(LISTS[name]):
        assert len(listed(staff, name)) == 1
    write(4)
    make_current()
    with django_assert_num_queries(LISTS[name]):
        assert len(listed(staff, name)) == 5


@pytest.mark.parametrize("name", LISTS)
def test_no_list_counts(staff: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(2)
    monkeypatch.setattr("django.db.models.QuerySet.count", None)

    assert len(listed(staff, name)) == 2


def test_filters_select_rows(staff: Client) -> None:
    write_built_week()
    make_current()  # each page would build today first
    everything = set(UsageEvent.objects.values_list("pk", flat=True))
    expected: dict[str, Any] = {
        "user=bob": {"user_id": "bob"},
        "client=2": {"client_token_id": 2},
        "model=local": {"model": "local"},
        "status=failed": {"status": "failed"},
        "status=completed": {"status": "completed"},
        "status=pending": {"status": "pending"},
        "app_version=2.0": {"app_version": "2.0"},
        "client=1&user=bob&status=failed&model=gpt": {"status": "failed"},
        "client=2&user=bob": {"user_id": "nobody"},
        f"from={TODAY.date()}": {"created_at__gte": TODAY},
        f"to={TODAY.date() - timedelta(days=1)}": {"created_at__lt": TODAY},
        f"user=cid&from={TODAY.date()}&to={TODAY.date()}": {"user_id": "cid", "created_at__gte": TODAY},
        "q=bob": {"user_id": "bob"},
        "q=+bob+": {"user_id": "bob"},
        "q=r_0": {"request_id": "r_0"},
        "q=c_none": {"user_id": "nobody"},
    }
    for query, columns in expected.items():
        page = staff.get(f"{url(USAGE)}?{query}")
        found = [found.pk for found in page.context["cl"].result_list]
        assert found == list(
            UsageEvent.objects.filter(**columns).order_by("-created_at", "-pk").values_list("pk", flat=True)
        ), query
        assert set(found) < everything
        assert b"All" in page.content


def test_a_filter_that_a_link_set_is_shown(staff: Client) -> None:
    turn(ANN, TODAY)
    page = staff.get(url(EVENTS), {"user": "<b>ann</b>"})

    assert b"User: <strong>" in page.content
    assert b"&lt;b&gt;ann&lt;/b&gt;" in page.content
    assert b"<b>ann" not in page.content
    assert b"User: " not in staff.get(url(EVENTS)).content


def test_choices_are_the_stored_values(staff: Client) -> None:
    write_built_week()
    page = staff.get(url(USAGE)).content.decode()

    assert '<a href="?model=gpt">gpt</a>' in page
    assert '<a href="?model=local">local</a>' in page
    assert '<a href="?event=chat.replayed">' in staff.get(url(EVENTS)).content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=0001-01-01",
        "to=9999-12-31",
        "client=x",
        "client=99999999999999999999",
        "user=%00",
        "model=" + "x" * 101,
        # Lookups that no filter has. They would scan the table, or reveal what is hidden.
        "user_id__contains=a",
        "created_at__month=3",
        "error_code=x",
        "created_at__gte=2020-01-01",
    ],
)
def test_a_bad_filter_shows_the_whole_list(staff: Client, query: str) -> None:
    row(ANN, TODAY)
    answer = staff.get(f"{url(USAGE)}?{query}", follow=True)

    assert answer.redirect_chain == [(f"{url(USAGE)}?e=1", 302)]
    assert b"The filters cannot be read" in answer.content
    assert len(answer.context["cl"].result_list) == 1


@pytest.mark.parametrize("query", ["metadata_json__contains=secret", "metadata_json__x__startswith=s"])
def test_no_filter_reveals_hidden_columns(staff: Client, query: str) -> None:
    assert staff.get(f"{url(EVENTS)}?{query}").status_code == 302
    assert staff.get(f"{url('chat_idempotencykey')}?response_json__startswith=a").status_code == 302
    assert staff.get(f"{url('chat_conversation')}?messages__content__startswith=a").status_code == 302


def test_a_bad_search_is_no_error(staff: Client) -> None:
    for name in LISTS:
        for term in ("\0", "%", "'", "🙂", "x" * 5000, "c_" + "x" * 100, "r_" + "x" * 100, "  "):
            assert staff.get(url(name), {"q": term}).status_code == 200, (name, term)


@pytest.mark.parametrize("term", ["jos\u00e9", "jose\u0301", "jo\u200bs\u00e9"])
def test_a_search_finds_a_user_however_the_id_is_spelt(staff: Client, term: str) -> None:
    row({**ANN, "user_id": "jos\u00e9"}, TODAY)

    found = staff.get(url(USAGE), {"q": term}).context["cl"].result_list

    assert [each.user_id for each in found] == ["jos\u00e9"]


def test_searches_find_rows(staff: Client) -> None:
    write(2)
    newest = ClientToken.objects.order_by("-pk").first()
    assert newest

    assert listed(staff, "chat_conversation", q=f"c_{newest.pk}") == [f"c_{newest.pk}"]
    assert len(listed(staff, "chat_conversation", q="ann")) == 2
    assert listed(staff, "chat_clienttoken", q="ient 1") == [newest.pk]
    assert listed(staff, "chat_clienttoken", q=newest.prefix) == [newest.pk]
    assert listed(staff, "chat_clienttoken", is_active="False") == []
    assert len(listed(staff, "chat_idempotencykey", q="k1")) == 1
    assert len(listed(staff, "chat_idempotencykey", q="r_1")) == 2
    assert listed(staff, "chat_idempotencykey", q="k") == []
    assert len(listed(staff, "chat_budget", client=newest.pk)) == 1
    assert listed(staff, EVENTS, event="chat.completed", user="ann", q="ann")
    assert listed(staff, EVENTS, event="chat.failed") == []


@pytest.mark.parametrize(
    ("name", "column"),
    [(EVENTS, "metadata_json"), ("chat_conversation", "metadata"), ("chat_idempotencykey", "response_json")],
)
def test_lists_do_not_read_hidden_columns(staff: Client, name: str, column: str) -> None:
    write(1)
    with CaptureQueriesContext(connection) as queries:
        listed(staff, name)

    assert not any(f'"{column}",' in query["sql"] for query in queries)


def test_a_turn_links_to_all_that_belongs_to_it(staff: Client, clerk: Any) -> None:
    write(1)
    found = UsageEvent.objects.get()
    page = staff.get(reverse(f"admin:{USAGE}_change", args=[found.pk])).content.decode()

    assert f"/admin/chat/conversation/c_5F{found.client_token_id}/change/" in page
    assert f"/admin/chat/clienttoken/{found.client_token_id}/change/" in page
    assert "/admin/analytics/usageevent/user/?user=ann" in page
    assert "/admin/analytics/analyticsevent/?user=ann&amp;request=r_0&amp;from=" in page


def test_events_are_found_by_user(staff: Client) -> None:
    for who in (ANN, BOB, CID):
        turn(who, TODAY)

    assert len(listed(staff, EVENTS, q="bob")) == 1
    assert listed(staff, EVENTS, client="2", model="local") == [AnalyticsEvent.objects.get(user_id="cid").pk]


def test_a_search_and_a_filter_must_both_match(staff: Client) -> None:
    write_built_week()

    assert listed(staff, USAGE, q="bob", user="ann") == []
    assert listed(staff, USAGE, q="bob", user="bob") == listed(staff, USAGE, q="bob") != []


@pytest.mark.parametrize("query", ["p=x", "o=9.-9.x", "all=", "_facets=", "_popup=1", "e=1", "q=&q=x", "x"])
def test_unknown_parameters_are_no_error(staff: Client, query: str) -> None:
    row(ANN, TODAY)
    for name in LISTS:
        assert staff.get(f"{url(name)}?{query}").status_code in {200, 302}, name


def test_no_list_can_name_another_key_column(staff: Client) -> None:
    assert staff.get(f"{url('chat_idempotencykey')}?_popup=1&_to_field=response_json").status_code == 400


DETAILS = {
    # Queries: session, user and the row; on some pages also the name of the client, the audit record, and totals.
    USAGE: 4,
    EVENTS: 5,
    "chat_conversation": 8,
    "chat_idempotencykey": 6,
    "chat_clienttoken": 11,
    "chat_budget": 4,
    "chat_auditrecord": 3,
}


@pytest.mark.parametrize("name", DETAILS)
def test_pages_of_rows_take_a_constant_number_of_queries(
    staff: Client, name: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    write(1)
    model = staff.get(url(name)).context["cl"].model
    change = reverse(f"admin:{name}_change", args=[quote(model.objects.order_by("pk")[0].pk)])
    staff.get(change)  # Django looks up the content type once a process
    make_current()
    with django_assert_num_queries(DETAILS[name]):
        assert staff.get(change).status_code == 200
    write(3)
    make_current()
    with django_assert_num_queries(DETAILS[name]):
        assert staff.get(change).status_code == 200
