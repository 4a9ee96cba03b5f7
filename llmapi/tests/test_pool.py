"""Connections of PostgreSQL's pool: whoever wants many leaves some for others."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db.backends.postgresql import base as django_base

from analytics.fairness import Owner, outside, work, working_for
from llmapi.backends.postgresql import base

POOL = {"max_size": 5, "timeout": 0, "max_waiting": 0}


class Wrapper(base.DatabaseWrapper):
    pool: Any = SimpleNamespace()  # there is one


@pytest.fixture(autouse=True)
def connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections be anything, of a pool of four and one for background jobs."""
    monkeypatch.setattr(django_base.DatabaseWrapper, "get_new_connection", lambda self, params: object())
    monkeypatch.setattr(django_base.DatabaseWrapper, "_close", lambda self: None)
    monkeypatch.setattr(base, "_shares", {})


class Turn:
    def resume(self, owner: Owner) -> None:
        """Go on at once."""

    give_back = take_turn = resume


@pytest.fixture
def works_for() -> Iterator[Any]:
    def begin(owner: Owner) -> None:
        work.held = [(Turn(), owner)]  # type: ignore[list-item]

    yield begin
    work.held = []


def wrapper() -> Wrapper:
    return Wrapper({"OPTIONS": {"pool": dict(POOL)}, "NAME": "x"}, "default")


def test_one_client_leaves_a_connection_for_the_next(works_for: Any) -> None:
    works_for("many")
    taken = [wrapper() for _ in range(4)]
    for one in taken[:3]:
        one.get_new_connection({})
    with pytest.raises(psycopg.OperationalError, match="no connection of the pool"):
        taken[3].get_new_connection({})

    works_for("another")
    assert wrapper().get_new_connection({})

    works_for("many")
    taken[0]._close()
    taken[0]._close()  # again: it gives nothing back twice
    assert taken[3].get_new_connection({})
    with pytest.raises(psycopg.OperationalError):
        wrapper().get_new_connection({})


def test_what_no_client_asks_for_is_not_counted(works_for: Any) -> None:
    assert [wrapper().get_new_connection({}) for _ in range(10)]


def test_a_connection_that_cannot_be_had_takes_no_place(works_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, params: Any) -> None:
        raise psycopg.OperationalError("connection refused")

    works_for("many")
    monkeypatch.setattr(django_base.DatabaseWrapper, "get_new_connection", fail)
    for _ in range(10):
        with pytest.raises(psycopg.OperationalError, match="refused"):
            wrapper().get_new_connection({})


def test_whoever_waits_outside_is_still_known(works_for: Any) -> None:
    works_for("many")
    with outside():
        assert working_for() == "many"
        with outside():
            assert working_for() == "many"
    assert (working_for(), work.away) == ("many", None)
