"""Arguments that commands share."""

from argparse import ArgumentTypeError
from datetime import date

from analytics.query import InvalidQuery, parse_day


def iso_day(text: str) -> date:
    """Read a day of the command line."""
    try:
        return parse_day(text, "day")
    except InvalidQuery as exc:
        raise ArgumentTypeError(str(exc)) from exc
