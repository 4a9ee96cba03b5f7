"""A client's own usage, and what is left of its limits."""

import time
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from analytics.metrics.single_user import bought_by_day_and_model
from analytics.metrics.sources import Table
from analytics.metrics.usage import usage_by_day_and_model
from analytics.query import MAX_USAGE_DAYS, Filters, InvalidQuery, Period, Query
from analytics.rollups.coverage import bring_up_to_date
from chat.api import answers, openapi
from chat.api.base import ClientViewSet, client_of
from chat.api.limits import limits_of
from chat.api.serializers import validated
from chat.api.users import UserId, user_of
from chat.limits import budgets
from chat.limits.rates import token_status
from chat.limits.status import NANOS, LimitStatus
from chat.models import Budget, ClientToken


class UsageQuery(serializers.Serializer[Any]):
    to = serializers.DateField(required=False, help_text="The last UTC day. Without it: today.")
    user = UserId(required=False, help_text="The end user whose limits to show.")

    def get_fields(self) -> dict[str, Any]:
        since = serializers.DateField(required=False, help_text="The first UTC day. Without it: 30 days in all.")
        return {"from": since, **super().get_fields()}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            days: dict[str, str] = {name: str(attrs[name]) for name in ("from", "to") if name in attrs}
            return {**attrs, "period": Query.from_params(days, max_days=MAX_USAGE_DAYS).period}
        except InvalidQuery as exc:
            raise serializers.ValidationError({exc.param: [str(exc)]}) from exc


OwnUsageRow = answers.shape(
    "OwnUsageRow",
    day=serializers.DateField(),
    model=str,
    turns=serializers.IntegerField(help_text="Turns that have ended; of a session, those that were sold."),
    **{
        name: serializers.IntegerField(allow_null=True, help_text="Null for a session.")
        for name in ("failed", "prompt_tokens", "cached_tokens", "completion_tokens")
    },
    total_tokens=int,
    cost_usd=serializers.FloatField(allow_null=True, help_text="Null where a price is unknown."),
)
RESETS_AT = serializers.IntegerField(allow_null=True, help_text="Seconds since 1970. Null: it comes back as turns end.")
LimitStatusOut = answers.shape("LimitStatusOut", name=str, most=float, left=float, resets_at=RESETS_AT)
OwnUsageOut = answers.shape(
    "OwnUsageOut",
    object="usage",
    **{day: serializers.DateField() for day in ("from", "to")},
    data=OwnUsageRow(many=True),
    computed_at=serializers.DateTimeField(help_text="Everything that was settled before is in the figures."),
    limits=LimitStatusOut(many=True),
)


class UsageViewSet(ClientViewSet):
    @openapi.operation("Usage", OwnUsageOut, 400, parameters=[UsageQuery], operation_id="v1_usage")
    def list(self, request: Request) -> Response:
        """Return what this client has used by UTC day and model, and what is left of its limits."""
        client, query = client_of(request), validated(UsageQuery(data=request.query_params))
        period, user_id = query["period"], user_of(client, query.get("user"))
        coverage, now, tokens = bring_up_to_date(), timezone.now(), token_status(client)
        # This request itself is counted in its limits. The others are those that only turns are counted against.
        limits = [*limits_of(request), *([tokens] if tokens else [])]
        limits += budgets.read_statuses(budgets.budgets_of(client, user_id, now), now)
        return Response(
            {
                "object": "usage",
                "from": period.first.isoformat(),
                "to": period.last.isoformat(),
                "data": usage_of(client, period),
                "computed_at": coverage.computed_at.isoformat(timespec="seconds"),
                "limits": [limit_object(limit) for limit in limits],
            }
        )


def usage_of(client: ClientToken, period: Period) -> list[dict[str, Any]]:
    """Return what the client has used by day and model; of a session, what its person has."""
    query = Query(period, Filters(client_token_id=client.pk))
    return bought_by_day_and_model(query, client.person.pk) if client.person else usage_by_day_and_model(Table(query))


def limit_object(limit: LimitStatus) -> dict[str, Any]:
    is_money = limit.unit == Budget.Unit.NANOS
    budget_resets_at = limit.resets_at.timestamp() if limit.resets_at else None
    resets_at = time.time() + limit.reset_in if limit.window else budget_resets_at
    return {
        "name": limit.name,
        "most": limit.most / NANOS if is_money else limit.most,
        "left": limit.left / NANOS if is_money else limit.left,
        "resets_at": None if resets_at is None else round(resets_at),
    }
