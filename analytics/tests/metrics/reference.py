"""Every metric, computed from plain lists of rows by its definition: one function a metric, named as in METRICS.

Nothing of the code that is tested is used here. A reader checks a function by its definition in `analytics/metrics`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from math import ceil
from typing import Any

DAY = timedelta(days=1)
HALF_AN_HOUR = timedelta(minutes=30)
COMPLETED, FAILED, ABANDONED, PENDING = "completed", "failed", "abandoned", "pending"


@dataclass(frozen=True)
class Turn:
    """A row of `usage_events`."""

    request_id: str
    at: datetime
    user: str
    client: int
    model: str
    version: str
    status: str
    error_code: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_nanos: int | None
    latency_ms: int | None
    first_token_ms: int | None

    @property
    def has_sold(self) -> bool:
        return self.status != PENDING and self.total_tokens > 0


@dataclass(frozen=True)
class Event:
    """A row of `analytics_events`; `original` is the turn whose answer was replayed."""

    name: str
    at: datetime
    user: str
    client: int
    model: str
    version: str
    original: str = ""


@dataclass(frozen=True)
class Refused:
    """A row of `refusals_daily`."""

    day: date
    client: int
    code: str
    count: int


@dataclass(frozen=True)
class Session:
    user: str
    client: int
    model: str
    version: str
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Ledger:
    """All raw rows, events in the order in which they were stored, and the day on which they are looked at."""

    turns: list[Turn]
    events: list[Event]
    refused: list[Refused]
    today: date

    @cached_property
    def completed_turns(self) -> list[Event]:
        return [event for event in self.events if event.name == "chat.completed"]

    @cached_property
    def active_days(self) -> dict[str, set[date]]:
        """The days on which each user completed a turn, with any client."""
        found: defaultdict[str, set[date]] = defaultdict(set)
        for event in self.completed_turns:
            found[event.user].add(event.at.date())
        return found

    @cached_property
    def turns_of_user(self) -> Counter[str]:
        return Counter(event.user for event in self.completed_turns)

    @cached_property
    def turns_by_id(self) -> dict[str, Turn]:
        return {turn.request_id: turn for turn in self.turns}

    @cached_property
    def sessions(self) -> list[Session]:
        events_of: defaultdict[str, list[Event]] = defaultdict(list)
        for event in sorted(self.events, key=lambda event: event.at):
            events_of[event.user].append(event)
        return [session for events in events_of.values() for session in sessions_of_user(events)]


def sessions_of_user(events: list[Event]) -> list[Session]:
    """Cut one user's events, in the order of their times, wherever there is a gap of more than 30 minutes."""
    groups = [[events[0]]]
    for event in events[1:]:
        if event.at - groups[-1][-1].at > HALF_AN_HOUR:
            groups.append([])
        groups[-1].append(event)
    return [
        Session(
            user=group[0].user,
            client=group[0].client,
            model=next((event.model for event in group if event.model), ""),
            version=next((event.version for event in group if event.version), ""),
            first=group[0].at,
            last=group[-1].at,
        )
        for group in groups
    ]


