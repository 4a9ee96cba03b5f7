"""A report as one page that is fit for mailing."""

from dataclasses import replace

from django.template.loader import render_to_string

from analytics.reports.summary import Summary

# Rows of a table, the newest days first.
MOST_ROWS = 14


def html(summary: Summary, about: str) -> str:
    """Return a page that holds all it needs, legible in a mail program that drops its styles or its pictures."""
    panels = [replace(panel, table=panel.table.first(MOST_ROWS)) for panel in summary.panels]
    definitions = {card.metric: card.definition for card in summary.cards}
    for panel in panels:
        definitions |= panel.definitions
    context = {
        "summary": summary,
        "panels": panels,
        "about": about,
        "title": f"llmapi, {summary.days}",
        "before": summary.days_before,
        "definitions": definitions,
    }
    return render_to_string("analytics/report.html", context)
