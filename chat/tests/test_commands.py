"""manage.py create_client_token, settle_abandoned and purge_expired."""

from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from analytics.models import AnalyticsEvent, UsageEvent
from bench.openai_double import OpenAIDouble
from chat import retention
from chat.models import ClientToken, IdempotencyKey, Message, RateLimit
from chat.turns import recovery
from conftest import ApiClient


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_settle_abandoned_closes_the_dead_and_spares_the_living(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    for key in ("dead", "living", "done"):
        alice.say(cid, key, key=key)
    now = timezone.now()
    for key, lease in (("dead", now - timedelta(seconds=1)), ("living", now + timedelta(minutes=1))):
        row = IdempotencyKey.objects.get(idempotency_key=key)
        UsageEvent.objects.filter(request_id=row.request_id).update(
            status="pending", finished_at=None, locked_until=lease
        )
        IdempotencyKey.objects.filter(pk=row.pk).update(response_json=None, locked_until=lease)

    assert run("settle_abandoned") == "1 turns abandoned, 1 idempotency keys freed.\n"
    assert run("settle_abandoned") == "0 turns abandoned, 0 idempotency keys freed.\n"

    statuses = UsageEvent.objects.order_by("id").values_list("status", flat=True)
    assert list(statuses) == ["abandoned", "pending", "completed"]
    assert set(IdempotencyKey.objects.values_list("idempotency_key", flat=True)) == {"living", "done"}
    assert AnalyticsEvent.objects.filter(event_name="chat.abandoned").count() == 1


def test_settle_abandoned_ends_when_there_is_more_than_a_batch(
    alice: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    UsageEvent.objects.bulk_create(
        UsageEvent(request_id=f"r_{n}", client_token_id=1, user_id="u", model="m", locked_until=now - timedelta(1))
        for n in range(5)
    )
    monkeypatch.setattr(recovery.settle_all_abandoned, "__kwdefaults__", {"batch": 2})

    assert recovery.settle_all_abandoned(now) == (5, 0)


def test_purge_expired(alice: ApiClient, upstream: OpenAIDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    cid = alice.conversation()
    for n in range(4):
        alice.say(cid, "Hi", key=f"k-{n}")
    long_ago = timezone.now() - timedelta(hours=25)
    old = IdempotencyKey.objects.exclude(idempotency_key="k-3")
    old.update(created_at=long_ago, locked_until=long_ago)
    RateLimit.objects.update(theoretical_arrival=timezone.now().timestamp() + 60)
    RateLimit.objects.create(key="rpm:0", theoretical_arrival=1)

    printed = run("purge_expired")

    assert "3 idempotency keys deleted." in printed
    assert "1 rate limits at rest deleted." in printed
    assert IdempotencyKey.objects.get().idempotency_key == "k-3"
    assert RateLimit.objects.count() == 1
    assert Message.objects.count() == 8


def test_bad_arguments_are_said(db: None) -> None:
    with pytest.raises(CommandError):
        run("create_client_token", "web", "--expires-in-days=0")
    with pytest.raises(CommandError):
        run("metrics_report", "--days=0")


@pytest.mark.parametrize("name", ["", "  ", "a\x1b[2J", "a\nb"])
def test_a_name_can_be_read(db: None, name: str) -> None:
    with pytest.raises(CommandError, match="NAME"):
        run("create_client_token", name)
    assert not ClientToken.objects.exists()


@pytest.mark.parametrize("option", ["--rate-limit=99999999999999999999", "--expires-in-days=999999999"])
def test_options_are_named_as_they_are_given(db: None, option: str) -> None:
    with pytest.raises(CommandError, match=option.split("=")[0] + "(:| takes)"):
        run("create_client_token", "web", option)


def test_a_token_with_limits(db: None) -> None:
    run("create_client_token", "web", "--day-tokens=5000", "--user-month-usd=2.50", "--concurrent-turns=4")

    client = ClientToken.objects.get(name="web")
    assert (client.day_tokens, client.user_month_usd, client.concurrent_turns) == (5000, Decimal("2.50"), 4)
    assert client.month_tokens is None


@pytest.mark.parametrize("option", ["--day-tokens=0", "--day-usd=lots", "--tokens-per-min=-1"])
def test_limits_that_are_none(db: None, option: str) -> None:
    with pytest.raises(CommandError, match=option.split("=")[0]):
        run("create_client_token", "web", option)
    assert not ClientToken.objects.exists()
