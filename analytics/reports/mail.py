"""A report as one page that is fit for mailing."""

from dataclasses import replace

from django.template.loader import render_to_string

from analytics.metrics.registry import METRICS
from analytics.reports.summary import Summary


def html(summary: Summary, about: str) -> str:
    """Return a page that holds all it needs, legible in a mail program that drops its styles or its pictures."""
    names = [*(card.metric for card in summary.cards), *(name for panel in summary.panels for name in panel.metrics)]
    context = {
        "summary": summary,
        "panels": [replace(panel, table=panel.table.short()) for panel in summary.panels],
        "about": about,
        "title": f"llmapi, {summary.days}",
        "before": summary.days_before,
        "definitions": {name: METRICS[name].definition for name in names},
    }
    return render_to_string("analytics/report.html", context)
