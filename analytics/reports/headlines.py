"""Which figures stand at the top, and how each is made of what was read of a period."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analytics import formatting as units
from analytics.formatting import Unit, Values
from analytics.metrics import feedback as quality
from analytics.metrics import usage
from analytics.reports.cards import Card, Direction
from analytics.reports.charts.sparklines import mean

LIKED = "thumbs_up_share"
# What was read of one period, by the metric's name.
Figures = dict[str, Any]


@dataclass(frozen=True)
class Headline:
    """How a card is made of what was read."""

    title: str
    metric: str
    unit: Unit
    value: Callable[[Figures], float | None]
    course: Callable[[Figures], Values]
    rise: Direction = "neutral"
    note: Callable[[Figures], str] = lambda figures: ""

    @property
    def adds_up(self) -> bool:
        """Over a day, so that a day which goes on has less of it; the share or the time of turns has not."""
        return self.unit in ("count", "tokens", "usd", "seconds") or self.metric == "stickiness"

    def card(self, now: Figures, before: Figures, *, is_over: bool) -> Card:
        return Card(
            self.title,
            self.metric,
            self.unit,
            self.value(now),
            self.value(before),
            self.course(now),
            self.note(now),
            self.rise,
            is_over or not self.adds_up,
        )


def column(metric: str, name: str) -> Callable[[Figures], list[Any]]:
    """A figure of each day; None on days of which nothing was said."""

    def course(figures: Figures) -> list[Any]:
        value = figures[metric]
        by_day = {row["day"]: row[name] for row in (value["by_day"] if isinstance(value, dict) else value)}
        return [by_day.get(day["day"]) for day in figures["active_users"]]

    return course


def overall(metric: str, name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures[metric][name]


def newest(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures["active_users"][-1][name]


def mean_users(figures: Figures) -> float:
    return user_days(figures) / len(figures["active_users"])


def user_days(figures: Figures) -> int:
    """A user who was active on three days counts three times."""
    return sum(row["dau"] for row in figures["active_users"])


def per_user_day(total: float | None, figures: Figures) -> float | None:
    users = user_days(figures)
    return None if total is None or not users else total / users


def stickiness_by_day(figures: Figures) -> list[float | None]:
    return [usage.share(row["dau"], row["mau"]) for row in figures["active_users"]]


def stickiness(figures: Figures) -> float | None:
    return mean([share for share in stickiness_by_day(figures) if share is not None])


def messages_by_day(figures: Figures) -> list[float | None]:
    return [usage.share(row["turns"], row["dau"]) for row in figures["active_users"]]


def messages(figures: Figures) -> float | None:
    return per_user_day(sum(row["turns"] for row in figures["active_users"]), figures)


def activated(figures: Figures) -> float | None:
    rows = figures["activation"]
    return usage.share(sum(row["activated"] for row in rows), sum(row["new"] for row in rows))


def new_users(figures: Figures) -> int:
    return sum(row["new"] for row in figures["retention"])


def ended_by_day(figures: Figures) -> list[int]:
    return [sum(row[status] for status in usage.ENDED) for row in figures["turns_by_day"]]


def ended(figures: Figures) -> int:
    return sum(ended_by_day(figures))


def success(figures: Figures) -> float | None:
    return usage.rate(Counter({name: sum(row[name] for row in figures["turns_by_day"]) for name in usage.ENDED}))


def failed(figures: Figures) -> str:
    bad = sum(row["failed"] + row["abandoned"] for row in figures["turns_by_day"])
    return f"{units.shown(bad, 'count')} failed or abandoned"


def burnt(figures: Figures) -> int:
    return sum(row["total_tokens"] for row in figures["token_burn"])


def burnt_by_day(figures: Figures) -> list[int]:
    days: Counter[str] = Counter()
    for row in figures["token_burn"]:
        days[row["day"]] += row["total_tokens"]
    return [days[row["day"]] for row in figures["active_users"]]


def cost(figures: Figures) -> float | None:
    return added([row["cost_usd"] for row in figures["token_burn"]])


def cost_by_day(figures: Figures) -> list[float | None]:
    days: defaultdict[str, list[float | None]] = defaultdict(list)
    for row in figures["token_burn"]:
        days[row["day"]].append(row["cost_usd"])
    return [added(days[row["day"]]) for row in figures["active_users"]]


def cost_of_user(figures: Figures) -> float | None:
    return per_user_day(cost(figures), figures)


def cost_of_user_by_day(figures: Figures) -> list[float | None]:
    days = zip(cost_by_day(figures), DAU(figures), strict=True)
    return [total / users if users and total is not None else None for total, users in days]


def added(costs: Sequence[float | None]) -> float | None:
    """None where any is unknown."""
    known = [value for value in costs if value is not None]
    return sum(known) if len(known) == len(costs) else None


def unpriced(figures: Figures) -> str:
    models = unpriced_models(figures)
    return f"Price unknown: {models}" if models else ""


def unpriced_models(figures: Figures) -> str:
    """The first three, and how many more."""
    models = sorted({row["model"] for row in figures["token_burn"] if row["cost_usd"] is None})
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if models[3:] else "")


def replayed_by_day(figures: Figures) -> list[int]:
    return [replays or 0 for replays in column("replays", "replays")(figures)]


def saved(figures: Figures) -> str:
    usd, tokens = figures["replays"]["usd_saved"], figures["replays"]["tokens_saved"]
    return f"{units.shown(usd, 'usd')} and {units.shown(tokens, 'tokens')} tokens not spent twice"


def liked(figures: Figures) -> float | None:
    share: float | None = quality.overall(figures["feedback"])[LIKED]
    return share


def judged(figures: Figures) -> str:
    said = quality.overall(figures["feedback"])
    return f"{said['thumbs_up']:,} up, {said['thumbs_down']:,} down, {said['regenerated']:,} regenerated"


def said(text: str) -> Callable[[Figures], str]:
    return lambda figures: text


def users_of(title: str, name: str) -> Headline:
    return Headline(title, name, "count", newest(name), column("active_users", name), "good", said("on the last day"))


def duration(title: str, metric: str, rank: str = "p50") -> Headline:
    return Headline(title, metric, "ms", overall(metric, rank), column(metric, rank), "bad")


def time_spent(title: str, name: str) -> Headline:
    value, course = overall("time_spent", name), column("time_spent", name)
    return Headline(title, "time_spent", "seconds", value, course, "good", PER_USER_DAY)


PER_USER_DAY = said("per user and day")
MEAN_OF_DAYS = said("mean of all days")
DAU = column("active_users", "dau")
ACTIVATED = column("activation", "share")
HEADLINES = [
    Headline("Daily active users", "dau", "count", mean_users, DAU, "good", MEAN_OF_DAYS),
    users_of("Weekly active users", "wau"),
    users_of("Monthly active users", "mau"),
    Headline("Stickiness", "stickiness", "share", stickiness, stickiness_by_day, "good", MEAN_OF_DAYS),
    Headline("New users", "new_and_returning", "count", new_users, column("retention", "new"), "good"),
    # Not judged: who came last has had the least time.
    Headline("Activation", "activation", "share", activated, ACTIVATED, note=said("of new users, so far")),
    Headline("Turns", "turns", "count", ended, ended_by_day, "good", failed),
    Headline("Success rate", "success_rate", "share", success, column("turns_by_day", "success_rate"), "good"),
    Headline("Messages", "messages_per_active_user", "count", messages, messages_by_day, "good", PER_USER_DAY),
    time_spent("Time spent, median", "median_seconds"),
    duration("Latency, median", "latency_ms"),
    duration("Latency, 95th percentile", "latency_ms", "p95"),
    duration("First token, median", "first_token_ms"),
    Headline("Thumbs up", "feedback", "share", liked, column("feedback", LIKED), "good", judged),
    Headline("Tokens", "token_burn", "tokens", burnt, burnt_by_day),
    Headline("Cost", "cost_usd", "usd", cost, cost_by_day, "bad", unpriced),
    Headline("Cost of a user", "cost_per_active_user", "usd", cost_of_user, cost_of_user_by_day, "bad", PER_USER_DAY),
    Headline("Replays", "replays", "count", overall("replays", "replays"), replayed_by_day, "neutral", saved),
]


def cards(now: Figures, before: Figures, *, is_over: bool) -> list[Card]:
    """`is_over` says whether no day of now goes on."""
    return [headline.card(now, before, is_over=is_over) for headline in HEADLINES]
