"""A comparison of the ledger with OpenAI, for a terminal and for a spreadsheet."""

import sys
from collections.abc import Iterator
from typing import Any

from rich import box

from analytics.formatting import format_value
from analytics.reports.terminal import console_for, plain, table_of


def print_comparison(figures: dict[str, Any]) -> None:
    console = console_for(sys.stdout, is_terminal=sys.stdout.isatty())
    names, *rows = comparison_rows(figures)
    header = [(name, name not in ("model", "figure")) for name in names] if rows else []
    # Without the suffix a dated model's name fits a terminal.
    cells = [[model, name.removesuffix("_tokens"), *map(format_value, values)] for model, name, *values in rows]
    title = f"Tokens of OpenAI and of the ledger on {figures['day']} (UTC)"
    console.print(table_of(title, header, cells, box.HEAVY_HEAD))
    for cause in causes(figures):
        console.print(plain(cause))


def comparison_rows(figures: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield one figure of one model in each row. OpenAI's usage export tells no cost."""
    yield "model", "figure", "openai", "ledger", "difference"
    for line in figures["models"]:
        for name, difference in line["difference"].items():
            yield line["model"], name, line["openai"][name], line["ledger"][name], difference
        yield line["model"], "cost_usd", None, line["ledger_cost_usd"], None


def causes(figures: dict[str, Any]) -> Iterator[str]:
    """Yield sentences on what of the ledger is not exact."""
    rows = figures["causes"]
    for line in figures["models"]:
        for name in line["ledger_names"]:
            if name != line["model"]:
                yield f"The ledger's {name} is compared as {line['model']}."
    if not figures["export"]["is_whole_day"]:
        yield f"The export is not of the whole day: {figures['export']['from']} to {figures['export']['to']}."
    abandoned, failed = rows["abandoned_without_figures"], rows["failed_without_figures"]
    yield f"Rows abandoned without figures: {abandoned:,} (sold perhaps, but nobody was left to read them)."
    yield (
        f"Rows failed without figures: {failed:,} (a refused call costs nothing, one that timed out or broke off may)."
    )
    yield f"Rows with estimated figures: {rows['estimated']:,}, of {rows['estimated_tokens']:,} tokens."
    yield f"Rows still pending: {rows['pending']:,}."
