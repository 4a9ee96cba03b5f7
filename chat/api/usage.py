"""A client's own use, and what is left of its limits: where the ledger and the limits meet."""

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics.metrics.sources import Table
from analytics.metrics.usage import usage_by_day_and_model
from analytics.query import BEGINNING, DAY, MAX_USAGE_DAYS, Filters, Period, Query, today
from analytics.rollups.coverage import bring_up_to_date
from chat.api import openapi as schema
from chat.api.base import ClientViewSet, client_of
from chat.limits import budgets
from chat.limits.rates import verdict_now, verdicts_of
from chat.models import Budget, ClientToken

DEFAULT_DAYS = 30


class UsageQuery(serializers.Serializer[Any]):
    to = serializers.DateField(required=False, help_text="The last UTC day; today without it.")
    user = serializers.CharField(required=False, max_length=255, help_text="Whose limits to show, of the end users.")

    def get_fields(self) -> dict[str, Any]:
        since = serializers.DateField(required=False, help_text="The first UTC day; 30 days in all without it.")
        return {"from": since, **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        last: date = attrs.get("to", today())
        if not BEGINNING <= last <= today() + MAX_USAGE_DAYS * DAY:
            raise serializers.ValidationError({"to": ["Name a day of this century that is not far in the future."]})
        first: date = attrs.get("from", last - (DEFAULT_DAYS - 1) * DAY)
        if not 0 <= (last - first).days < MAX_USAGE_DAYS:
            raise serializers.ValidationError({"from": [f"Name a day up to {MAX_USAGE_DAYS} days before `to`."]})
        return {**attrs, "period": Period(first, last)}


class OwnUsageRow(serializers.Serializer[Any]):
    day = serializers.DateField()
    model = serializers.CharField()
    turns = serializers.IntegerField(help_text="That have ended.")
    failed = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField(help_text="Of the prompt tokens.")
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    cost_usd = serializers.FloatField(allow_null=True, help_text="Null where a price is unknown.")


class LimitRow(serializers.Serializer[Any]):
    name = serializers.CharField()
    most = serializers.FloatField()
    left = serializers.FloatField()
    resets_at = serializers.IntegerField(
        allow_null=True, help_text="Seconds since 1970; null where it comes back as turns end."
    )


class OwnUsageOut(serializers.Serializer[Any]):
    object = serializers.ChoiceField(choices=["usage"])
    to = serializers.DateField()
    data = OwnUsageRow(many=True)  # type: ignore[assignment]
    computed_at = serializers.DateTimeField(help_text="Everything that was settled before is in the figures.")
    limits = LimitRow(many=True)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateField(), **super().get_fields()}


class UsageViewSet(ClientViewSet):
    @extend_schema(
        tags=["Usage"],
        parameters=[UsageQuery],
        responses={200: OwnUsageOut, **schema.errors(400, *schema.COMMON)},
        operation_id="v1_usage",
    )
    def list(self, request: Request) -> Response:
        """What this client has used, by UTC day and model, and what is left of each of its limits."""
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        client, period = client_of(request), query.validated_data["period"]
        user_id = query.validated_data.get("user", client.default_user_id)
        coverage = bring_up_to_date()
        return Response(
            {
                "object": "usage",
                "from": period.first.isoformat(),
                "to": period.last.isoformat(),
                "data": usage_by_day_and_model(Table(Query(period, Filters(client_token_id=client.pk)))),
                "computed_at": coverage.computed_at.isoformat(timespec="seconds"),
                "limits": [*rates(request, client), *spending(client, user_id)],
            }
        )


def rates(request: Request, client: ClientToken) -> Iterator[dict[str, Any]]:
    """The limits of a minute; this request itself is counted."""
    verdicts = [*verdicts_of(request._request), *([tokens] if (tokens := verdict_now(client)) else [])]
    for verdict in verdicts:
        yield {
            "name": f"{verdict.unit}_per_min",
            "most": verdict.limit,
            "left": verdict.remaining,
            "resets_at": round(time.time() + verdict.backlog),
        }


def spending(client: ClientToken, user_id: str) -> Iterator[dict[str, Any]]:
    """Budgets, and turns at once."""
    limits = [limit for limit in budgets.limits_of(client, user_id, timezone.now()) if limit.most is not None]
    used = budgets.used_of(limits) if limits else {}
    for limit in limits:
        most = limit.most or 0
        yield {
            "name": limit.name,
            "most": shown(limit, most),
            "left": shown(limit, max(0, most - used.get(limit.key, 0))),
            "resets_at": round(limit.resets_at.timestamp()) if limit.resets_at else None,
        }


def shown(limit: budgets.Limit, amount: int) -> float:
    return amount / budgets.NANOS if limit.unit == Budget.Unit.NANOS else amount
