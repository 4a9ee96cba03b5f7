"""Reports for a terminal: tables, with names that steer nothing."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.reports.cards import Card
from analytics.reports.charts.sparklines import text_sparkline
from analytics.reports.csv import printable
from analytics.reports.summary import Summary

# Columns of a file or a pipe.
WIDE = 160
# Points of a figure's line of text, at most.
MOST_POINTS = 30
# Columns that the rest of such a line takes.
REST_OF_LINE = 70
COLOURS = {"good": "green", "bad": "red", "neutral": ""}


def console_for(out: TextIO, *, is_terminal: bool) -> Console:
    """Return a console that prints to `out`. Names are cut and coloured only where a person looks at a terminal."""
    return Console(file=out, force_terminal=is_terminal, width=None if is_terminal else WIDE, highlight=False)


def print_summary(console: Console, summary: Summary, about: str) -> None:
    """Print cards and tables. `about` says what the figures are of, where they are not of everything."""
    console.print(plain(f"llmapi, {summary.days} (UTC){about and f', {about}'}"), style="bold")
    console.print(plain(f"Compared with {summary.days_before}. {summary.coverage.as_of}".strip()))
    console.print(cards_table(summary.cards, min(MOST_POINTS, max(7, console.width - REST_OF_LINE))))
    for panel in summary.panels:
        table = panel.table.short()
        header = [(column.name, column.is_number) for column in table.columns]
        console.print(table_of(panel.title, header, [[text for _, text in row] for row in table.cells]))
        for note in filter(None, (table.note, panel.note)):
            console.print(plain(note))


def cards_table(cards: Iterable[Card], points: int) -> Table:
    names = {"Figure": False, "Day by day": False, "Value": True, "Before": True, "Change": True}
    table = table_of("", list(names.items()), [])
    for card in cards:
        by_day = Text(text_sparkline(card.by_day, points), no_wrap=True)
        change = Text(card.change_text, style=COLOURS[card.verdict])
        title = Text("\n").join(map(plain, filter(None, (card.title, card.note))))
        table.add_row(title, by_day, Text(card.text, style="bold"), card.text_before, change)
    return table


def table_of(
    title: str, header: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], lines: box.Box = box.SIMPLE_HEAD
) -> Table:
    """Return a table. `header` names the columns, and says which hold numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=lines)
    for name, is_number in header or [("Nothing yet", False)]:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def plain(text: str) -> Text:
    """Return text without markup of ours: names are strangers' text."""
    return Text(printable(text))
