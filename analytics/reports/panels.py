"""Plots, each with its table, its definition, and the metrics that have its figures."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from analytics import formatting as units
from analytics.formatting import Unit
from analytics.metrics import usage
from analytics.metrics.registry import METRICS
from analytics.query import Window
from analytics.reports.charts import cohort_table as cohorts
from analytics.reports.charts import plots
from analytics.reports.charts.cohort_table import Cohort, Cohorts
from analytics.reports.charts.plots import Plot
from analytics.reports.charts.tables import Column, Table
from analytics.reports.headlines import Figures, added, column, replayed_by_day, unpriced_models


@dataclass(frozen=True)
class Panel:
    # Whose CSVs have the figures.
    metrics: list[str]
    plot: Plot | Cohorts
    table: Table
    note: str = ""

    @property
    def title(self) -> str:
        return self.plot.title

    @property
    def has_table(self) -> bool:
        """Whether the table says more than the plot."""
        return isinstance(self.plot, Plot) and bool(self.plot.series)

    @property
    def definitions(self) -> dict[str, str]:
        return {name: METRICS[name].definition for name in self.metrics}


Days = Sequence[date]
DAY = Column("Day")


def by_day(days: Days, columns: Mapping[str, Sequence[Any]], unit: Unit) -> Table:
    """A row a day, the newest first; days of which nothing is known are left out."""
    known = [row for row in newest_first(days, columns) if any(value is not None for value in row[1:])]
    return Table.of([DAY, *(Column(name, unit) for name in columns)], known)


def newest_first(days: Days, columns: Mapping[str, Sequence[Any]]) -> list[tuple[Any, ...]]:
    rows = [(day.isoformat(), *values) for day, *values in zip(days, *columns.values(), strict=True)]
    return rows[::-1]


def active_users(days: Days, figures: Figures) -> Panel:
    names = ["dau", "wau", "mau"]
    series = {name.upper(): column("active_users", name)(figures) for name in names}
    drawn = series if any(map(any, series.values())) else {}
    return Panel(names, plots.lines("Active users", days, drawn, "count"), by_day(days, series, "count"))


def new_and_returning(days: Days, figures: Figures) -> Panel:
    """As the metric has it, of what the retention and the DAU have told already."""
    new = column("retention", "new")(figures)
    # They were read at two moments, between which somebody may have come.
    returning = [max(0, all_ - those) for all_, those in zip(column("active_users", "dau")(figures), new, strict=True)]
    series = {"new": new, "returning": returning}
    plot = plots.stacked_bars("New and returning users", days, series, "count", is_additive=False)
    return Panel(["new_and_returning"], plot, by_day(days, series, "count"))


def turns(days: Days, figures: Figures) -> Panel:
    series = {status: column("turns_by_day", status)(figures) for status in usage.ENDED}
    rates = column("turns_by_day", "success_rate")(figures)
    rows = [(day.isoformat(), *values, rate) for day, *values, rate in zip(days, *series.values(), rates, strict=True)]
    columns = [DAY, *(Column(status, "count") for status in series), Column("success rate", "share")]
    kept = [row for row in reversed(rows) if any(row[1:-1])]
    return Panel(["turns_by_day"], plots.stacked_bars("Turns", days, series, "count"), Table.of(columns, kept))


def failures(days: Days, figures: Figures) -> Panel:
    series = filled(days, figures["failures"], "code", "turns")
    rows = sorted(((code, sum(values)) for code, values in series.items()), key=lambda row: (-row[1], row[0]))
    plot = plots.stacked_bars("Failures", days, series, "count")
    return Panel(["failures"], plot, Table.of([Column("Error code"), Column("turns", "count")], rows))


def feedback(days: Days, figures: Figures) -> Panel:
    names = {"thumbs_up": "thumbs up", "thumbs_down": "thumbs down", "regenerated": "regenerated"}
    series = {text: column("feedback", name)(figures) for name, text in names.items()}
    rows = zip(days, *series.values(), column("feedback", "thumbs_up_share")(figures), strict=True)
    kept = [(day.isoformat(), *values) for day, *values in reversed([*rows]) if any(values[:-1])]
    columns = [DAY, *(Column(text, "count") for text in series), Column("share up", "share")]
    plot = plots.stacked_bars("What users said of replies", days, series, "count")
    return Panel(["feedback"], plot, Table.of(columns, kept))


def latency(days: Days, figures: Figures) -> Panel:
    return durations("Latency", "latency_ms", days, figures)


def first_token(days: Days, figures: Figures) -> Panel:
    return durations("Time to first token", "first_token_ms", days, figures)


def durations(title: str, metric: str, days: Days, figures: Figures) -> Panel:
    series = {name: column(metric, name)(figures) for name in ("p50", "p95", "p99")}
    table = by_day(days, series | {"mean": column(metric, "mean")(figures)}, "ms")
    return Panel([metric], plots.lines(title, days, series, "ms", figures[metric]), table)


def not_asked(days: Days, figures: Figures) -> Panel:
    """Requests that bought nothing: answered from what was stored, or refused over a limit."""
    series: dict[str, Sequence[float]] = {"replayed": replayed_by_day(figures)}
    series |= filled(days, figures["refusals"], "code", "requests")
    plot = plots.stacked_bars("Replayed and refused requests", days, series, "count")
    kept = [row for row in newest_first(days, series) if any(row[1:])]
    return Panel(["replays", "refusals"], plot, Table.of([DAY, *(Column(name, "count") for name in series)], kept))


def tokens(days: Days, figures: Figures) -> Panel:
    burn = figures["token_burn"]
    names = ["turns", *usage.TOKENS]
    rows = [(model, *(sum(row[name] for row in those) for name in names)) for model, those in by_model(burn)]
    columns = [Column("Model"), *(Column(name.removesuffix("_tokens"), "tokens") for name in names)]
    plot = plots.stacked_bars("Tokens by model", days, filled(days, burn, "model", "total_tokens"), "tokens")
    return Panel(["token_burn"], plot, Table.of(columns, rows))


def cost(days: Days, figures: Figures) -> Panel:
    burn = figures["token_burn"]
    rows = [(model, added([row["cost_usd"] for row in those])) for model, those in by_model(burn)]
    unknown = unpriced_models(figures)
    series = filled(days, [row for row in burn if row["cost_usd"] is not None], "model", "cost_usd")
    plot = plots.stacked_bars("Cost by model", days, series, "usd")
    note = f"Without models of unknown price: {unknown}." if unknown else ""
    return Panel(["token_burn"], plot, Table.of([Column("Model"), Column("cost", "usd")], rows), note)


def by_model(burn: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of each model, that which burnt most first."""
    rows = defaultdict(list)
    for row in burn:
        rows[row["model"]].append(row)
    return sorted(rows.items(), key=lambda item: (-sum(row["total_tokens"] for row in item[1]), item[0]))


