"""Totals above a list of turns, where rollups hold what the list is filtered by. Rows are never added up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analytics.formatting import format_exact
from analytics.metrics.single_user import bought
from analytics.metrics.sources import Usage, total, usage_of
from analytics.metrics.usage import STATUSES, TOKENS
from analytics.query import BEGINNING, Filters, Period, Query, today
from analytics.rollups.coverage import bring_up_to_date
from analytics.rollups.store import purged_to
from llmapi.staff.lists.changelist import KeysetChangeList

ROLLED_UP = {"client_token_id", "model", "app_version"}


@dataclass(frozen=True)
class Totals:
    # Names and figures, as the page shows them.
    labelled: list[tuple[str, str]]
    # Tells what the figures leave out, and as of when they are.
    note: str = ""


def list_totals(changelist: KeysetChangeList) -> Totals | None:
    """Return the totals of the rows that the filters match; None where rollups cannot tell them."""
    filter_values, days = changelist.filter_values, changelist.days
    since, to = (days.since, days.to) if days else (None, None)
    period = Period(since or BEGINNING, max(since or BEGINNING, to or today()))
    query = Query(period, Filters(**{name: filter_values[name] for name in ROLLED_UP & filter_values.keys()}))
    others = filter_values.keys() - ROLLED_UP
    if others <= {"status"}:
        return Totals(*usage_totals(query, filter_values))
    if others == {"user_id"}:
        return Totals(*user_totals(query, filter_values["user_id"]))
    return None


def usage_totals(query: Query, filter_values: Mapping[str, Any]) -> tuple[list[tuple[str, str]], str]:
    notes = [bring_up_to_date().as_of, deleted_note(query.period)]
    row = usage_of(query)
    if "status" in filter_values:
        # Rollups hold neither tokens nor cost by status.
        return label_turns(row, [filter_values["status"]]), " ".join(filter(None, notes))
    return label_usage(row), " ".join(filter(None, notes))


def label_usage(row: Usage) -> list[tuple[str, str]]:
    tokens = [(name.replace("_", " "), f"{getattr(row, name):,}") for name in TOKENS]
    return [*label_turns(row, STATUSES), *tokens, ("cost", format_exact(row.cost_usd, "usd"))]


def label_turns(row: Usage, statuses: list[str]) -> list[tuple[str, str]]:
    return [(f"{status} turns", f"{getattr(row, status):,}") for status in statuses]


def user_totals(query: Query, user_id: str) -> tuple[list[tuple[str, str]], str]:
    notes = [
        "Turns without a reply count only for tokens and cost.",
        bring_up_to_date().as_of,
        deleted_note(query.period),
    ]
    row = total(bought(user_id, query).values())
    figures = [
        ("completed turns", f"{row.completed:,}"),
        ("total tokens", f"{row.total_tokens:,}"),
        ("cost", format_exact(row.cost_usd, "usd")),
    ]
    return figures, " ".join(filter(None, notes))


def deleted_note(period: Period) -> str:
    """Tell which days are in the rollups but no longer in the list."""
    last = purged_to()
    return f"Single turns of days up to {last} are deleted, but counted here." if last and last >= period.first else ""
