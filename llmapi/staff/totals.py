"""Totals of a list of turns: from the rollups if they hold the filters, else of the newest turns. Never of all rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any

from django.db.models import QuerySet

from analytics.ledger import sums as aggregates
from analytics.metrics import single_user as person
from analytics.metrics import sources as reading
from analytics.metrics.usage import COST, STATUSES, TOKENS
from analytics.models import UsageEvent
from analytics.query import Filters, Window, today
from analytics.rollups import schedule as rollups
from llmapi.staff.lists.changelist import KeysetChangeList

NEWEST = 1_000
BEGINNING = date(2000, 1, 1)
# Days that a page reads from raw rows: today, and yesterday while its turns are being settled.
RAW_DAYS = 2
FIGURES = [*STATUSES, *TOKENS, *COST]
ROLLED_UP = {"client_token_id", "model", "app_version"}


@dataclass(frozen=True)
class Totals:
    figures: Counter[str]
    # Tells what the figures leave out.
    note: str = ""

    @property
    def labelled(self) -> list[tuple[str, str]]:
        """The figures with their names, as a page shows them."""
        turns = [(f"{status} turns", f"{self.figures[status]:,}") for status in STATUSES if status in self.figures]
        tokens = [(name.replace("_", " "), f"{self.figures[name]:,}") for name in TOKENS if name in self.figures]
        cost = [("cost", money(reading.dollars(self.figures)))] if "sold" in self.figures else []
        return [*turns, *tokens, *cost]


def money(dollars: float | None) -> str:
    """Format an amount. A turn may cost far less than a cent. An unknown price is a dash, never 0."""
    if dollars is None:
        return "–"
    return f"${dollars:,.2f}" if dollars >= 1 or not dollars else f"${dollars:.6f}"


def list_totals(changelist: KeysetChangeList) -> Totals:
    filter_values, days = changelist.filter_values, changelist.days
    first, last = (days.since, days.to) if days else (None, None)
    window = Window(first or BEGINNING, max(first or BEGINNING, last or today()))
    if set(filter_values) <= {"status", *ROLLED_UP} and is_summed(window):
        return rollup_totals(filter_values, window)
    newest, scan_end = changelist.keyset_query.scan()
    totals = newest_totals(newest, is_all=scan_end is None)
    # The turns of a user are added up from their rows if they are few and none is deleted: rows tell more of them.
    is_cut = totals.note or deleted_note(window)
    if is_cut and set(filter_values) <= {"user_id", *ROLLED_UP} and "user_id" in filter_values and is_summed(window):
        return user_totals(filter_values, window)
    return totals


def deleted_note(window: Window) -> str:
    """Tell which days are in the rollups but no longer in the list."""
    last = rollups.purged_to()
    return f"Single turns of days up to {last} are deleted, but counted here." if last and last >= window.first else ""


def is_summed(window: Window) -> bool:
    """Return whether the days without rollups are so few that a page can read their rows."""
    if not (tail := window.tail) or (tail.last - tail.first).days < RAW_DAYS:
        return True
    oldest = UsageEvent.objects.order_by("created_at").values_list("created_at", flat=True).first()
    return oldest is None or (tail.last - max(tail.first, oldest.astimezone(UTC).date())).days < RAW_DAYS


def rollup_totals(filter_values: Mapping[str, Any], window: Window) -> Totals:
    filters = Filters(
        filter_values.get("client_token_id"), filter_values.get("model", ""), filter_values.get("app_version", "")
    )
    # Rollups hold no tokens or cost by status.
    names = [filter_values["status"]] if "status" in filter_values else FIGURES
    figures = reading.usage(window, filters, names=names).get((), Counter())
    return Totals(Counter({name: figures[name] for name in names}), f"{window.as_of} {deleted_note(window)}".strip())


def user_totals(filter_values: Mapping[str, Any], window: Window) -> Totals:
    filters = {name: value for name, value in filter_values.items() if name in ROLLED_UP}
    found = person.bought(filter_values["user_id"], window, filters)
    notes = ["Turns without a reply count only for tokens and cost.", window.as_of, deleted_note(window)]
    return Totals(sum(found.values(), Counter()), " ".join(filter(None, notes)))


def newest_totals(rows: QuerySet[UsageEvent], *, is_all: bool = True) -> Totals:
    sums = rows[:NEWEST].aggregate(**{f"sum_{name}": aggregates.FIGURES[name] for name in FIGURES})
    figures = Counter({name: sums[f"sum_{name}"] for name in FIGURES})
    is_all = is_all and sum(figures[status] for status in STATUSES) < NEWEST
    return Totals(figures, "" if is_all else f"Totals of the newest turns only, at most {NEWEST:,}.")
