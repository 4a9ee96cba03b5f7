"""GET /v1/usage."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from analytics.tests.sample_week import make_current
from bench.openai_double import OpenAIDouble
from chat.models import ClientToken
from conftest import ApiClient

pytestmark = pytest.mark.usefixtures("noon")

HI = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 95}


def limits_in(answer: Any) -> dict[str, tuple[float, float]]:
    return {limit["name"]: (limit["most"], limit["left"]) for limit in answer.json()["limits"]}


def test_it_works(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    limits = {"day_tokens": 1000, "month_usd": Decimal("0.01"), "user_day_tokens": 200, "concurrent_turns": 3}
    ClientToken.objects.filter(pk=alice.token_row.pk).update(tokens_per_min=5000, **limits)
    for user in ("u1", "u1", "u2"):
        alice.send("/v1/chat/completions", {**HI, "user": user})
    bob.send("/v1/chat/completions", HI)

    answer = alice.get("/v1/usage?user=u1")

    today = timezone.now().date()
    body = answer.json()
    assert (body["object"], body["from"], body["to"]) == (
        "usage",
        (today - timedelta(days=29)).isoformat(),
        today.isoformat(),
    )
    # Each turn has 5 tokens of prompt and 3 of completion: 5 * 150 + 3 * 600 billionths of a dollar.
    assert body["data"] == [
        {
            "day": today.isoformat(),
            "model": "gpt-4o-mini",
            "turns": 3,
            "failed": 0,
            "prompt_tokens": 15,
            "cached_tokens": 0,
            "completion_tokens": 9,
            "total_tokens": 24,
            "cost_usd": 3 * 2550 / 1e9,
        }
    ]
    left = limits_in(answer)
    assert left.pop("requests_per_min")[1] >= 996
    assert left.pop("tokens_per_min")[1] >= 4976
    assert left == {
        "concurrent_turns": (3, 3),
        "day_tokens": (1000, 1000 - 24),
        "user_day_tokens": (200, 200 - 16),
        "month_usd": (0.01, 0.01 - 3 * 2550 / 1e9),
    }
    assert limits_in(bob.get("/v1/usage")).keys() == {"requests_per_min"}


def test_the_days_that_are_asked_for(alice: ApiClient, upstream: OpenAIDouble) -> None:
    alice.send("/v1/chat/completions", HI)
    yesterday = (timezone.now() - timedelta(days=1)).date()

    assert alice.get(f"/v1/usage?to={yesterday}").json()["data"] == []
    assert len(alice.get(f"/v1/usage?from={yesterday}").json()["data"]) == 1
    for query in (
        "from=yesterday",
        "from=2020-01-01",
        "from=2026-02-02&to=2026-02-01",
        "to=0001-01-01",
        "to=9999-12-31",
    ):
        answer = alice.get(f"/v1/usage?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] in query


def test_queries(alice: ApiClient, upstream: OpenAIDouble, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    ClientToken.objects.filter(pk=alice.token_row.pk).update(tokens_per_min=5000, day_tokens=1000)
    alice.send("/v1/chat/completions", HI)

    make_current()
    with django_assert_num_queries(7):
        assert alice.get("/v1/usage").status_code == 200
