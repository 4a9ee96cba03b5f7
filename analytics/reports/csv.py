"""Figures as rows for a spreadsheet."""

import re
from collections.abc import Iterator
from typing import Any

# The first sign that a spreadsheet sees, as OWASP's "CSV Injection" lists them: in full width too, and after
# characters that it does not show.
FORMULA = re.compile(r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@|%＝＋－＠]")


def escape_cell(value: Any) -> Any:
    """Quote text that a spreadsheet would take for a formula: a user's id is a stranger's text."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def printable(text: str) -> str:
    """Replace characters that steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def report_rows(figures: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield one figure of a report in each row: metric, day, what it is about, value."""
    yield "metric", "day", "subject", "value"
    for row in figures["dau"]:
        yield "dau", row["day"], "", row["users"]
    yield "success_rate", "", "", figures["success_rate"]
    for name, value in figures["latency_ms"].items():
        yield f"latency_ms_{name}", "", "", value
    for status, count in figures["turns"].items():
        yield "turns", "", status, count
    for row in figures["token_burn"]:
        model = escape_cell(printable(row["model"]))
        yield "total_tokens", row["day"], model, row["total_tokens"]
        yield "cost_usd", row["day"], model, row["cost_usd"]
    for row in figures["time_spent_samples"]:
        yield "time_spent_seconds", row["day"], escape_cell(printable(row["user_id"])), row["seconds"]
