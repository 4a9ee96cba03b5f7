"""Users of one day: of everybody, and of each client, model, version, and combination of these (a slice).

Users add up neither over days nor over slices: one user may come on several days, with several models. A returning
user is counted in the slices of the day on which the user was new.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import product

from django.db.models import Max

from analytics.cooperative import taking_breaks
from analytics.histograms import Histogram
from analytics.models import ActivityRollup, UserDay

# Client, model and version of a slice; 0 or empty where the slice is of all of them.
Slice = tuple[int, str, str]
KEY = ("client_token_id", "model", "app_version")
EVERYBODY: Slice = (0, "", "")
RETURNS = (1, 7, 30)


@dataclass
class Activity:
    """The users of a slice on one day, and when each was last active within 30 days."""

    turns: int = 0
    active: set[str] = field(default_factory=set)
    new: set[str] = field(default_factory=set)
    signed_in: set[str] = field(default_factory=set)
    # Users who were new in this slice 1, 7 or 30 days before, and are active again, in any slice.
    returned: dict[int, set[str]] = field(default_factory=lambda: {age: set() for age in RETURNS})
    spans: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    last_days: dict[str, date] = field(default_factory=dict)

    def add(self, row: UserDay) -> None:
        self.turns += row.turns
        if row.turns:
            self.active.add(row.user_id)
            self.last_days[row.user_id] = row.day
        if row.turns and row.is_signed_in:
            self.signed_in.add(row.user_id)
        if row.turns and row.age_days == 0:
            self.new.add(row.user_id)
        if row.first_at and row.last_at:
            first, last = self.spans.get(row.user_id, (row.first_at, row.last_at))
            self.spans[row.user_id] = (min(first, row.first_at), max(last, row.last_at))

    def add_last_days(self, last_days: dict[str, date]) -> None:
        for user, last in last_days.items():
            if last > self.last_days.get(user, date.min):
                self.last_days[user] = last

    def rollup(self, day: date, key: Slice) -> ActivityRollup:
        spent = Histogram(round((last - first).total_seconds()) for first, last in self.spans.values())
        return ActivityRollup(
            day=day,
            **dict(zip(KEY, key, strict=True)),
            seen_users=len(self.spans),
            turns=self.turns,
            dau=len(self.active),
            wau=sum((day - last).days < 7 for last in self.last_days.values()),
            mau=len(self.last_days),
            new_users=len(self.new),
            signed_in=len(self.signed_in),
            **{f"returned_{age}": len(users) for age, users in self.returned.items()},
            time_spent=spent.stored(),
        )


def of_day(day: date, rows: list[UserDay]) -> list[ActivityRollup]:
    """Return the rollup of each slice that had an active user within 30 days. `rows` are all of the day, with ages."""
    before, back = active_before(day), returning(day, rows)
    rollups: list[ActivityRollup] = []
    # One kind of slice after the other: the users of one kind alone are in memory.
    for named in product((False, True), repeat=len(KEY)):
        found = {} if any(named) else {EVERYBODY: Activity()}
        for row in taking_breaks(rows):
            if key := slice_of((row.client_token_id, row.model, row.app_version), named):
                found.setdefault(key, Activity()).add(row)
        for whole_key, last_days in taking_breaks(before.items()):
            if key := slice_of(whole_key, named):
                found.setdefault(key, Activity()).add_last_days(last_days)
        for whole_key, age, user in back:
            if key := slice_of(whole_key, named):
                found.setdefault(key, Activity()).returned[age].add(user)
        rollups += [activity.rollup(day, key) for key, activity in taking_breaks(found.items())]
    return rollups


def slice_of(key: Slice, named: tuple[bool, ...]) -> Slice | None:
    """Return the slice of a row that names these columns; None where the row is empty in one of them."""
    client, model, version = key
    of_client, of_model, of_version = named
    found = (client if of_client else 0, model if of_model else "", version if of_version else "")
    return found if tuple(map(bool, found)) == named else None


def returning(day: date, rows: list[UserDay]) -> list[tuple[Slice, int, str]]:
    """Return users who are active and were new 1, 7 or 30 days before, with the slices of the day they were new."""
    ages = {row.user_id: row.age_days for row in rows if row.turns and row.age_days in RETURNS}
    first_days = [day - timedelta(days=age) for age in RETURNS]
    first = UserDay.objects.filter(day__in=first_days, turns__gt=0, age_days=0).order_by()
    found = first.values_list(*KEY, "user_id").iterator()
    return [((client, model, version), age, user) for client, model, version, user in found if (age := ages.get(user))]


def active_before(day: date) -> dict[Slice, dict[str, date]]:
    """Return the last day within the 29 days before on which each user was active, by client, model and version."""
    rows = UserDay.objects.filter(day__gt=day - timedelta(days=30), day__lt=day, turns__gt=0).order_by()
    found: defaultdict[Slice, dict[str, date]] = defaultdict(dict)
    columns = rows.values_list(*KEY, "user_id").annotate(last=Max("day"))
    for client, model, version, user, last in columns.iterator():
        found[client, model, version][user] = last
    return found
