"""Metrics for machines: CSV for a spreadsheet, and the text that Prometheus scrapes."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from analytics.reports.csv import escape_cell


class CSVRenderer(BaseRenderer):
    """The rows of one metric; where it has an overall figure, its rows by day."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        if data is None:
            return b""
        rows = rows_of(data["value"])
        out = io.StringIO()
        if rows:
            writer = csv.writer(out)
            writer.writerow(rows[0])
            writer.writerows([escape_cell(cell) for cell in row.values()] for row in rows)
        # Without a body the answer would have no Content-Type.
        return (out.getvalue() or "\r\n").encode()


def rows_of(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        value = value.get("by_day", [value])
    return value if isinstance(value, list) else [{"value": value}]


class PrometheusRenderer(BaseRenderer):
    media_type = "text/plain"
    format = "prometheus"
    charset = None
    content_type = exposition.CONTENT_TYPE_PLAIN_0_0_4

    generate: Callable[[Collector], bytes] = staticmethod(exposition.generate_latest)

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else self.generate(data)


class OpenMetricsRenderer(PrometheusRenderer):
    media_type = "application/openmetrics-text"
    format = "openmetrics"
    content_type = openmetrics.CONTENT_TYPE_LATEST
    generate = staticmethod(openmetrics.generate_latest)


class FormatNegotiation(DefaultContentNegotiation):
    """Let `?format=` name the renderer, for clients that cannot set a header."""

    def select_renderer(  # type: ignore[override]
        self, request: Request, renderers: Sequence[BaseRenderer], format_suffix: str | None = None
    ) -> Any:
        asked = format_suffix or request.query_params.get("format")
        known = [renderer.format for renderer in renderers]
        if asked and asked not in known:
            raise ValidationError({"format": f"takes {' or '.join(known)}."})
        return super().select_renderer(request, renderers, asked)
