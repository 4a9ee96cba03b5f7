"""What a list of turns adds up to: by the rollups where they know it, else of its newest turns; never of all rows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet

from analytics.ledger import sums as aggregates
from analytics.metrics import single_user as person
from analytics.metrics import sources as reading
from analytics.metrics.usage import COST, STATUSES, TOKENS
from analytics.models import UsageEvent
from analytics.query import Filters, Window, today
from analytics.rollups import schedule as rollups

if TYPE_CHECKING:
    from llmapi.staff.lists.changelist import KeysetChangeList

NEWEST = 1_000
BEGINNING = date(2000, 1, 1)
# Days that a page reads from raw rows: today, and yesterday while it is being settled.
RAW_DAYS = 2
FIGURES = [*STATUSES, *TOKENS, *COST]
ROLLED_UP = {"client_token_id", "model", "app_version"}


@dataclass(frozen=True)
class Totals:
    figures: Counter[str]
    # What is left out.
    note: str = ""

    @property
    def lines(self) -> list[tuple[str, str]]:
        """As a page shows them."""
        turns = [(f"{status} turns", f"{self.figures[status]:,}") for status in STATUSES if status in self.figures]
        tokens = [(name.replace("_", " "), f"{self.figures[name]:,}") for name in TOKENS if name in self.figures]
        cost = [("cost", money(reading.dollars(self.figures)))] if "sold" in self.figures else []
        return [*turns, *tokens, *cost]


def money(dollars: float | None) -> str:
    """A turn may cost far less than a cent; an unknown price is a dash, never a 0."""
    if dollars is None:
        return "–"
    return f"${dollars:,.2f}" if dollars >= 1 or not dollars else f"${dollars:.6f}"


def of_list(changelist: "KeysetChangeList") -> Totals:
    asked, days = changelist.asked, changelist.days
    first, last = (days.since, days.to) if days else (None, None)
    window = Window(first or BEGINNING, max(first or BEGINNING, last or today()))
    if is_rolled_up(asked) and is_summed(window):
        return of_rollups(asked, window)
    newest, edge = changelist.walk.looked_at()
    totals = of_newest(newest, is_all=edge is None)
    # A few of a user's turns are added up as they are, which tells more of them; but not where some are deleted.
    is_cut = totals.note or deleted(window)
    if is_cut and set(asked) <= {"user_id", *ROLLED_UP} and "user_id" in asked and is_summed(window):
        return of_user(asked, window)
    return totals


def deleted(window: Window) -> str:
    """What the list cannot show, of what the rollups have added up."""
    last = rollups.purged_to()
    return f"Of days up to {last}, single turns are deleted, and counted here." if last and last >= window.first else ""


def is_rolled_up(asked: Mapping[str, Any]) -> bool:
    return set(asked) <= {"status", *ROLLED_UP}


def is_summed(window: Window) -> bool:
    """Whether so few days have no rollups that a page can read them."""
    if not (tail := window.tail) or (tail.last - tail.first).days < RAW_DAYS:
        return True
    oldest = UsageEvent.objects.order_by("created_at").values_list("created_at", flat=True).first()
    return oldest is None or (tail.last - max(tail.first, oldest.astimezone(UTC).date())).days < RAW_DAYS


def of_rollups(asked: Mapping[str, Any], window: Window) -> Totals:
    filters = Filters(asked.get("client_token_id"), asked.get("model", ""), asked.get("app_version", ""))
    # What turns of one status have bought is not known apart.
    names = [asked["status"]] if "status" in asked else FIGURES
    figures = reading.usage(window, filters, names=names).get((), Counter())
    return Totals(Counter({name: figures[name] for name in names}), spoken(window.as_of, deleted(window)))


def of_user(asked: Mapping[str, Any], window: Window) -> Totals:
    filters = {name: value for name, value in asked.items() if name in ROLLED_UP}
    found = person.bought(asked["user_id"], window, filters)
    partly = "Turns without a reply are in tokens and cost alone."
    return Totals(sum(found.values(), Counter()), spoken(partly, window.as_of, deleted(window)))


def spoken(*notes: str) -> str:
    return " ".join(filter(None, notes))


def of_newest(rows: QuerySet[UsageEvent], *, is_all: bool = True) -> Totals:
    sums = rows[:NEWEST].aggregate(**{f"sum_{name}": aggregates.FIGURES[name] for name in FIGURES})
    figures = Counter({name: sums[f"sum_{name}"] for name in FIGURES})
    is_all = is_all and sum(figures[status] for status in STATUSES) < NEWEST
    return Totals(figures, "" if is_all else f"Of the newest turns alone, {NEWEST:,} at most.")
