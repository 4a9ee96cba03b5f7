"""Metrics for people: tables in a terminal, and rows for a spreadsheet."""

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table


def terminal() -> Console:
    # Into a file or a pipe no name is cut to the width of a terminal.
    return Console(width=None if sys.stdout.isatty() else 160)


def print_tables(figures: dict[str, Any]) -> None:
    console = terminal()
    window = figures["window"]
    days = window["days"]
    console.print(f"llmapi, {window['from']} to {window['to']} (UTC)", style="bold", highlight=False)
    console.print(summary_table(figures))
    console.print(by_day_table(figures[f"dau_last_{days}_days"], figures["token_burn"]))
    console.print(rows_table("Tokens by day and model", figures["token_burn"]))
    console.print(rows_table("Time spent, newest first", figures["time_spent_samples"][:20]))


def summary_table(figures: dict[str, Any]) -> Table:
    table = Table("Metric", "Value")
    table.columns[1].justify = "right"
    rate = figures["success_rate"]
    rows = {
        **{f"Turns {status}": count for status, count in figures["turns"].items()},
        "Success rate": None if rate is None else f"{rate:.2%}",
        **{f"Latency {name} (ms)": value for name, value in figures["latency_ms"].items()},
        "Tokens": sum(row["total_tokens"] for row in figures["token_burn"]),
        "Cost (USD)": figures["cost_usd"],
    }
    for name, value in rows.items():
        table.add_row(name, shown(value))
    return table


def by_day_table(dau: list[dict[str, Any]], burn: list[dict[str, Any]]) -> Table:
    """Days on which anything happened."""
    days = [
        {
            "day": row["day"],
            "active_users": row["users"],
            "turns": sum(b["turns"] for b in burn if b["day"] == row["day"]),
            "total_tokens": sum(b["total_tokens"] for b in burn if b["day"] == row["day"]),
        }
        for row in dau
    ]
    return rows_table("By day", [day for day in days if day["active_users"] or day["turns"]])


def rows_table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    if not rows:
        table.add_column("Nothing yet")
        return table
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    return table


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
    days = figures["window"]["days"]
    for row in figures[f"dau_last_{days}_days"]:
        yield "dau", row["day"], "", row["users"]
    yield "success_rate", "", "", figures["success_rate"]
    for name, value in figures["latency_ms"].items():
        yield f"latency_ms_{name}", "", "", value
    for status, count in figures["turns"].items():
        yield "turns", "", status, count
    for row in figures["token_burn"]:
        yield "total_tokens", row["day"], row["model"], row["total_tokens"]
        yield "cost_usd", row["day"], row["model"], row["cost_usd"]
    for row in figures["time_spent_samples"]:
        yield "time_spent_seconds", row["day"], row["user_id"], row["seconds"]


def print_reconciliation(figures: dict[str, Any]) -> None:
    console = terminal()
    header, *figures_of_models = reconciliation_rows(figures)
    lines = [dict(zip(header, row, strict=True)) for row in figures_of_models]
    for line in lines:
        line["figure"] = line["figure"].removesuffix("_tokens")  # a dated model's name then fits a terminal
    console.print(rows_table(f"Tokens of OpenAI and of the ledger on {figures['day']} (UTC)", lines))
    for cause in causes(figures):
        console.print(cause, highlight=False, markup=False)


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
