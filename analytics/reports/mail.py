"""A summary for people without a browser at hand: for a terminal, and as a page to be mailed."""

from collections.abc import Iterable
from dataclasses import replace

from django.template.loader import render_to_string
from rich.console import Console
from rich.table import Table as ConsoleTable
from rich.text import Text

from analytics import formatting as units
from analytics.query import Window
from analytics.reports.cards import Card
from analytics.reports.charts.sparklines import text_sparkline
from analytics.reports.charts.tables import Table
from analytics.reports.panels import Panel
from analytics.reports.summary import Summary
from analytics.reports.terminal import plain, table_of

# Rows of a table, the newest days first.
MOST_ROWS = 14
# Of the course of a figure, at most.
MOST_POINTS = 30
COLOURS = {"good": "green", "bad": "red", "neutral": ""}


def print_summary(console: Console, summary: Summary, about: str) -> None:
    """`about` says what the figures are of, where they are not of everything."""
    console.print(plain(f"llmapi, {spoken(summary.window)} (UTC){about and f', {about}'}"), style="bold")
    console.print(plain(f"Compared with {spoken(summary.before)}."))
    # What else stands in a line takes some 70 characters.
    console.print(cards_table(summary.cards, min(MOST_POINTS, max(7, console.width - 70))))
    for panel in summary.panels:
        table = shortened(panel.table)
        header = [(column.name, column.is_number) for column in table.columns]
        console.print(table_of(panel.title, header, [[text for _, text in row] for row in table.cells]))
        for note in filter(None, (table.note, panel.note)):
            console.print(plain(note))


def cards_table(cards: Iterable[Card], points: int) -> ConsoleTable:
    names = {"Figure": False, "Day by day": False, "Value": True, "Before": True, "Change": True}
    table = table_of("", list(names.items()), [])
    for card in cards:
        course = Text(text_sparkline(card.course, points), no_wrap=True)
        change = Text(card.change_text, style=COLOURS[card.verdict])
        title = Text("\n").join(map(plain, filter(None, (card.title, card.note))))
        table.add_row(title, course, Text(card.text, style="bold"), card.text_before, change)
    return table


def html(summary: Summary, about: str) -> str:
    """One page that holds all it needs, legible in a mail client that drops its styles, or its pictures."""
    panels = [replace(panel, table=shortened(panel.table)) for panel in summary.panels]
    context = {
        "summary": summary,
        "panels": panels,
        "about": about,
        "title": f"llmapi, {spoken(summary.window)}",
        "before": spoken(summary.before),
        "definitions": definitions(summary.cards, panels),
    }
    return render_to_string("analytics/report.html", context)


def definitions(cards: Iterable[Card], panels: Iterable[Panel]) -> dict[str, str]:
    """By metric, each once."""
    found = {card.metric: card.definition for card in cards}
    for panel in panels:
        found |= panel.definitions
    return found


def spoken(window: Window) -> str:
    return f"{units.spoken(window.first)} to {units.spoken(window.last)}"


def shortened(table: Table) -> Table:
    return replace(table, rows=table.rows[:MOST_ROWS])
