"""A client's own usage, and what is left of its limits."""

import time
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
from chat.api import openapi
from chat.api.base import ClientViewSet, client_of
from chat.api.limits import limits_of
from chat.limits import budgets
from chat.limits.rates import token_status
from chat.limits.status import NANOS, LimitStatus
from chat.models import Budget, ClientToken

DEFAULT_DAYS = 30


class UsageQuery(serializers.Serializer[Any]):
    to = serializers.DateField(required=False, help_text="The last UTC day. Without it: today.")
    user = serializers.CharField(required=False, max_length=255, help_text="The end user whose limits to show.")

    def get_fields(self) -> dict[str, Any]:
        since = serializers.DateField(required=False, help_text="The first UTC day. Without it: 30 days in all.")
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
    turns = serializers.IntegerField(help_text="Turns that have ended.")
    failed = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField(help_text="Of the prompt tokens.")
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    cost_usd = serializers.FloatField(allow_null=True, help_text="Null where a price is unknown.")


class LimitStatusOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    most = serializers.FloatField()
    left = serializers.FloatField()
    resets_at = serializers.IntegerField(
        allow_null=True, help_text="Seconds since 1970. Null: it comes back as turns end."
    )


class OwnUsageOut(serializers.Serializer[Any]):
    object = serializers.ChoiceField(choices=["usage"])
    to = serializers.DateField()
    data = OwnUsageRow(many=True)  # type: ignore[assignment]
    computed_at = serializers.DateTimeField(help_text="Everything that was settled before is in the figures.")
    limits = LimitStatusOut(many=True)

    def get_fields(self) -> dict[str, Any]:
        return {"from": serializers.DateField(), **super().get_fields()}


class UsageViewSet(ClientViewSet):
    @extend_schema(
        **openapi.operation("Usage", OwnUsageOut, 400, *openapi.COMMON, parameters=[UsageQuery]),
        operation_id="v1_usage",
    )
    def list(self, request: Request) -> Response:
        """Return what this client has used by UTC day and model, and what is left of its limits."""
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
                # This request itself is counted in its limits.
                "limits": [limit_object(limit) for limit in [*limits_of(request), *other_limits(client, user_id)]],
            }
        )


def other_limits(client: ClientToken, user_id: str) -> list[LimitStatus]:
    """Read the limits that only turns are counted against."""
    now = timezone.now()
    tokens = token_status(client)
    return [*([tokens] if tokens else []), *budgets.read_statuses(budgets.budgets_of(client, user_id, now), now)]


def limit_object(limit: LimitStatus) -> dict[str, Any]:
    unit = NANOS if limit.unit == Budget.Unit.NANOS else 1
    resets_at = limit.resets_at.timestamp() if limit.resets_at else None
    if limit.window:
        resets_at = time.time() + limit.reset_in
    return {
        "name": limit.name,
        "most": limit.most / unit if unit > 1 else limit.most,
        "left": limit.left / unit if unit > 1 else limit.left,
        "resets_at": None if resets_at is None else round(resets_at),
    }