def filled(days: Days, rows: list[dict[str, Any]], by: str, name: str) -> dict[str, list[float]]:
    """A figure of every day for each value of `by`, 0 where no row tells any."""
    series: dict[str, dict[str, float]] = {}
    for row in sorted(rows, key=lambda row: str(row[by])):
        series.setdefault(row[by], {})[row["day"]] = row[name]
    return {key: [figures.get(day.isoformat(), 0) for day in days] for key, figures in series.items()}


def time_spent(days: Days, figures: Figures) -> Panel:
    names = {"median": "median_seconds", "90th percentile": "p90_seconds"}
    series = {name: column("time_spent", key)(figures) for name, key in names.items()}
    overall = {name: figures["time_spent"][key] for name, key in names.items()}
    plot = plots.lines("Time spent per user and day", days, series, "seconds", overall)
    return Panel(["time_spent"], plot, by_day(days, series, "seconds"))


RETURNS = {"D+1": "d1", "D+7": "d7", "D+30": "d30"}


def retention(days: Days, figures: Figures) -> Panel:
    days_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for day, row in zip(days, figures["retention"], strict=True):
        days_of[cohort_of(day, days)].append(row)
    rows = [cohort(label, those) for label, those in reversed(days_of.items()) if any(row["new"] for row in those)]
    # Days that nobody can have come back on yet are left out.
    ages = [name for i, name in enumerate(RETURNS) if any(row.shares[i] is not None for row in rows)]
    rows = [replace(row, shares=row.shares[: len(ages)]) for row in rows]
    columns = [Column("Since"), Column("new users", "count"), *(Column(name, "share") for name in ages)]
    table = Table.of(columns, [(row.label, row.size, *row.shares) for row in rows])
    return Panel(["retention"], cohorts.cohorts("Retention of new users", ages, rows), table)


def cohort_of(day: date, days: Days) -> str:
    """The day, week, month or year: so that there are few, whatever the window."""
    if len(days) <= 14:
        return units.spoken(day)
    if len(days) <= 100:
        return units.spoken(max(day - timedelta(days=day.weekday()), days[0]))
    return f"{day:%b %Y}" if len(days) <= 731 else f"{day:%Y}"


def cohort(label: str, rows: list[dict[str, Any]]) -> Cohort:
    return Cohort(label, sum(row["new"] for row in rows), [returned(rows, age) for age in RETURNS.values()])


def returned(rows: list[dict[str, Any]], age: str) -> float | None:
    """Of those whose day to return has come."""
    come = [row for row in rows if row[age] is not None]
    return usage.share(sum(row[age] * row["new"] for row in come), sum(row["new"] for row in come))


PANELS: list[Callable[[Days, Figures], Panel]] = [
    active_users,
    new_and_returning,
    turns,
    failures,
    feedback,
    latency,
    first_token,
    time_spent,
    tokens,
    cost,
    not_asked,
    retention,
]


def panels(window: Window, figures: Figures) -> list[Panel]:
    days = list(window.days)
    return [panel(days, figures) for panel in PANELS]
