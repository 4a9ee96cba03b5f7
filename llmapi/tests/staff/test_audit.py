"""Texts of users need a permission, and reading them is recorded."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from analytics.models import AnalyticsEvent
from bench.openai_double import OpenAIDouble
from chat.models import AuditRecord, Conversation, IdempotencyKey, Message
from conftest import ApiClient


def url(conversation_id: str) -> str:
    return reverse("admin:chat_conversation_change", args=[quote(conversation_id)])


@pytest.fixture
def conversation(alice: ApiClient) -> Conversation:
    found = Conversation.objects.create(
        pk="c_1", client_token=alice.token_row, user_id="ann", metadata={"name": "a secret name"}
    )
    Message.objects.create(conversation=found, role="assistant", content="a secret")
    return found


def test_texts_need_the_permission(conversation: Conversation, clerk: Callable[..., Client]) -> None:
    client = clerk("view_conversation")

    page = client.get(url("c_1"))
    answer = page.content.decode()

    assert "secret" not in answer
    assert not hasattr(page.context["thread"].entries[0].message, "text")
    assert "8 characters" in answer
    assert "Hidden without the permission “Can read prompts and replies”: metadata." in answer
    assert "secret" not in client.get(f"{url('c_1')}?whole={Message.objects.get(role='assistant').pk}").content.decode()
    assert not AuditRecord.objects.exists()


def test_reading_is_recorded(conversation: Conversation, clerk: Callable[..., Client]) -> None:
    client = clerk("view_conversation", "read_messages")

    assert b"a secret" in client.get(f"{url('c_1')}?before=99.99").content

    record = AuditRecord.objects.get()
    assert (record.staff_name, record.action, record.subject, record.subject_id, record.detail) == (
        "clerk",
        "read",
        "conversations",
        "c_1",
        "before=99.99",
    )
    conversation.delete()
    assert AuditRecord.objects.count() == 1


def test_nothing_is_shown_if_the_record_fails(
    staff: Client, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(AuditRecord.objects, "create", fail)
    staff.raise_request_exception = False
    answer = staff.get(url("c_1"))

    assert answer.status_code == 500
    assert b"secret" not in answer.content


def test_is_recorded_before_the_thread_is_read(staff: Client, conversation: Conversation) -> None:
    with CaptureQueriesContext(connection) as queries:
        staff.get(url("c_1"))

    statements = [query["sql"] for query in queries]
    recorded = next(i for i, sql in enumerate(statements) if sql.startswith('INSERT INTO "audit_records"'))
    assert recorded < next(i for i, sql in enumerate(statements) if 'FROM "messages"' in sql)


@pytest.mark.parametrize("name", ["chat_idempotencykey", "analytics_analyticsevent"])
def test_stored_responses_and_metadata_need_it_too(
    staff: Client, alice: ApiClient, upstream: OpenAIDouble, clerk: Callable[..., Client], name: str
) -> None:
    alice.say(alice.conversation(), "Hello", key="k")
    model: Any = IdempotencyKey if name == "chat_idempotencykey" else AnalyticsEvent
    found = model.objects.get()
    page_url = reverse(f"admin:{name}_change", args=[found.pk])
    text = "echo: " if name == "chat_idempotencykey" else "total_tokens"

    hidden = clerk(f"view_{model._meta.model_name}").get(page_url).content.decode()
    assert text not in hidden
    assert "Hidden without the permission" in hidden
    assert not AuditRecord.objects.exists()

    assert text in staff.get(page_url).content.decode()
    record = AuditRecord.objects.get()
    # A stored answer is found by who asks who has read the conversation.
    reply = ("conversations", Conversation.objects.get().pk)
    expected = reply if name == "chat_idempotencykey" else (model._meta.db_table, str(found.pk))
    assert (record.subject, record.subject_id) == expected


def test_a_missing_conversation_is_not_recorded(staff: Client) -> None:
    assert staff.get(url("c_none")).status_code == 302
    assert not AuditRecord.objects.exists()


def test_the_record_is_read_only(staff: Client, conversation: Conversation, clerk: Callable[..., Client]) -> None:
    staff.get(url("c_1"))
    record = AuditRecord.objects.get()
    change = reverse("admin:chat_auditrecord_change", args=[record.pk])

    assert url("c_1") in staff.get(reverse("admin:chat_auditrecord_changelist"), {"q": "c_1"}).content.decode()
    assert staff.get(change).status_code == 200
    assert staff.post(change, {"staff_name": "x"}).status_code == 403
    assert staff.post(reverse("admin:chat_auditrecord_delete", args=[record.pk])).status_code == 403
    assert staff.get(reverse("admin:chat_auditrecord_add")).status_code == 403
    assert clerk("view_conversation").get(change).status_code == 403
