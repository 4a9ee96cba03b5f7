"""Every list, filter, page and export is read along an index, in its order; both databases say so themselves."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from analytics.models import AnalyticsEvent, UsageEvent
from analytics.tests.sample_week import TODAY, make_current, write_week
from chat.models import AuditRecord, ClientToken, Conversation, IdempotencyKey, Message
from conftest import kept_rows
from llmapi.staff.lists import keyset
from llmapi.staff.lists.keyset import Cursor

LARGE = (
    *("usage_events", "analytics_events", "conversations", "messages", "idempotency_keys", "audit_records"),
    *("budgets", "user_days", "usage_rollups"),
)
# The rows, and where looking for them ends.
PAGE = (" LIMIT 51", f" LIMIT 1 OFFSET {keyset.SCAN_LIMIT}")
TABLES = "|".join(LARGE)
DAYS = f"from={TODAY.date() - timedelta(days=9)}&to={TODAY.date()}"
USAGE, EVENTS = "analytics_usageevent", "analytics_analyticsevent"
# The list, what is asked of it, and the index it is read along.
LISTS = [
    (USAGE, "", "usage_created"),
    (USAGE, DAYS, "usage_created"),
    (USAGE, "app_version=1.0", "usage_created"),
    (USAGE, "status=completed", "usage_created"),
    (USAGE, "status=pending", "usage_created"),
    (USAGE, "status=failed", "usage_broken"),
    (USAGE, f"status=abandoned&{DAYS}", "usage_broken"),
    (USAGE, "status=failed&client=1&model=gpt", "usage_broken"),
    (USAGE, "client=1", "usage_client_created"),
    (USAGE, f"client=1&model=gpt&{DAYS}", "usage_client_created"),
    (USAGE, "model=gpt", "usage_model_created"),
    (USAGE, f"model=gpt&{DAYS}", "usage_model_created"),
    (USAGE, "user=ann", "usage_user_created"),
    (USAGE, f"user=ann&client=1&model=gpt&status=failed&app_version=1&{DAYS}", "usage_user_created"),
    (USAGE, "q=ann", "usage_user_created"),
    (USAGE, "q=c_1", "usage_conversation"),
    (USAGE, f"conversation=c_1&model=gpt&{DAYS}", "usage_conversation"),
    (EVENTS, "", "event_created"),
    (EVENTS, f"client=1&model=gpt&{DAYS}", "event_created"),
    (EVENTS, "event=chat.completed", "event_name_created"),
    (EVENTS, f"event=chat.completed&client=1&{DAYS}", "event_name_created"),
    (EVENTS, "user=ann", "event_user_created"),
    (EVENTS, f"user=ann&request=r_1&event=chat.failed&{DAYS}", "event_user_created"),
    ("chat_conversation", "", "conversation_created"),
    ("chat_conversation", f"client=1&{DAYS}", "conversation_client_created"),
    ("chat_conversation", f"user=ann&client=1&{DAYS}", "conversation_user_created"),
    ("chat_conversation", "q=c_1", "conversations"),
    ("chat_idempotencykey", "", "idempotency_key_created"),
    ("chat_idempotencykey", f"client=1&q=r_1&{DAYS}", "idempotency_key_created"),
    ("chat_budget", "client=1&unit=tokens&q=ann", "budgets"),
    ("chat_auditrecord", f"action=read&{DAYS}", "audit_records"),
    ("chat_auditrecord", "q=c_1", "audit_subject"),
]
# The same, where there are so few rows that their order does not matter.
FEW = [
    (USAGE, "q=r_1", "request_id"),
    ("chat_idempotencykey", "q=key", "idempotency_key_once_per_client|autoindex_idempotency_keys"),
]


@pytest.fixture
def planner(db: None) -> Callable[..., None]:
    """Have PostgreSQL scan and sort only where it has no index to use: with a few rows it always would."""

    def avoid(*names: str) -> None:
        with connection.cursor() as cursor:
            for name in names if connection.vendor == "postgresql" else ():
                cursor.execute(f"SET LOCAL enable_{name} = off")

    avoid("seqscan", "bitmapscan", "hashjoin", "mergejoin")
    return avoid


@contextmanager
def plans() -> Iterator[list[tuple[str, str]]]:
    """Statements that read a large table, and how the database reads it for the very values it was given."""
    found: list[tuple[str, str]] = []
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if re.match(r"\s*(SELECT|WITH)", sql) and any(name in sql for name in LARGE):
            execute(explain + sql, params, many, context)
            found.append((sql, "\n".join(str(step) for step in context["cursor"].fetchall())))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield found
    for sql, plan in found:
        assert not re.search(rf"Seq Scan on ({TABLES})\b", plan), (sql, plan)
        # SQLite's tables are themselves in the order of a numeric key.
        by_key = sql.endswith((*PAGE, " LIMIT 201"))
        assert by_key or not re.search(rf"SCAN ({TABLES})\b(?! USING)", plan), (sql, plan)


def is_sorted(plan: str) -> bool:
    """Whether rows come in no order; those of one instant may."""
    return bool(re.search(r"TEMP B-TREE FOR ORDER BY|(?<!Incremental )Sort  ", plan))


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with kept_rows(django_db_blocker):
        write_rows()
        yield


@pytest.fixture
def written(rows: None, db: None) -> None:
    """The rows of the module."""


def write_rows() -> None:
    """A few rows to look for among many of somebody else, which the planner is told of."""
    write_week()
    UsageEvent.objects.filter(user_id="ann").update(conversation_id="c_1")
    theirs: dict[str, Any] = {"client_token_id": 9, "user_id": "dan", "model": "other", "created_at": TODAY}
    AnalyticsEvent.objects.bulk_create(AnalyticsEvent(event_name="client.opened", **theirs) for _ in range(300))
    done = {"status": "completed", "locked_until": TODAY, "finished_at": TODAY, "conversation_id": "c_9"}
    UsageEvent.objects.bulk_create(UsageEvent(request_id=f"r_{n}", **theirs, **done) for n in range(100, 400))
    client = ClientToken.objects.create(name="web", day_tokens=10, digest="a")
    other = ClientToken.objects.create(name="other", digest="b")
    Conversation.objects.create(pk="c_1", client_token=client, user_id="ann")
    begun: dict[str, Any] = {"client_token": other, "user_id": "dan", "created_at": TODAY}
    Conversation.objects.bulk_create(Conversation(pk=f"c_{n}", **begun) for n in range(100, 400))
    for number in range(4):
        Message.objects.create(conversation_id="c_1", role="assistant", content="x", request_id=f"r_{number}")
    now = timezone.now()
    IdempotencyKey.objects.create(client_token=client, idempotency_key="key", request_id="r_1", locked_until=now)
    AuditRecord.objects.create(staff_id=1, staff_name="s", action="read", subject="conversations", subject_id="c_1")
    make_current()  # a page would build today first
    with connection.cursor() as cursor:
        for table in ("usage_events", "analytics_events", "conversations"):
            cursor.execute(f"ANALYZE {table}")


def list_plans(found: list[tuple[str, str]], table: str, *ends: str) -> list[str]:
    return [plan for sql, plan in found if f'FROM "{table}"' in sql and sql.endswith(ends)]


@pytest.mark.parametrize(("name", "query", "index"), LISTS)
def test_lists(staff: Client, written: None, planner: Callable[..., None], name: str, query: str, index: str) -> None:
    """The newest page, and the pages before and after a row in the middle."""
    planner("sort")
    url = f"{reverse(f'admin:{name}_changelist')}?{query}"
    changelist = staff.get(url).context["cl"]
    pks = list(changelist.model.objects.order_by("pk").values_list("pk", flat=True)) or [1]
    some = Cursor(TODAY if changelist.keyset_query.key.by_time else None, pks[len(pks) // 2])

    for place in ("", f"&before={some}", f"&after={some}"):
        with plans() as found:
            page = staff.get(url + place)

        assert b"Page not found" not in page.content
        read = list_plans(found, changelist.opts.db_table, *PAGE)
        assert read, place
        for plan in read:
            assert index in plan, (place, plan)
            assert not is_sorted(plan), (place, plan)


@pytest.mark.parametrize(("name", "query", "index"), FEW)
def test_lists_of_few(
    staff: Client, written: None, planner: Callable[..., None], name: str, query: str, index: str
) -> None:
    with plans() as found:
        page = staff.get(f"{reverse(f'admin:{name}_changelist')}?{query}")

    (plan,) = list_plans(found, page.context["cl"].opts.db_table, " LIMIT 51")
    assert re.search(index, plan)


@pytest.mark.parametrize(("name", "query", "index"), LISTS)
def test_exports(staff: Client, written: None, planner: Callable[..., None], name: str, query: str, index: str) -> None:
    planner("sort")
    # Without days, what no index leads to is not exported.
    days = f"&{DAYS}" if index == "usage_created" and "from=" not in query else ""
    with plans() as found:
        answer = staff.get(f"{reverse(f'admin:{name}_export')}?{query}{days}")
        assert b"".join(answer.streaming_content)  # type: ignore[attr-defined]

    read = [plan for sql, plan in found if sql.endswith(" LIMIT 201")]
    assert read
    for plan in read:
        assert index in plan, plan
        assert not is_sorted(plan), plan


def pages() -> dict[str, str]:
    usage = reverse(f"admin:{USAGE}_change", args=[UsageEvent.objects.order_by("pk")[0].pk])
    event = reverse(f"admin:{EVENTS}_change", args=[AnalyticsEvent.objects.order_by("pk")[0].pk])
    conversation = reverse("admin:chat_conversation_change", args=[quote("c_1")])
    key = reverse("admin:chat_idempotencykey_change", args=[IdempotencyKey.objects.get().pk])
    client = reverse("admin:chat_clienttoken_change", args=[ClientToken.objects.order_by("pk")[0].pk])
    return {
        "usage": usage,
        "event": event,
        "thread": conversation,
        "older": f"{conversation}?before=3.3",
        "newer": f"{conversation}?after=2.2",
        "whole": f"{conversation}?whole={Message.objects.order_by('pk')[0].pk}",
        "key": key,
        "client": client,
        "clients": reverse("admin:chat_clienttoken_changelist"),
        "user": f"{reverse('admin:analytics_usageevent_user')}?user=ann",
        "breakdown": reverse("admin:analytics_usageevent_breakdown"),
        "breakdown of a client": f"{reverse('admin:analytics_usageevent_breakdown')}?client=1&model=gpt",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("usage", "event", "thread", "older", "newer", "whole", "key", "client", "clients", "user"),
        *("breakdown", "breakdown of a client"),
    ],
)
def test_pages(staff: Client, written: None, planner: Callable[..., None], name: str) -> None:
    planner("sort")
    page = pages()[name]
    with plans() as found:
        assert staff.get(page).status_code == 200

    assert found
    for sql, plan in found:
        # Rows of one conversation and of one user are read in the order of their index.
        if "conversation_id" in sql and "ORDER BY" in sql:
            assert not is_sorted(plan), (sql, plan)
        # Of all users' days, those in question.
        if name.startswith("breakdown") and 'FROM "user_days"' in sql and "LIMIT 20" in sql:
            assert "user_day_bought" in plan, (sql, plan)
