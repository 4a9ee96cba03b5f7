from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from analytics import metrics
from analytics.permissions import MayReadMetrics

METRICS = inline_serializer(
    "Metrics",
    {
        "dau_last_30_days": serializers.ListField(child=serializers.DictField()),
        "success_rate": serializers.FloatField(allow_null=True),
        "avg_latency_ms": serializers.FloatField(allow_null=True),
        "token_burn_last_30_days": serializers.IntegerField(),
        "time_spent_samples": serializers.ListField(child=serializers.DictField()),
        "latency_ms": serializers.DictField(child=serializers.FloatField(allow_null=True)),
        "turns": serializers.DictField(child=serializers.IntegerField()),
        "token_burn": serializers.ListField(child=serializers.DictField()),
        "cost_usd": serializers.FloatField(allow_null=True),
        "window": serializers.DictField(),
        "computed_at": serializers.DateTimeField(),
    },
)


class MetricsView(APIView):
    authentication_classes = [*api_settings.DEFAULT_AUTHENTICATION_CLASSES, SessionAuthentication]  # type: ignore[list-item]
    permission_classes = [MayReadMetrics]

    @extend_schema(tags=["Metrics"], responses=METRICS)
    def get(self, request: Request) -> Response:
        """Who uses the service, how well it works, and what it costs, over the last 30 days.

        For everybody while METRICS_PUBLIC is set; otherwise for staff, and for tokens that may read metrics.
        """
        return Response(metrics.report())
