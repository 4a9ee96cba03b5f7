import logging
from contextlib import ExitStack
from typing import Any

from django.db import Error
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from prometheus_client import Metric
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from analytics import instruments, replica
from analytics.api.parameters import PARAMETERS, check_names, query_of
from analytics.api.permissions import MayReadMetrics
from analytics.api.renderers import CSVRenderer, FormatNegotiation, OpenMetricsRenderer, PrometheusRenderer
from analytics.causes import cause
from analytics.fairness import Busy, Share
from analytics.metrics.prometheus import Families
from analytics.metrics.registry import METRICS, one, report
from analytics.rollups.coverage import bring_up_to_date

logger = logging.getLogger(__name__)

REPORT = inline_serializer(
    "Metrics",
    {
        "dau_last_30_days": serializers.ListField(child=serializers.DictField(), required=False),
        "token_burn_last_30_days": serializers.IntegerField(required=False),
        "dau": serializers.ListField(child=serializers.DictField()),
        "success_rate": serializers.FloatField(allow_null=True),
        "avg_latency_ms": serializers.FloatField(allow_null=True),
        "total_tokens": serializers.IntegerField(),
        "time_spent_samples": serializers.ListField(child=serializers.DictField()),
        "latency_ms": serializers.DictField(child=serializers.FloatField(allow_null=True)),
        "turns": serializers.DictField(child=serializers.IntegerField()),
        "token_burn": serializers.ListField(child=serializers.DictField()),
        "cost_usd": serializers.FloatField(allow_null=True),
        "window": serializers.DictField(),
        "filters": serializers.DictField(),
        "definitions": serializers.DictField(child=serializers.DictField()),
        "computed_at": serializers.DateTimeField(),
    },
)
METRIC = inline_serializer(
    "Metric",
    {
        "name": serializers.CharField(),
        "value": serializers.JSONField(),
        "unit": serializers.CharField(),
        "definition": serializers.CharField(),
        "window": serializers.DictField(),
        "filters": serializers.DictField(),
        "computed_at": serializers.DateTimeField(),
    },
)
FORMAT = OpenApiParameter("format", str, enum=["json", "openmetrics", "prometheus"])
METRIC_FORMAT = OpenApiParameter("format", str, enum=["json", "csv"])
NAME = OpenApiParameter("name", str, OpenApiParameter.PATH, enum=list(METRICS))


# Answers that a process computes at once: in all, and for one client token or member of the staff. Everybody who needs
# no token counts as one.
FIGURES = Share(lambda: 4, patience=1, most_waiting=8)


class TooManyReaders(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = "Too many figures are being computed; ask again in a moment."
    retry_after = 1  # second


class MetricsAPIView(APIView):
    authentication_classes = [*api_settings.DEFAULT_AUTHENTICATION_CLASSES, SessionAuthentication]  # type: ignore[list-item]
    permission_classes = [MayReadMetrics]
    content_negotiation_class = FormatNegotiation

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        owner = request.auth or getattr(request.user, "pk", None)
        try:
            self.place.enter_context(FIGURES.held(owner))
        except Busy as exc:
            raise TooManyReaders from exc

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as self.place:
            response: Any = super().dispatch(request, *args, **kwargs)
            response.render()
            return response

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error as JSON, whatever else was asked for."""
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)


class MetricsView(MetricsAPIView):
    renderer_classes = [JSONRenderer, OpenMetricsRenderer, PrometheusRenderer]

    @extend_schema(
        operation_id="metrics",
        tags=["Metrics"],
        parameters=[*PARAMETERS, FORMAT],
        responses={
            (200, "application/json"): REPORT,
            (200, "application/openmetrics-text"): str,
            (200, "text/plain"): str,
        },
    )
    @replica.reading()
    def get(self, request: Request) -> Response:
        """Return who uses the service, how well it works, and what it costs: over the last 30 days by default.

        Everybody may read it while METRICS_PUBLIC is set; otherwise staff, and tokens that may read metrics. Prometheus
        gets what the processes of this server have measured since it began, and the totals of the ledger, which are
        left out while the database is away. The first five figures of the period are `dau`, `success_rate`,
        `avg_latency_ms`, `total_tokens` and `time_spent_samples`. For the last 30 days, the first and the fourth are
        there as `dau_last_30_days` and `token_burn_last_30_days`, too. `computed_at` says as of when all figures are.
        """
        if isinstance(renderer := request.accepted_renderer, PrometheusRenderer):
            check_names(request.query_params, known=())
            return Response(Families([*instruments.families(), *totals()]), content_type=renderer.content_type)
        return Response(report(query_of(request.query_params), bring_up_to_date().computed_at))


def totals() -> list[Metric]:
    """Read the totals of the ledger; none where the database is away: what processes measure is told all the same."""
    try:
        bring_up_to_date()
        return Families.read().families
    except Error as exc:
        logger.warning("the totals are left out: %s", cause(exc))
        return []


class MetricView(MetricsAPIView):
    renderer_classes = [JSONRenderer, CSVRenderer]

    @extend_schema(
        operation_id="metric",
        tags=["Metrics"],
        parameters=[NAME, *PARAMETERS, METRIC_FORMAT],
        responses={(200, "application/json"): METRIC, (200, "text/csv"): str},
    )
    @replica.reading()
    def get(self, request: Request, name: str, **kwargs: Any) -> Response:
        """Return one metric, and what it means."""
        if name not in METRICS:
            raise Http404
        return Response(one(name, query_of(request.query_params), bring_up_to_date().computed_at))


class MetricTableView(MetricView):
    renderer_classes = [CSVRenderer]

    @extend_schema(
        operation_id="metric_table",
        tags=["Metrics"],
        parameters=[NAME, *PARAMETERS],
        responses={(200, "text/csv"): str},
    )
    def get(self, request: Request, name: str, **kwargs: Any) -> Response:
        """Return one metric as a table for a spreadsheet: its rows; where it has an overall figure, its rows by day."""
        return super().get(request, name, **kwargs)
