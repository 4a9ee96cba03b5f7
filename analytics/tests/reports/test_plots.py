import re
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string

from analytics import formatting as units
from analytics.formatting import Unit, Values, format_figure
from analytics.reports.charts import plots
from analytics.reports.charts.cohort_table import Cohort, Cohorts, cohorts
from analytics.reports.charts.plots import Plot
from analytics.reports.charts.sparklines import sparkline, text_sparkline

SVG = "{http://www.w3.org/2000/svg}"
STYLES = Path(__file__).parents[2] / "static/analytics/dashboard.css"
LAST = date(2026, 11, 22)


def days(count: int) -> list[date]:
    return [LAST - timedelta(days=count - 1 - i) for i in range(count)]


def parsed(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page)  # noqa: S314, our own template wrote it


def drawn(plot: Plot) -> ElementTree.Element:
    return parsed(render_to_string(plot.template, {"plot": plot}))


def picture(plot: Plot) -> ElementTree.Element:
    found = drawn(plot).find(f"{SVG}svg")
    assert found is not None
    return found


def texts(root: ElementTree.Element, tag: str) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}{tag}")]


def points(path: str) -> list[tuple[float, float]]:
    """Every corner of a path, absolute."""
    x = y = 0.0
    corners = []
    for command, figures in re.findall(r"([MLhV])([-\d. ]+)", path):
        numbers = [float(figure) for figure in figures.split()]
        if command in "ML":
            x, y = numbers
        elif command == "h":
            x += numbers[0]
        else:
            y = numbers[0]
        corners.append((x, y))
    return corners


def corners(root: ElementTree.Element) -> list[tuple[float, float]]:
    found = [corner for path in root.iter(f"{SVG}path") for corner in points(path.attrib["d"])]
    found += [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        found += [(x, y), (x + width, y + height)]
    return found


@pytest.mark.parametrize(
    ("top", "unit", "labels"),
    [
        (0, "count", ["0", "1"]),
        (1, "count", ["0", "1"]),
        (3, "count", ["0", "1", "2", "3"]),
        (21, "count", ["0", "5", "10", "15", "20", "25"]),
        (8000, "count", ["0", "2,000", "4,000", "6,000", "8,000"]),
        (1_200_000, "tokens", ["0", "0.5 M", "1.0 M", "1.5 M"]),
        (48_000_000, "tokens", ["0", "10 M", "20 M", "30 M", "40 M", "50 M"]),
        (350, "ms", ["0", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (2300, "ms", ["0", "0.5 s", "1.0 s", "1.5 s", "2.0 s", "2.5 s"]),
        (11, "usd", ["0", "$5", "$10", "$15"]),
        (59, "seconds", ["0", "20 s", "40 s", "60 s"]),
        (150, "seconds", ["0", "0.5 min", "1.0 min", "1.5 min", "2.0 min", "2.5 min"]),
        (20_000, "seconds", ["0", "2 h", "4 h", "6 h"]),
        (1.2, "usd", ["0", "$0.50", "$1.00", "$1.50"]),
        (0.0042, "usd", ["0", "$0.001", "$0.002", "$0.003", "$0.004", "$0.005"]),
        (1, "share", ["0", "20 %", "40 %", "60 %", "80 %", "100 %"]),
    ],
)
def test_ticks_are_round_and_reach_the_highest_figure(top: float, unit: Unit, labels: list[str]) -> None:
    values = units.ticks(top, unit)

    assert units.tick_labels(values, unit) == labels
    assert values[-1] >= top


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "count", "–"),
        (float("nan"), "ms", "–"),
        (0, "count", "0"),
        (1234, "count", "1,234"),
        (12_345, "count", "12.3 k"),
        (999_999, "tokens", "1 M"),
        (1_200_000, "tokens", "1.2 M"),
        (2_400_000_000, "tokens", "2.4 B"),
        (350, "ms", "350 ms"),
        (999.9, "ms", "1 s"),
        (1412, "ms", "1.4 s"),
        (59, "seconds", "59 s"),
        (90, "seconds", "1.5 min"),
        (5400, "seconds", "1.5 h"),
        (0, "usd", "$0"),
        (12, "usd", "$12"),
        (12.5, "usd", "$12.50"),
        (0.0042, "usd", "$0.0042"),
        (0.000000001, "usd", "$0.0000000010"),
        (1234.5, "usd", "$1,234"),
        (0.982, "share", "98.2 %"),
        (1, "share", "100 %"),
        (0.99999, "share", "99.9 %"),
        (0.00001, "share", "0.1 %"),
    ],
)
def test_figures_read_as_people_say_them(value: float | None, unit: Unit, text: str) -> None:
    assert format_figure(value, unit) == text


