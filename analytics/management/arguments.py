"""What arguments of several commands are."""

from argparse import ArgumentTypeError
from datetime import date


def iso_day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError as exc:
        raise ArgumentTypeError("takes a day as YYYY-MM-DD.") from exc