@dataclass(frozen=True)
class Asked:
    """Days from `first` to `last` of a ledger, and one client, model and version; 0 and empty mean all."""

    ledger: Ledger
    first: date
    last: date
    client: int = 0
    model: str = ""
    version: str = ""

    @property
    def days(self) -> list[date]:
        return [self.first + number * DAY for number in range((self.last - self.first).days + 1)]

    def has(self, row: Turn | Event | Session) -> bool:
        of_client = self.client in (0, row.client)
        return of_client and self.model in ("", row.model) and self.version in ("", row.version)

    @cached_property
    def turns(self) -> dict[date, list[Turn]]:
        """Turns of each day on which they were opened."""
        found: dict[date, list[Turn]] = {day: [] for day in self.days}
        for turn in self.ledger.turns:
            if turn.at.date() in found and self.has(turn):
                found[turn.at.date()].append(turn)
        return found

    @cached_property
    def all_turns(self) -> list[Turn]:
        return [turn for turns in self.turns.values() for turn in turns]

    @cached_property
    def events(self) -> dict[date, list[Event]]:
        """Events of each day, also of days before the first."""
        found: defaultdict[date, list[Event]] = defaultdict(list)
        for event in self.ledger.events:
            if self.has(event):
                found[event.at.date()].append(event)
        return found

    @cached_property
    def replays(self) -> dict[date, list[Turn]]:
        """The turns whose answers were given again on each day; of the replay are client and version."""
        found: dict[date, list[Turn]] = {day: [] for day in self.days}
        for event in self.ledger.events:
            if event.name == "chat.replayed" and event.at.date() in found:
                original = self.ledger.turns_by_id[event.original]
                of_client, of_version = self.client in (0, event.client), self.version in ("", event.version)
                if of_client and of_version and self.model in ("", original.model):
                    found[event.at.date()].append(original)
        return found

    @cached_property
    def active_on(self) -> dict[date, set[str]]:
        """Users who completed a turn on each day."""
        return {day: {event.user for event in self.completed(day)} for day in self.events}

    def completed(self, day: date) -> list[Event]:
        return [event for event in self.events.get(day, []) if event.name == "chat.completed"]

    def active(self, last: date, days: int = 1) -> set[str]:
        """Users who completed a turn in the days that end with `last`."""
        return {user for number in range(days) for user in self.active_on.get(last - number * DAY, set())}

    def new(self, day: date) -> set[str]:
        """Users for whom the day is the first on which they were active, with any client."""
        return {user for user in self.active(day) if min(self.ledger.active_days[user]) == day}

    def spans(self, day: date) -> dict[str, timedelta]:
        """The time from each user's first event of the day to the last."""
        times: defaultdict[str, list[datetime]] = defaultdict(list)
        for event in self.events.get(day, []):
            times[event.user].append(event.at)
        return {user: max(found) - min(found) for user, found in times.items()}


def share(part: float, whole: float, digits: int = 4) -> float | None:
    return round(part / whole, digits) if whole else None


def percentile(values: Iterable[int], rank: int) -> int | None:
    """Nearest rank over values that are rounded to three significant digits, halves up."""
    ordered = sorted(three_digits(value) for value in values)
    return ordered[ceil(len(ordered) * rank / 100) - 1] if ordered else None


def three_digits(value: int) -> int:
    step = 1
    while value >= 1000 * step:
        step *= 10
    return (2 * value + step) // (2 * step) * step


def usd(turns: list[Turn]) -> float | None:
    """What the turns that sold tokens cost; None where the price of one of them is unknown."""
    costs = [turn.cost_nanos for turn in turns if turn.has_sold]
    return None if None in costs else sum(cost or 0 for cost in costs) / 1e9


def count(turns: list[Turn], *statuses: str) -> int:
    return sum(turn.status in statuses for turn in turns)


def rate_of_success(turns: list[Turn]) -> float | None:
    """1 only where all have completed, and 0 only where none has."""
    good, ended = count(turns, COMPLETED), count(turns, COMPLETED, FAILED, ABANDONED)
    if not ended or good in (0, ended):
        return good / ended if ended else None
    return min(max(round(good / ended, 4), 0.0001), 0.9999)


def dau(asked: Asked) -> Any:
    return [{"day": str(day), "users": len(asked.active(day))} for day in asked.days]


def wau(asked: Asked) -> Any:
    return [{"day": str(day), "users": len(asked.active(day, 7))} for day in asked.days]


def mau(asked: Asked) -> Any:
    return [{"day": str(day), "users": len(asked.active(day, 30))} for day in asked.days]


def stickiness(asked: Asked) -> Any:
    return [
        {"day": str(day), "stickiness": share(len(asked.active(day)), len(asked.active(day, 30)))} for day in asked.days
    ]


def new_and_returning(asked: Asked) -> Any:
    return [
        {"day": str(day), "new": len(asked.new(day)), "returning": len(asked.active(day) - asked.new(day))}
        for day in asked.days
    ]


def retention(asked: Asked) -> Any:
    def returned(day: date, age: int) -> float | None:
        if day + age * DAY >= asked.ledger.today:
            return None
        new = asked.new(day)
        return share(sum(day + age * DAY in asked.ledger.active_days[user] for user in new), len(new))

    return [
        {
            "day": str(day),
            "new": len(asked.new(day)),
            "d1": returned(day, 1),
            "d7": returned(day, 7),
            "d30": returned(day, 30),
        }
        for day in asked.days
    ]


def activation(asked: Asked) -> Any:
    rows = []
    for day in asked.days:
        new = asked.new(day)
        activated = sum(asked.ledger.turns_of_user[user] >= 5 for user in new)
        rows.append({"day": str(day), "new": len(new), "activated": activated, "share": share(activated, len(new))})
    return rows


