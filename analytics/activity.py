"""Users of one day: of all, and of every single client, model and version. Such figures do not add up over days."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from django.db.models import Max

from analytics.histograms import Histogram
from analytics.models import ActivityRollup, UserDay

Slice = tuple[int, str, str]
KEY = ("client_token_id", "model", "app_version")
EVERYBODY: Slice = (0, "", "")
RETURNS = (1, 7, 30)


@dataclass
class Activity:
    """What the users of a slice did on a day."""

    turns: int = 0
    ages: dict[str, int | None] = field(default_factory=dict)
    spans: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)

    def add(self, row: UserDay) -> None:
        self.turns += row.turns
        if row.turns:
            self.ages[row.user_id] = row.age_days
        if row.first_at and row.last_at:
            first, last = self.spans.get(row.user_id, (row.first_at, row.last_at))
            self.spans[row.user_id] = (min(first, row.first_at), max(last, row.last_at))

    def figures(self) -> dict[str, object]:
        users = Counter(self.ages.values())
        spent = Histogram(round((last - first).total_seconds()) for first, last in self.spans.values())
        return {
            "seen_users": len(self.spans),
            "turns": self.turns,
            "dau": len(self.ages),
            "new_users": users[0],
            **{f"returned_{age}": users[age] for age in RETURNS},
            "time_spent": spent.stored(),
        }


def of_day(day: date, rows: list[UserDay]) -> list[ActivityRollup]:
    """Of each slice in which anybody was active within 30 days; `rows` are all of the day, with ages."""
    found: dict[Slice, Activity] = {EVERYBODY: Activity()}
    for row in rows:
        for key in slices_of(row):
            found.setdefault(key, Activity()).add(row)
    last_days = active_before(day)
    for key, activity in found.items():
        last_days.setdefault(key, {}).update(dict.fromkeys(activity.ages, day))
    return [
        ActivityRollup(
            day=day,
            **dict(zip(KEY, key, strict=True)),
            **found.get(key, Activity()).figures(),
            wau=sum((day - last).days < 7 for last in users.values()),
            mau=len(users),
        )
        for key, users in last_days.items()
    ]


def slices_of(row: UserDay) -> Iterator[Slice]:
    yield EVERYBODY
    yield row.client_token_id, "", ""
    if row.model:
        yield 0, row.model, ""
    if row.app_version:
        yield 0, "", row.app_version


def active_before(day: date) -> dict[Slice, dict[str, date]]:
    """In each slice, the last day on which each user was active, within the 29 days before."""
    rows = UserDay.objects.filter(day__gt=day - timedelta(days=30), day__lt=day, turns__gt=0).order_by()
    found: dict[Slice, dict[str, date]] = {}
    users = rows.values_list("user_id").annotate(last=Max("day"))
    found[EVERYBODY] = dict(users.iterator())
    for name, nobody in zip(KEY, EVERYBODY, strict=True):
        named = rows.exclude(**{name: nobody}).values_list(name, "user_id").annotate(last=Max("day"))
        for value, user, last in named.iterator():
            found.setdefault(slice_of({name: value}), {})[user] = last
    return found


def slice_of(values: Mapping[str, Any]) -> Slice:
    client, model, version = (values.get(name, nobody) for name, nobody in zip(KEY, EVERYBODY, strict=True))
    return client, model, version
