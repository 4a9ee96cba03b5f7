"""Totals above a list of turns, where rollups hold what the list is filtered by. Rows are never added up."""

from dataclasses import dataclass

from analytics import replica
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


@replica.reading()
def list_totals(changelist: KeysetChangeList) -> Totals | None:
    """Return the totals of the rows that the filters match; None where rollups cannot tell them."""
    filter_values, days = changelist.filter_values, changelist.days
    since, to = (days.since, days.to) if days else (None, None)
    period = Period(since or BEGINNING, max(since or BEGINNING, to or today()))
    query = Query(period, Filters(**{name: filter_values[name] for name in ROLLED_UP & filter_values.keys()}))
    others = filter_values.keys() - ROLLED_UP
    if others != {"user_id"} and not others <= {"status"}:
        return None
    notes = [bring_up_to_date().as_of, deleted_note(period)]
    if "user_id" in others:
        notes.insert(0, "Turns without a reply count only for tokens and cost.")
        row = total(bought(filter_values["user_id"], query).values())
        labelled = [*label_turns(row, ["completed"]), *label_tokens(row, ["total_tokens"])]
    elif "status" in others:
        # Rollups hold neither tokens nor cost by status.
        labelled = label_turns(usage_of(query), [filter_values["status"]])
    else:
        labelled = label_usage(usage_of(query))
    return Totals(labelled, " ".join(filter(None, notes)))


def label_usage(row: Usage) -> list[tuple[str, str]]:
    return [*label_turns(row, STATUSES), *label_tokens(row, TOKENS)]


def label_turns(row: Usage, statuses: list[str]) -> list[tuple[str, str]]:
    return [(f"{status} turns", f"{getattr(row, status):,}") for status in statuses]


def label_tokens(row: Usage, names: list[str]) -> list[tuple[str, str]]:
    tokens = [(name.replace("_", " "), f"{getattr(row, name):,}") for name in names]
    return [*tokens, ("cost", format_exact(row.cost_usd, "usd"))]


def deleted_note(period: Period) -> str:
    """Tell which days are in the rollups but no longer in the list."""
    last = purged_to()
    return f"Single turns of days up to {last} are deleted, but counted here." if last and last >= period.first else ""