def turns(asked: Asked) -> Any:
    return {status: count(asked.all_turns, status) for status in (PENDING, COMPLETED, FAILED, ABANDONED)}


def turns_by_day(asked: Asked) -> Any:
    return [
        {
            "day": str(day),
            "pending": count(found, PENDING),
            "completed": count(found, COMPLETED),
            "failed": count(found, FAILED),
            "abandoned": count(found, ABANDONED),
            "success_rate": rate_of_success(found),
        }
        for day, found in asked.turns.items()
    ]


def success_rate(asked: Asked) -> Any:
    return rate_of_success(asked.all_turns)


def failures(asked: Asked) -> Any:
    broken = [turn for turn in asked.all_turns if turn.status in (FAILED, ABANDONED)]
    counts = Counter((str(turn.at.date()), turn.error_code) for turn in broken)
    return [{"day": day, "code": code, "turns": number} for (day, code), number in sorted(counts.items())]


def abandoned(asked: Asked) -> Any:
    return [
        {
            "day": str(day),
            "turns": count(found, ABANDONED),
            "share": share(count(found, ABANDONED), count(found, COMPLETED, FAILED, ABANDONED)),
        }
        for day, found in asked.turns.items()
    ]


def refusals(asked: Asked) -> Any:
    counts: Counter[tuple[str, str]] = Counter()
    for row in asked.ledger.refused:
        if asked.first <= row.day <= asked.last and asked.client in (0, row.client):
            counts[str(row.day), row.code] += row.count
    return [{"day": day, "code": code, "requests": number} for (day, code), number in sorted(counts.items())]


def messages_per_active_user(asked: Asked) -> Any:
    return [
        {"day": str(day), "messages": share(len(asked.completed(day)), len(asked.active(day)))} for day in asked.days
    ]


def cost_per_active_user(asked: Asked) -> Any:
    costs = {day: usd(found) for day, found in asked.turns.items()}
    return [
        {"day": str(day), "cost_usd": None if cost is None else share(cost, len(asked.active(day)), 9)}
        for day, cost in costs.items()
    ]


def time_spent(asked: Asked) -> Any:
    seconds = {day: [round(span.total_seconds()) for span in asked.spans(day).values()] for day in asked.days}
    return summary_of_seconds(seconds)


def summary_of_seconds(by_day: dict[date, list[int]]) -> Any:
    def figures(values: list[int]) -> dict[str, Any]:
        return {
            "count": len(values),
            "median_seconds": percentile(values, 50),
            "p90_seconds": percentile(values, 90),
        }

    overall = [value for values in by_day.values() for value in values]
    rows = [{"day": str(day), **figures(values)} for day, values in by_day.items() if values]
    return {**figures(overall), "by_day": rows}


def time_spent_samples(asked: Asked) -> Any:
    found = [(day, user, span) for day in asked.days for user, span in asked.spans(day).items()]
    newest = sorted(found, key=lambda row: (-row[0].toordinal(), -row[2], row[1]))[:100]
    return [{"day": str(day), "user_id": user, "seconds": round(span.total_seconds(), 3)} for day, user, span in newest]


def sessions(asked: Asked) -> Any:
    by_day: dict[date, list[int]] = {day: [] for day in asked.days}
    for session in asked.ledger.sessions:
        if session.first.date() in by_day and asked.has(session):
            by_day[session.first.date()].append(round((session.last - session.first).total_seconds()))
    return summary_of_seconds(by_day)


def latency_ms(asked: Asked) -> Any:
    return summary_of_milliseconds({day: latencies(found) for day, found in asked.turns.items()})


def latencies(found: list[Turn]) -> list[int]:
    return [turn.latency_ms for turn in found if turn.status == COMPLETED and turn.latency_ms is not None]


def summary_of_milliseconds(by_day: dict[date, list[int]]) -> Any:
    def figures(values: list[int]) -> dict[str, Any]:
        mean = share(sum(values), len(values), 1)
        return {"mean": mean, **{f"p{rank}": percentile(values, rank) for rank in (50, 95, 99)}}

    overall = [value for values in by_day.values() for value in values]
    rows = [{"day": str(day), **figures(values)} for day, values in by_day.items() if values]
    return {**figures(overall), "by_day": rows}


