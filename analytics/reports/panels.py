"""Panels: a plot, its table, and the metrics that have its figures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import Any

from analytics.formatting import Unit, Values, format_day
from analytics.metrics import registry, usage
from analytics.metrics.engagement import sessions_by_day
from analytics.metrics.registry import METRICS, percentile
from analytics.metrics.sources import Table, Usage, share, totals
from analytics.query import today
from analytics.reports.charts import cohort_table, plots
from analytics.reports.charts.cohort_table import Cohort, Cohorts
from analytics.reports.charts.plots import Plot
from analytics.reports.charts.tables import Column, DataTable
from analytics.rollups.activity import RETURNS


@dataclass(frozen=True)
class Panel:
    # The metrics whose CSV holds the figures.
    metrics: list[str]
    plot: Plot | Cohorts
    table: DataTable
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


Series = Mapping[str, Sequence[Any]]
DAY = Column("Day")
# The percentiles that are shown of a unit.
RANKS: dict[Unit, dict[str, int]] = {
    "ms": {f"p{rank}": rank for rank in usage.PERCENTILES},
    "seconds": {"median": 50, "90th percentile": 90},
}


def newest_first(table: Table, series: Series) -> list[tuple[Any, ...]]:
    """Return a row for each day: the day, and a value of each series."""
    return [(day.isoformat(), *values) for day, *values in zip(table.days, *series.values(), strict=True)][::-1]


def by_day(table: Table, series: Series, unit: Unit) -> DataTable:
    """Return a table with a row for each day of which anything is known."""
    known = [row for row in newest_first(table, series) if any(value is not None for value in row[1:])]
    return DataTable.of([DAY, *(Column(name, unit) for name in series)], known)


def bars(title: str, metrics: list[str], table: Table, series: Series, beside: Series, unit: Unit = "share") -> Panel:
    """Draw counts as bars. In the table other figures stand `beside` them, with a row for each day that has a count."""
    rows = [row for row in newest_first(table, {**series, **beside}) if any(row[1 : len(series) + 1])]
    columns = [DAY, *(Column(name, "count") for name in series), *(Column(name, unit) for name in beside)]
    return Panel(metrics, plots.stacked_bars(title, table.days, series, "count"), DataTable.of(columns, rows))


def active_users(table: Table) -> Panel:
    names = ["dau", "wau", "mau"]
    series = {name.upper(): METRICS[name].figures[0].by_day(table) for name in names}
    drawn = series if any(map(any, series.values())) else {}
    return Panel(names, plots.lines("Active users", table.days, drawn, "count"), by_day(table, series, "count"))


def new_and_returning(table: Table) -> Panel:
    series = {"new": table.each_day("activity", "new_users"), "returning": table.each_day("activity", "returning")}
    plot = plots.stacked_bars("New and returning users", table.days, series, "count", is_additive=False)
    return Panel(["new_and_returning"], plot, by_day(table, series, "count"))


def turns(table: Table) -> Panel:
    series = {status: table.each_day("usage", status) for status in usage.ENDED}
    success = {"success rate": table.each_day("usage", "success_rate")}
    return bars("Turns", ["turns_by_day"], table, series, success)


def failures(table: Table) -> Panel:
    series = by_code(table, table.failures)
    rows = sorted(((code, sum(values)) for code, values in series.items()), key=lambda row: (-row[1], row[0]))
    plot = plots.stacked_bars("Failures", table.days, series, "count")
    return Panel(["failures"], plot, DataTable.of([Column("Error code"), Column("turns", "count")], rows))


def by_code(table: Table, counts: dict[date, Counter[str]]) -> dict[str, list[int]]:
    """Return the counts of every day for each error code."""
    codes = sorted({code for found in counts.values() for code in found})
    return {code: [counts.get(day, Counter())[code] for day in table.days] for code in codes}


def feedback(table: Table) -> Panel:
    names = ("thumbs_up", "thumbs_down", "regenerated")
    series = {name.replace("_", " "): table.each_day("usage", name) for name in names}
    thumbs_up = {"share up": table.each_day("usage", "thumbs_up_share")}
    return bars("What users said of replies", ["feedback"], table, series, thumbs_up)


def durations(title: str, metric: str, part: str, unit: Unit, table: Table) -> Panel:
    """Draw percentiles as lines. In the table of milliseconds their mean stands beside them."""
    computed = {name: percentile(part, rank) for name, rank in RANKS[unit].items()}
    series: dict[str, Values] = {name: values(table) for name, (_, values) in computed.items()}
    plot = plots.lines(title, table.days, series, unit, {name: figure(table) for name, (figure, _) in computed.items()})
    if unit == "ms":
        found = getattr(table, part)
        series["mean"] = [found[day].mean if day in found else None for day in table.days]
    return Panel([metric], plot, by_day(table, series, unit))


def sessions(table: Table) -> Panel:
    """Sessions of each day, and beside the plot how long they were."""
    lengths = {name: percentile("sessions", rank)[1](table) for name, rank in RANKS["seconds"].items()}
    return bars("Sessions", ["sessions"], table, {"sessions": sessions_by_day(table)}, lengths, "seconds")


def not_asked(table: Table) -> Panel:
    """Requests that bought nothing: answered from what was stored, or refused over a limit."""
    series = {"replayed": table.each_day("usage", "replays"), **by_code(table, table.refusals)}
    return bars("Replayed and refused requests", ["replays", "refusals"], table, series, {})


def tokens(table: Table) -> Panel:
    rows = [(model, row.sold, *(getattr(row, name) for name in usage.TOKENS)) for model, row in by_model(table)]
    names = ["turns", *(name.removesuffix("_tokens") for name in usage.TOKENS)]
    plot = plots.stacked_bars("Tokens by model", table.days, of_models(table, "total_tokens"), "tokens")
    return Panel(
        ["token_burn"], plot, DataTable.of([Column("Model"), *(Column(name, "tokens") for name in names)], rows)
    )


def cost(table: Table) -> Panel:
    unknown = registry.unpriced_models(table)
    plot = plots.stacked_bars("Cost by model", table.days, of_models(table, "cost_usd"), "usd")
    rows = [(model, row.cost_usd) for model, row in by_model(table)]
    note = f"Without models of unknown price: {unknown}." if unknown else ""
    return Panel(["token_burn"], plot, DataTable.of([Column("Model"), Column("cost", "usd")], rows), note)


def by_model(table: Table) -> list[tuple[str, Usage]]:
    """Return the sums of each model that sold anything, the one with most tokens first."""
    found = totals((model, row) for (_, model), row in table.usage_by_model.items())
    sold = [(model, row) for model, row in found.items() if row.sold]
    return sorted(sold, key=lambda item: (-item[1].total_tokens, item[0]))


def of_models(table: Table, name: str) -> dict[str, list[float]]:
    """Return a figure of every day for each model; 0 on days on which it is not known, and no series without any."""
    known: defaultdict[str, dict[date, float]] = defaultdict(dict)
    for (day, model), row in table.usage_by_model.items():
        if row.sold and (value := getattr(row, name)) is not None:
            known[model][day] = value
    return {model: [known[model].get(day, 0) for day in table.days] for model in sorted(known)}


def retention(table: Table) -> Panel:
    days_of: dict[str, list[date]] = defaultdict(list)
    for day in table.days:
        days_of[cohort_label(day, table.days)].append(day)
    rows = [cohort(table, label, days) for label, days in reversed(days_of.items())]
    rows = [row for row in rows if row.size]
    # Columns to whose day no user can have come back yet are left out.
    ages = [f"D+{age}" for i, age in enumerate(RETURNS) if any(row.shares[i] is not None for row in rows)]
    rows = [replace(row, shares=row.shares[: len(ages)]) for row in rows]
    columns = [Column("Since"), Column("new users", "count"), *(Column(name, "share") for name in ages)]
    listed = DataTable.of(columns, [(row.label, row.size, *row.shares) for row in rows])
    return Panel(["retention"], cohort_table.cohorts("Retention of new users", ages, rows), listed)


def cohort_label(day: date, days: Sequence[date]) -> str:
    """Name the cohort of a day: its day, week, month or year, so that there are few whatever the period."""
    if len(days) <= 14:
        return format_day(day)
    if len(days) <= 100:
        return format_day(max(day - timedelta(days=day.weekday()), days[0]))
    return f"{day:%b %Y}" if len(days) <= 731 else f"{day:%Y}"


def cohort(table: Table, label: str, days: Sequence[date]) -> Cohort:
    new = {day: table.activity[day].new_users for day in days}
    shares = []
    for age in RETURNS:
        # Only of those whose day to return is over.
        over = [day for day in days if new[day] and day + timedelta(days=age) < today()]
        back = sum(table.returned[age].get(day, 0) for day in over)
        shares.append(share(back, sum(new[day] for day in over)))
    return Cohort(label, sum(new.values()), shares)


PANELS: list[Callable[[Table], Panel]] = [
    active_users,
    new_and_returning,
    turns,
    failures,
    feedback,
    partial(durations, "Latency", "latency_ms", "latency", "ms"),
    partial(durations, "Time to first token", "first_token_ms", "first_token", "ms"),
    partial(durations, "Time spent per user and day", "time_spent", "time_spent", "seconds"),
    sessions,
    tokens,
    cost,
    not_asked,
    retention,
]
