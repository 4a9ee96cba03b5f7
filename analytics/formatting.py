"""Write figures, money and days as people read them. What is not known is a dash, never a 0."""

import math
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Literal

Unit = Literal["count", "tokens", "ms", "seconds", "usd", "share"]
Values = Sequence[float | None]

# The ledger counts money in billionths of a dollar: sums of whole numbers are exact.
NANOS_PER_DOLLAR = 1_000_000_000
UNKNOWN = "–"

# Of each unit: the least figure of a scale, what figures are divided by, and how they are written; largest first.
SCALES: dict[Unit, list[tuple[float, float, str]]] = {
    "count": [(1e12, 1e12, "{} T"), (1e9, 1e9, "{} B"), (1e6, 1e6, "{} M"), (1e4, 1e3, "{} k"), (0, 1, "{}")],
    "tokens": [(1e12, 1e12, "{} T"), (1e9, 1e9, "{} B"), (1e6, 1e6, "{} M"), (1e4, 1e3, "{} k"), (0, 1, "{}")],
    "usd": [(1e9, 1e9, "${} B"), (1e6, 1e6, "${} M"), (1e4, 1e3, "${} k"), (0, 1, "${}")],
    "ms": [(1e3, 1e3, "{} s"), (0, 1, "{} ms")],
    "seconds": [(3600, 3600, "{} h"), (60, 60, "{} min"), (0, 1, "{} s")],
    "share": [(0, 0.01, "{} %")],
}


def ticks(top: float, unit: Unit) -> list[float]:
    """Return the figures of an axis, from 0 to at least `top`, in steps of 1, 2 or 5 times a power of ten."""
    # Steps are round in the scale in which they are written: an hour is no round number of seconds. Decimal, because
    # 3 * 0.1 is not 0.3.
    divisor = Decimal(repr(scale(top or 1, unit)[0]))
    highest = Decimal(repr(float(top or 1))) / divisor
    least = highest / 5
    if unit in ("count", "tokens"):
        least = max(least, 1 / divisor)
    power = Decimal(1).scaleb(least.adjusted())
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    return [float(step * divisor * number) for number in range(math.ceil(highest / step) + 1)]


def tick_labels(values: Sequence[float], unit: Unit) -> list[str]:
    """Write the figures of an axis, all in one scale, with as many decimals as their step needs."""
    # The scale of the figure before the last: 20, 40 and 60 seconds are no round parts of a minute.
    divisor, text = scale(values[-2] if unit == "seconds" else values[-1], unit)
    decimals = max(0, -Decimal(repr(values[1] / divisor)).adjusted())
    if unit == "usd" and decimals == 1:
        decimals = 2
    return ["0"] + [text.format(f"{value / divisor:,.{decimals}f}") for value in values[1:]]


def scale(value: float, unit: Unit) -> tuple[float, str]:
    # Rounded to the three digits that are shown first: 999 999 is 1 M, not 1,000 k.
    rounded = float(f"{value:.3g}")
    return next((divisor, text) for least, divisor, text in SCALES[unit] if rounded >= least)


def format_figure(value: float | None, unit: Unit) -> str:
    """Write a figure for a glance: scaled, with its unit, and with three digits at most."""
    value = finite(value)
    if value is None:
        return UNKNOWN
    if unit == "share" and 0 < value < 1:
        # "100 %" and "0 %" are for all and none.
        value = min(max(value, 0.001), 0.999)
    divisor, text = scale(value, unit)
    figure = value / divisor
    if unit == "usd" and divisor == 1:
        return text.format(cents(figure))
    if 0 < figure < 0.05:
        return text.format("< 0.1")  # 0 is for none
    return text.format(f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}".removesuffix(".0"))


def format_exact(value: float | None, unit: Unit) -> str:
    """Write a figure for a table: counts whole, and money to the millionth of a dollar where it is less than one."""
    value = finite(value)
    if value is None:
        return UNKNOWN
    if unit in ("count", "tokens") and isinstance(value, int):
        return f"{value:,}"
    if unit == "usd":
        decimals = 6 if 0 < value < 1 else 2
        if 0 < value < 1e-6:
            decimals = 1 - math.floor(math.log10(value))  # a turn may cost less than that: two digits of it
        return f"${value:,.{decimals}f}"
    return format_figure(value, unit)


def format_value(value: object) -> str:
    """Write a value whose unit is not known."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def usd(nanos: int | None) -> float | None:
    """Turn billionths of a dollar into dollars."""
    return None if nanos is None else nanos / NANOS_PER_DOLLAR


def cents(dollars: float) -> str:
    """Write dollars: whole ones, or cents, or two digits of a price below a cent."""
    if dollars >= 1000 or dollars == round(dollars):
        return f"{dollars:,.0f}"
    return f"{dollars:.{max(2, 1 - math.floor(math.log10(dollars)))}f}"


def finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def format_day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def format_days(first: date, last: date) -> str:
    return format_day(first) if first == last else f"{format_day(first)} to {format_day(last)}"