def avg_latency_ms(asked: Asked) -> Any:
    found = latencies(asked.all_turns)
    return share(sum(found), len(found), 1)


def first_token_ms(asked: Asked) -> Any:
    def of_streams(found: list[Turn]) -> list[int]:
        return [turn.first_token_ms for turn in found if turn.status == COMPLETED and turn.first_token_ms is not None]

    return summary_of_milliseconds({day: of_streams(found) for day, found in asked.turns.items()})


def feedback(asked: Asked) -> Any:
    def figures(days: list[date]) -> dict[str, Any]:
        said = Counter(event.name for day in days for event in asked.events.get(day, []))
        up, down = said["client.thumbs_up"], said["client.thumbs_down"]
        return {
            "thumbs_up": up,
            "thumbs_down": down,
            "regenerated": said["client.regenerated"],
            "thumbs_up_share": share(up, up + down),
        }

    return {**figures(asked.days), "by_day": [{"day": str(day), **figures([day])} for day in asked.days]}


def active_by_sign_in(asked: Asked) -> Any:
    first: dict[str, date] = {}
    for event in asked.ledger.events:
        if event.name == "person.signed_up":
            first[event.user] = min(event.at.date(), first.get(event.user, date.max))

    def figures(day: date) -> dict[str, int]:
        signed_in = sum(first.get(user, date.max) <= day for user in asked.active(day))
        return {"signed_in": signed_in, "others": len(asked.active(day)) - signed_in}

    return [{"day": str(day), **figures(day)} for day in asked.days]


def sign_ups(asked: Asked) -> Any:
    def people(day: date) -> int:
        return sum(event.name == "person.signed_up" for event in asked.events.get(day, []))

    return [{"day": str(day), "people": people(day)} for day in asked.days]


def burnt(found: list[Turn]) -> dict[str, Any]:
    return {
        "turns": len(found),
        "prompt_tokens": sum(turn.prompt_tokens for turn in found),
        "cached_tokens": sum(turn.cached_tokens for turn in found),
        "completion_tokens": sum(turn.completion_tokens for turn in found),
        "reasoning_tokens": sum(turn.reasoning_tokens for turn in found),
        "total_tokens": sum(turn.total_tokens for turn in found),
        "cost_usd": usd(found),
    }


def token_burn(asked: Asked) -> Any:
    found: defaultdict[tuple[str, str], list[Turn]] = defaultdict(list)
    for turn in asked.all_turns:
        if turn.has_sold:
            found[str(turn.at.date()), turn.model].append(turn)
    return [{"day": day, "model": model, **burnt(rows)} for (day, model), rows in sorted(found.items())]


def total_tokens(asked: Asked) -> Any:
    return sum(turn.total_tokens for turn in asked.all_turns if turn.has_sold)


def token_burn_by_client(asked: Asked) -> Any:
    found: defaultdict[int, list[Turn]] = defaultdict(list)
    for turn in asked.all_turns:
        if turn.has_sold:
            found[turn.client].append(turn)
    rows = [{"client_token_id": client, **burnt(turns)} for client, turns in sorted(found.items())]
    return sorted(rows, key=lambda row: -row["total_tokens"])[:20]


def token_burn_by_user(asked: Asked) -> Any:
    found: defaultdict[str, list[Turn]] = defaultdict(list)
    for turn in asked.all_turns:
        if turn.has_sold:
            found[turn.user].append(turn)
    shown = ("turns", "total_tokens", "cost_usd")
    rows = [{"user_id": user, **{name: burnt(turns)[name] for name in shown}} for user, turns in sorted(found.items())]
    return sorted(rows, key=lambda row: -row["total_tokens"])[:20]


def cost_usd(asked: Asked) -> Any:
    cost = usd(asked.all_turns)
    return None if cost is None else round(cost, 9)


def replays(asked: Asked) -> Any:
    def saved(originals: list[Turn]) -> dict[str, Any]:
        costs = [turn.cost_nanos for turn in originals]
        return {
            "replays": len(originals),
            "tokens_saved": sum(turn.total_tokens for turn in originals),
            "usd_saved": None if None in costs else sum(cost or 0 for cost in costs) / 1e9,
        }

    overall = [original for originals in asked.replays.values() for original in originals]
    rows = [{"day": str(day), **saved(originals)} for day, originals in asked.replays.items() if originals]
    return {**saved(overall), "by_day": rows}
