"""Tests of staff pages are written for the day of the sample week, whatever the day on which they run."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def at_noon(noon: None) -> None:
    """Begin each module at noon of `sample_week.TODAY`."""