def test_a_gap_breaks_the_line_and_is_no_zero() -> None:
    plot = plots.lines("Latency", days(7), {"p50": [100, 200, None, float("nan"), 300, None, 400]}, "ms")

    (series,) = plot.series
    assert re.findall("[A-Z]", series.line) == ["M", "L"]
    assert len(series.dots) == 2  # the days without a neighbour, of which one is the newest
    assert plot.columns[2].text == "18 Nov 2026\np50: –"
    assert all(y < plots.BASE for _, y in corners_of_series(plot))


def corners_of_series(plot: Plot) -> list[tuple[float, float]]:
    return [corner for series in plot.series for corner in [*points(series.line), *points(series.bars), *series.dots]]


def test_one_day_is_a_dot_or_a_bar() -> None:
    dot = plots.lines("DAU", days(1), {"DAU": [3]}, "count")
    bar = plots.stacked_bars("Turns", days(1), {"completed": [3], "failed": [1]}, "count")

    assert (dot.series[0].line, len(dot.series[0].dots)) == ("", 1)
    assert [len(points(series.bars)) for series in bar.series] == [4, 4]
    assert "22 Nov" in texts(picture(dot), "text")
    assert "22 Nov" in texts(picture(bar), "text")


@pytest.mark.parametrize(
    "plot",
    [
        plots.lines("Latency", days(3), {"p50": [None, None, None]}, "ms"),
        plots.lines("Latency", [], {}, "ms"),
        plots.stacked_bars("Latency", days(3), {"a": [0, 0, 0]}, "count"),
        plots.stacked_bars("Latency", days(3), {}, "count"),
    ],
)
def test_an_empty_plot_says_so(plot: Plot) -> None:
    assert texts(picture(plot), "text") == ["Nothing in this period."]
    assert picture(plot).attrib["aria-label"] == "Latency: nothing in this period."
    assert drawn(plot).find("ul") is None


def test_bars_stand_on_each_other() -> None:
    plot = plots.stacked_bars("Turns", days(2), {"completed": [6, 0], "failed": [4, 5]}, "count")

    completed, failed = (points(series.bars) for series in plot.series)
    assert [y for _, y in completed] == [176, 176, 76.4, 76.4]
    assert [y for _, y in failed] == [76.4, 76.4, 10, 10, 176, 176, 93, 93]
    assert [series.figure for series in plot.series] == ["6", "9"]
    assert plot.columns[0].text == "21 Nov 2026\ncompleted: 6\nfailed: 4\ntotal: 10"


def test_bars_of_many_days_are_of_weeks() -> None:
    values = [1.0] * 364 + [8]

    sums = plots.stacked_bars("Turns", days(365), {"completed": values}, "count")
    means = plots.stacked_bars("Users", days(365), {"users": values}, "count", is_additive=False)

    # What is left over of a week comes first; the newest week ends with the last day.
    assert [column.text for column in (sums.columns[0], sums.columns[-1])] == [
        "23 Nov 2025\ncompleted: 1",
        "16 Nov 2026 to 22 Nov 2026\ncompleted: 14",
    ]
    assert (sums.note, sums.series[0].figure) == ("372 in total, by week", "372")
    assert means.columns[-1].text == "16 Nov 2026 to 22 Nov 2026\nusers: 2"
    assert (means.note, means.series[0].figure) == ("mean day, by week", "1")


def test_lines_tell_figures_of_the_period_where_given() -> None:
    plot = plots.lines("Latency", days(2), {"p50": [100, None]}, "ms", {"p50": 90, "mean": 95})

    assert (plot.note, plot.series[0].figure) == ("of the period", "90 ms")


