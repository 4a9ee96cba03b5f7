"""Metrics for people: tables in a terminal, and rows for a spreadsheet."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.api.renderers import safe

# Of what goes into a file or a pipe.
WIDE = 160


def console_for(out: TextIO, *, is_terminal: bool) -> Console:
    """What is printed goes to `out`; names are cut, and colours used, only where a person looks at a terminal."""
    return Console(file=out, force_terminal=is_terminal, width=None if is_terminal else WIDE, highlight=False)


def rows_table(title: str, rows: list[dict[str, Any]]) -> Table:
    header = [(name.replace("_", " "), not isinstance(value, str)) for name, value in rows[0].items()] if rows else []
    return table_of(title, header, [[shown(value) for value in row.values()] for row in rows], box.HEAVY_HEAD)


def table_of(
    title: str, header: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], lines: box.Box = box.SIMPLE_HEAD
) -> Table:
    """`header` names the columns, and says which hold numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=lines)
    for name, is_number in header or [("Nothing yet", False)]:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def plain(text: str) -> Text:
    """Names are strangers' text: no markup of ours, and nothing that steers a terminal."""
    return Text(printable(text))


def printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)


def cell(text: str) -> Any:
    """The same for what may be shown in a terminal or in a spreadsheet."""
    return safe(printable(text))


def shown(value: Any) -> str:
    """A figure as a person reads it; what is not known is a dash, never a 0."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def rows(figures: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """One figure a row: metric, day, what it is about, value."""
    yield "metric", "day", "subject", "value"
    for row in figures["dau"]:
        yield "dau", row["day"], "", row["users"]
    yield "success_rate", "", "", figures["success_rate"]
    for name, value in figures["latency_ms"].items():
        yield f"latency_ms_{name}", "", "", value
    for status, count in figures["turns"].items():
        yield "turns", "", status, count
    for row in figures["token_burn"]:
        yield "total_tokens", row["day"], cell(row["model"]), row["total_tokens"]
        yield "cost_usd", row["day"], cell(row["model"]), row["cost_usd"]
    for row in figures["time_spent_samples"]:
        yield "time_spent_seconds", row["day"], cell(row["user_id"]), row["seconds"]


def print_reconciliation(figures: dict[str, Any]) -> None:
    console = console_for(sys.stdout, is_terminal=sys.stdout.isatty())
    header, *figures_of_models = reconciliation_rows(figures)
    lines = [dict(zip(header, row, strict=True)) for row in figures_of_models]
    for line in lines:
        line["figure"] = line["figure"].removesuffix("_tokens")  # a dated model's name then fits a terminal
    console.print(rows_table(f"Tokens of OpenAI and of the ledger on {figures['day']} (UTC)", lines))
    for cause in causes(figures):
        console.print(plain(cause))


def reconciliation_rows(figures: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """One figure of one model a row; OpenAI's usage export tells no cost."""
    yield "model", "figure", "openai", "ledger", "difference"
    for line in figures["models"]:
        for name, difference in line["difference"].items():
            yield line["model"], name, line["openai"][name], line["ledger"][name], difference
        yield line["model"], "cost_usd", None, line["ledger_cost_usd"], None


def causes(figures: dict[str, Any]) -> Iterator[str]:
    """What of the ledger is not exact, in sentences."""
    rows = figures["causes"]
    for line in figures["models"]:
        for name in line["ledger_names"]:
            if name != line["model"]:
                yield f"The ledger's {name} is compared as {line['model']}."
    if not figures["export"]["is_whole_day"]:
        yield f"The export is not of the whole day: {figures['export']['from']} to {figures['export']['to']}."
    yield (
        f"Rows abandoned without figures: {rows['abandoned_without_figures']:,} "
        "(sold perhaps, but nobody was left to read them)."
    )
    yield (
        f"Rows failed without figures: {rows['failed_without_figures']:,} "
        "(a refused call costs nothing, one that timed out or broke off may)."
    )
    yield f"Rows with estimated figures: {rows['estimated']:,}, of {rows['estimated_tokens']:,} tokens."
    yield f"Rows still pending: {rows['pending']:,}."
