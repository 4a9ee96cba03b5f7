"""Headline figures, each with its course and its change against the period before."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analytics import plots, quality, sparklines, usage
from analytics.metrics import METRICS
from analytics.plots import Unit, Values

LIKED = "thumbs_up_share"
# What was read of one period, by the metric's name.
Figures = dict[str, Any]
Direction = Literal["good", "bad", "neutral"]


@dataclass(frozen=True)
class Card:
    title: str
    metric: str
    unit: Unit
    value: float | None
    before: float | None
    course: Values
    note: str = ""
    # What it means that the figure is higher than before.
    rise: Direction = "neutral"

    @property
    def text(self) -> str:
        return plots.shown(self.value, self.unit)

    @property
    def text_before(self) -> str:
        return plots.shown(self.before, self.unit)

    @property
    def definition(self) -> str:
        return METRICS[self.metric].definition

    @property
    def change(self) -> float | None:
        """As a share of the figure before; of shares, the difference. None where there is nothing to compare."""
        if self.value is None or self.before is None:
            return None
        if self.unit == "share":
            return self.value - self.before
        return self.value / self.before - 1 if self.before else None

    @property
    def change_text(self) -> str:
        """Empty where there is nothing to compare."""
        if self.change is None:
            return ""
        percent = round(self.change * 100, 1)
        sign = "+" if percent > 0 else "−" if percent < 0 else "±"
        size = f"{abs(percent):,.0f}" if abs(percent) >= 10 else f"{abs(percent):.1f}".removesuffix(".0")
        return f"{sign}{size} {'points' if self.unit == 'share' else '%'}"

    @property
    def verdict(self) -> Direction:
        """Of the change, as it is shown."""
        if self.rise == "neutral" or self.change_text[:1] not in ("+", "−"):
            return "neutral"
        return "good" if (self.change_text[0] == "+") == (self.rise == "good") else "bad"

    @property
    def sparkline(self) -> sparklines.Sparkline:
        return sparklines.sparkline(self.course)

    @property
    def text_sparkline(self) -> str:
        return sparklines.text_sparkline(self.course)


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

    def card(self, now: Figures, before: Figures) -> Card:
        return Card(
            self.title,
            self.metric,
            self.unit,
            self.value(now),
            self.value(before),
            self.course(now),
            self.note(now),
            self.rise,
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
    users: list[int] = [row["dau"] for row in figures["active_users"]]
    return sum(users) / len(users)


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
    return f"{plots.shown(bad, 'count')} failed or abandoned"


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


def added(costs: Sequence[float | None]) -> float | None:
    """None where any is unknown."""
    known = [value for value in costs if value is not None]
    return sum(known) if len(known) == len(costs) else None


def unpriced(figures: Figures) -> str:
    models = sorted({row["model"] for row in figures["token_burn"] if row["cost_usd"] is None})
    return f"Price unknown: {', '.join(models[:3])}{', …' if models[3:] else ''}" if models else ""


def replayed_by_day(figures: Figures) -> list[int]:
    return [replays or 0 for replays in column("replays", "replays")(figures)]


def saved(figures: Figures) -> str:
    usd, tokens = figures["replays"]["usd_saved"], figures["replays"]["tokens_saved"]
    return f"{plots.shown(usd, 'usd')} and {plots.shown(tokens, 'tokens')} tokens not spent twice"


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


def latency(title: str, name: str) -> Headline:
    return Headline(title, "latency_ms", "ms", overall("latency_ms", name), column("latency_ms", name), "bad")


def time_spent(title: str, name: str, note: str) -> Headline:
    value, course = overall("time_spent", name), column("time_spent", name)
    return Headline(title, "time_spent", "seconds", value, course, "good", said(note))


DAU = column("active_users", "dau")
HEADLINES = [
    Headline("Daily active users", "dau", "count", mean_users, DAU, "good", said("mean of all days")),
    users_of("Weekly active users", "wau"),
    users_of("Monthly active users", "mau"),
    Headline("New users", "new_and_returning", "count", new_users, column("retention", "new"), "good"),
    Headline("Turns", "turns", "count", ended, ended_by_day, "good", failed),
    Headline("Success rate", "success_rate", "share", success, column("turns_by_day", "success_rate"), "good"),
    Headline("Thumbs up", "feedback", "share", liked, column("feedback", LIKED), "good", judged),
    latency("Latency, median", "p50"),
    latency("Latency, 95th percentile", "p95"),
    time_spent("Time spent, median", "median_seconds", "per user and day"),
    Headline("Tokens", "token_burn", "tokens", burnt, burnt_by_day),
    Headline("Cost", "cost_usd", "usd", cost, cost_by_day, "bad", unpriced),
    Headline("Replays", "replays", "count", overall("replays", "replays"), replayed_by_day, "neutral", saved),
]


def cards(now: Figures, before: Figures) -> list[Card]:
    return [headline.card(now, before) for headline in HEADLINES]