def test_the_smallest_of_many_series_are_summed_as_other() -> None:
    series = {f"model-{n}": [n, n] for n in (3, 9, 1, 8, 7, 2, 6, 5)}

    plot = plots.stacked_bars("Tokens", days(2), series, "tokens")

    names = ["model-3", "model-9", "model-8", "model-7", "model-6", "model-5", "other (2)"]
    assert [s.name for s in plot.series] == names
    assert [s.colour for s in plot.series] == ["1", "2", "3", "4", "5", "6", "other"]
    assert plot.series[-1].figure == "6"
    assert plot.note == "82 in total"


def test_names_are_escaped_and_long_ones_cut() -> None:
    rude = "<script>alert(1)</script>\"'&"
    tuned = "ft:gpt-4o-mini-2024-07-18:acme-corporation::A1b2C3d4"

    page = render_to_string(Plot.template, {"plot": plots.lines(rude, days(2), {rude: [1, 2], tuned: [2, 3]}, "count")})

    assert "<script" not in page
    legend = parsed(page).findall("ul/li")
    assert [item.attrib["title"] for item in legend] == [rude, tuned]
    assert "ft:gpt-4o-mini-20…::A1b2C3d4" in "".join(legend[1].itertext())
    assert tuned not in "".join(legend[1].itertext())


def bars_of(count: int) -> int:
    return count if count <= 100 else -(-count // (7 if count <= 750 else 30))


COUNTS = [1, 2, 7, 31, 62, 63, 84, 85, 100, 101, 365, 366, 751]
TOPS = [0.0000001, 0.37, 1, 999.9, 12_345, 73_456_789]


# Every two of a count, a top and a unit meet, and every count meets the widest label, which leaves least room for days.
PICTURES = [
    (count, TOPS[(i + j) % len(TOPS)], unit) for i, count in enumerate(COUNTS) for j, unit in enumerate(get_args(Unit))
]
WIDEST = [(count, TOPS[0], "ms") for count in COUNTS]


@pytest.mark.parametrize(("count", "top", "unit"), sorted({*PICTURES, *WIDEST}))
def test_everything_is_inside_the_picture(count: int, top: float, unit: Unit) -> None:
    top = min(top, 1) if unit == "share" else top
    values = [top * (i % 5) / 4 for i in range(count - 1)] + [top]
    gaps: Values = [None if i % 6 == 4 else value for i, value in enumerate(values)]

    for plot, columns in (
        (plots.lines("Lines", days(count), {"a": values, "b": gaps}, unit), bars_of(count)),
        (plots.stacked_bars("Bars", days(count), {"a": values, "b": values[::-1]}, unit), bars_of(count)),
    ):
        assert len(plot.columns) == columns
        assert plot.columns[0].x == plot.left
        assert plot.columns[-1].x + plot.columns[-1].width == pytest.approx(plot.right, abs=0.05)
        assert len(plot.y_ticks) <= 6
        assert all(plot.left - 0.02 <= x <= plot.right + 0.02 for x, _ in corners_of_series(plot))
        assert all(plots.TOP <= y <= plots.BASE for _, y in corners_of_series(plot))
        # In 12 units of a wide font "22 Nov" is 40 wide, and a character seldom more than 7.2.
        middles = [tick.at for tick in plot.x_ticks]
        assert middles
        assert all(20 <= middle <= plots.WIDTH - 20 for middle in middles)
        assert all(len(tick.label) * 7.2 <= plot.left for tick in plot.y_ticks)
        room = 44 if " " in plot.x_ticks[0].label else 32
        assert all(after - before >= room for before, after in pairwise(middles))


def test_of_many_days_each_week_tells_its_last() -> None:
    """A day of a year is a pixel wide: nobody could point at it."""
    plot = plots.lines("Lines", days(365), {"a": [float(i) for i in range(365)]}, "count")

    assert [column.text for column in plot.columns[-2:]] == ["15 Nov 2026\na: 357", "22 Nov 2026\na: 364"]
    assert plot.series[0].line.count("L") == 364


@pytest.mark.parametrize("count", [1, 30, 366])
def test_what_is_rendered_has_only_numbers_for_coordinates(count: int) -> None:
    values = [1e7 / 3] * count

    broken = [None, float("nan"), float("inf"), *values][:count]
    for plot, columns in (
        (plots.lines("Lines", days(count), {"a": values, "b": broken}, "ms"), bars_of(count)),
        (plots.stacked_bars("Bars", days(count), {"a": values}, "tokens"), bars_of(count)),
    ):
        root = picture(plot)
        assert root.attrib["viewBox"] == f"0 0 {plots.WIDTH} {plots.HEIGHT}"
        assert root.attrib["role"] == "img"
        assert all(0 <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT for x, y in corners(root))
        assert len(texts(root, "title")) == columns
        page = render_to_string(plot.template, {"plot": plot})
        assert not re.search(r"\b(nan|inf|None)\b|style=|<style|<script", page)


def test_a_series_shorter_than_the_period_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        plots.lines("DAU", days(3), {"DAU": [1, 2]}, "count")


def test_a_year_is_labelled_by_months() -> None:
    plot = plots.lines("DAU", days(366), {"DAU": [1] * 366}, "count")

    assert [tick.label for tick in plot.x_ticks] == ["2026", "Mar", "May", "Jul", "Sep", "Nov"]


def test_cohorts_are_shaded_by_share() -> None:
    rows = [
        Cohort("<i>1 Nov</i>", 1200, [1.0, 0.7, 0.001, 0.0]),
        Cohort("2 Nov", 3, [1.0, None]),
    ]
    columns = ["D+0", "D+1", "D+2", "D+3"]

    page = render_to_string(Cohorts.template, {"cohorts": cohorts("Retention", columns, rows)})

    assert "<i>" not in page
    table = parsed(page)
    assert [cell.text for cell in table.findall(".//thead/tr/th")] == ["Since", "Users", "D+0", "D+1", "D+2", "D+3"]
    first, second = (row.findall("td") for row in table.findall(".//tbody/tr"))
    assert [cell.get("class", "") for cell in first[1:]] == [f"share share-{n}" for n in (10, 7, 1, 0)]
    assert first[2].attrib["title"] == "<i>1 Nov</i>, D+1: 70 % of 1,200"
    assert [cell.get("class", "") for cell in second[1:]] == ["share share-10", "", "", ""]


def test_no_cohorts_say_so() -> None:
    page = render_to_string(Cohorts.template, {"cohorts": cohorts("Retention", ["D+1"], [])})

    assert "Nothing in this period." in page
    assert "<table" not in page


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0, 0], "▁▁"),
        ([0, 1, 50, 75, 100], "▁▂▃▅▇"),
        ([None, 3, float("nan")], " ▇ "),
        ([None, 1] * 31, "▇" * 31),
    ],
)
def test_a_line_of_text_shows_the_course(values: Values, text: str) -> None:
    assert text_sparkline(values) == text


