"""Export of lists as CSV."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from analytics.models import UsageEvent
from analytics.tests.sample_week import ANN, BOB, TODAY, at, event, row, turn, write_week
from bench.openai_double import OpenAIDouble
from chat.models import AuditRecord, Conversation, IdempotencyKey
from conftest import ApiClient
from llmapi.staff.lists import export as exports
from llmapi.staff.lists import keyset

USAGE = "analytics_usageevent"
EVENTS = "analytics_analyticsevent"
LISTS = [USAGE, EVENTS, *(f"chat_{name}" for name in ("conversation", "idempotencykey", "clienttoken", "budget"))]


def body(answer: Any) -> str:
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()


def exported(client: Client, name: str, **query: Any) -> list[dict[str, str]]:
    answer = client.get(reverse(f"admin:{name}_export"), query)
    return list(csv.DictReader(io.StringIO(body(answer), newline="")))


def test_exports_every_column_of_the_list(staff: Client) -> None:
    write_week()

    answer = staff.get(reverse(f"admin:{USAGE}_export"))

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == f'attachment; filename="usage_events-{TODAY.date()}.csv"'
    assert "no-store" in answer["Cache-Control"]
    rows = list(csv.DictReader(io.StringIO(body(answer))))
    newest = UsageEvent.objects.order_by("-created_at", "-pk")
    assert [found["request_id"] for found in rows] == [found.request_id for found in newest]
    assert rows[0]["status"] == "pending"
    assert rows[2] == {
        "request_id": newest[2].request_id,
        "created_at": at(TODAY, 8).isoformat(),
        "finished_at": at(TODAY, 8).isoformat(),
        "status": "completed",
        "error_code": "",
        "client_token_id": "1",
        "user_id": "bob",
        "conversation_id": "",
        "model": "gpt",
        "served_model": "",
        "service_tier": "",
        "app_version": "2.0",
        "prompt_tokens": "90",
        "cached_tokens": "40",
        "cache_write_tokens": "0",
        "completion_tokens": "10",
        "reasoning_tokens": "5",
        "total_tokens": "100",
        "is_estimated": "False",
        "cost_usd": "0.000001",
        "latency_ms": "500",
        "first_token_ms": "",
        "is_stream": "False",
    }


@pytest.mark.parametrize("name", LISTS)
def test_every_list_has_an_export(staff: Client, alice: ApiClient, upstream: OpenAIDouble, name: str) -> None:
    alice.token_row.day_tokens = 1_000_000
    alice.token_row.save()
    alice.say(alice.conversation(), "Hello", key="k")

    assert f"{reverse(f'admin:{name}_export')}?" in staff.get(reverse(f"admin:{name}_changelist")).content.decode()
    assert exported(staff, name)


def test_keeps_the_filters_of_the_list(staff: Client) -> None:
    write_week()
    page = staff.get(reverse(f"admin:{USAGE}_changelist"), {"user": "bob", "status": "failed", "before": "1.1"})
    assert 'export/?status=failed&amp;user=bob"' in page.content.decode()

    (found,) = exported(staff, USAGE, user="bob", status="failed")
    assert (found["user_id"], found["error_code"]) == ("bob", "upstream_error")


def test_reads_in_chunks(
    staff: Client, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    monkeypatch.setattr(exports, "CHUNK_ROWS", 3)
    for minute in range(7):
        row(ANN, at(TODAY, 1, minute // 2))
    answer = staff.get(reverse(f"admin:{USAGE}_export"))

    with django_assert_num_queries(3):
        chunks = list(answer.streaming_content)  # type: ignore[attr-defined]

    assert [chunk.count(b"\r\n") for chunk in chunks] == [4, 3, 1]
    lines = b"".join(chunks).decode().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [f"r_{n}" for n in (6, 5, 4, 3, 2, 1, 0)]


def test_pauses_for_other_requests(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(exports, "CHUNK_ROWS", 1)
    monkeypatch.setattr("llmapi.staff.lists.export.time.sleep", pauses.append)
    write_week()

    rows = exported(staff, USAGE)

    # Others of the process sleep as well.
    assert pauses.count(exports.PAUSE_SECONDS) == len(rows)
    assert exports.PAUSE_SECONDS > 0


def test_goes_on_where_few_rows_match(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyset, "SCAN_LIMIT", 2)
    for minute in range(10):
        row({**ANN, "app_version": "2.0" if minute in (0, 8) else "1.0"}, at(TODAY, 1, minute))

    few = {"app_version": "2.0", "from": TODAY.date().isoformat()}
    assert [found["request_id"] for found in exported(staff, USAGE, **few)] == ["r_8", "r_0"]


@pytest.mark.parametrize("days", ["", f"&from={TODAY.date() - timedelta(days=31)}", f"&to={TODAY.date()}"])
def test_refuses_a_search_over_too_many_days(staff: Client, days: str) -> None:
    answer = staff.get(f"{reverse(f'admin:{USAGE}_export')}?app_version=2.0{days}", follow=True)

    assert "at most 31 days" in answer.content.decode()
    assert answer.redirect_chain[0][0].endswith(f"/?app_version=2.0{days}")
    assert not AuditRecord.objects.exists()


def test_no_cell_is_a_formula(staff: Client) -> None:
    turn({**BOB, "user_id": "=HYPERLINK(1)"}, TODAY, error_code="+1")

    (found,) = exported(staff, USAGE)

    assert found["user_id"] == "'=HYPERLINK(1)"
    assert found["error_code"] == "'+1"


def test_metadata_needs_the_permission(staff: Client, clerk: Callable[..., Client]) -> None:
    event(ANN, TODAY, note="=secret")
    allowed, other = staff, clerk("view_analyticsevent")

    assert json.loads(exported(allowed, EVENTS)[0]["metadata_json"]) == {"note": "=secret"}
    assert "metadata_json" not in exported(other, EVENTS)[0]
    assert exported(other, EVENTS)[0]["user_id"] == "ann"


def test_no_export_has_texts_of_users(staff: Client, alice: ApiClient, upstream: OpenAIDouble) -> None:
    alice.say(alice.conversation(), "a secret", key="k")

    assert IdempotencyKey.objects.get().response_json
    for name in LISTS:
        assert "a secret" not in str(exported(staff, name))


def test_exports_metadata_of_conversations(
    staff: Client, alice: ApiClient, clerk: Callable[..., Client], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for n in range(3):
        alice.send("/v1/conversations", {"metadata": {"n": str(n)}})

    answer = staff.get(reverse("admin:chat_conversation_export"))
    with django_assert_num_queries(1):
        text = body(answer)

    assert '""n"": ""2""' in text
    assert "metadata" not in exported(clerk("view_conversation"), "chat_conversation")[0]
    assert Conversation.objects.count() == 3


def test_is_recorded_before_anything_is_sent(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    row(ANN, TODAY)
    exported(staff, USAGE, user="ann")

    record = AuditRecord.objects.get()
    assert (record.staff_name, record.action, record.subject, record.detail) == (
        "staff",
        "exported",
        "usage_events",
        "user=ann",
    )

    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(AuditRecord.objects, "create", fail)
    staff.raise_request_exception = False
    answer = staff.get(reverse(f"admin:{USAGE}_export"))
    assert answer.status_code == 500
    assert b"ann" not in answer.content


def test_needs_the_permission_to_see_the_list(clerk: Callable[..., Client]) -> None:
    client = clerk("view_conversation")

    assert client.get(reverse(f"admin:{USAGE}_export")).status_code == 403
    with closing(client.get(reverse("admin:chat_conversation_export"))) as answer:
        assert answer.status_code == 200
    assert Client().get(reverse("admin:chat_conversation_export")).status_code == 302


def test_a_bad_filter_goes_back_to_the_list(staff: Client) -> None:
    for query in ("from=x", "user_id__contains=a", "client=x"):
        answer = staff.get(f"{reverse(f'admin:{USAGE}_export')}?{query}", follow=True)
        assert "The filters cannot be read" in answer.content.decode()
    assert not AuditRecord.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_holds_no_connection_while_the_client_reads(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    monkeypatch.setattr(exports, "CHUNK_ROWS", 1)
    for _ in range(3):
        row(ANN, TODAY)
    with closing(staff.get(reverse(f"admin:{USAGE}_export"))) as answer:
        chunks = iter(answer.streaming_content)  # type: ignore[attr-defined]
        for _ in range(3):
            next(chunks)
            assert connection.connection is None