@pytest.mark.parametrize(
    ("values", "paths", "dots"),
    [
        ([], 0, 0),
        ([None], 0, 0),
        ([5], 0, 1),
        ([0, 0], 2, 1),
        ([1, 2e7, 3], 2, 1),
        ([1, 2, None, 3], 1, 1),
        ([3] * 365, 2, 1),
    ],
)
def test_a_sparkline_is_a_line_with_its_newest_point(values: Values, paths: int, dots: int) -> None:
    course = sparkline(values)

    root = parsed(render_to_string(course.template, {"sparkline": course}))
    assert len(root.findall(f"{SVG}path")) == paths
    assert len(root.findall(f"{SVG}circle")) == dots
    assert len(points(course.line)) <= 60
    assert all(0 <= x <= course.width and 0 <= y <= course.height for x, y in corners(root))


def test_the_style_sheet_knows_every_colour_and_share() -> None:
    css = STYLES.read_text()

    for number, colour in plots.COLOURS.items():
        assert f"--plot-{number}: {colour};" in css
        assert f".plot-colour-{number} {{" in css
    assert all(f".cohorts .share-{level} {{ background" in css for level in range(11))
    # Both ways to a dark page have the same colours.
    by_system = css.split("prefers-color-scheme: dark) {\n  :root {")[1].split("}")[0]
    by_choice = css.split('html[data-theme="dark"] {')[1].split("}")[0]
    assert by_system.split() == by_choice.split()
