"""A turn that is refused in a batch costs itself: the others are opened with it, and limits stay exact."""

import random
from typing import Any

import pytest
from django.db import transaction

from analytics.ledger import Subject
from analytics.models import UsageEvent
from chat.estimates import Estimate
from chat.exceptions import ApiError
from chat.limits import room
from chat.limits.reservations import Reservation
from chat.models import Budget, ClientToken
from chat.sql import DjangoSession, Found, Statement, Step
from chat.turns import opening
from chat.turns.cuts import Cut
from chat.turns.idempotency import Idempotency
from chat.turns.lanes import Apart
from chat.turns.request import Turn, TurnRequest
from chat.upstream.replies import Call


class Shared:
    """A session of a lane, in the transaction of the test, that counts what runs."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        self.statements += [statement for statement, rows in steps if rows]
        return DjangoSession().run(*steps)


@pytest.fixture(autouse=True)
def nothing_is_scarce(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = room.Scarce()
    monkeypatch.setattr(room, "scarce", scarce)
    monkeypatch.setattr(opening, "scarce", scarce)


def client_with(**limits: Any) -> ClientToken:
    client = ClientToken(name="limited", **limits)
    client.renew()
    client.save()
    return client


def turn(client: ClientToken, number: int, tokens: int = 10, key: str = "") -> Turn:
    half = tokens // 2
    planned = Reservation.plan(client, "u", {"model": "m"}, prompt=Estimate(half, half), reply_tokens=half, limits=[])
    idempotency = Idempotency(client, key, "hash") if key else None
    request = TurnRequest(client, Subject(f"r_{number}", client.pk, "u"), [], idempotency=idempotency)
    return Turn(request, Call(f"r_{number}", {}, half), [], Cut(), planned)


def in_a_lane(turns: list[Turn], session: Shared | None = None) -> list[Any]:
    """Write the batch as a lane does: again, without those that are known, until it is written."""
    results: dict[int, Any] = {}
    left = turns
    for _ in range(5):
        try:
            with transaction.atomic():
                results |= zip(map(id, left), opening.write(session or Shared(), left), strict=True)
            return [results[id(one)] for one in turns]
        except Apart as apart:
            results |= apart.results
            left = [one for one in left if id(one) not in apart.results]
    raise AssertionError("the batch was not written")


def alone(turns: list[Turn]) -> list[Any]:
    found: list[Any] = []
    for one in turns:
        try:
            with transaction.atomic():
                found += opening.write(DjangoSession(), [one])
        except ApiError as refusal:
            found.append(refusal)
    return found


def codes(results: list[Any]) -> list[Any]:
    return [result.default_code if isinstance(result, ApiError) else result for result in results]


@pytest.mark.parametrize("limits", [{"concurrent_turns": 2}, {"day_tokens": 25}, {"tokens_per_min": 25}])
def test_those_with_room_are_opened_and_the_others_told(limits: dict[str, int]) -> None:
    limited, other = client_with(**limits), client_with(day_tokens=1000)
    turns = [turn(limited, 1), turn(other, 2), turn(limited, 3), turn(limited, 4), turn(other, 5)]

    results = in_a_lane(turns)

    assert [result is True for result in results] == [True, True, True, False, True]
    assert "rate_limit" in str(results[3].default_code) or "budget" in str(results[3].default_code)
    assert {*UsageEvent.objects.values_list("request_id", flat=True)} == {"r_1", "r_2", "r_3", "r_5"}


def test_a_limit_that_refuses_costs_others_one_statement() -> None:
    """Its first refusal rolls the batch back once. After that it is looked at before."""
    limited, other = client_with(concurrent_turns=1), client_with(day_tokens=1000)
    in_a_lane([turn(limited, 0)])
    first, later = Shared(), Shared()

    assert codes(in_a_lane([turn(limited, 1), turn(other, 2)], first))[1] is True
    assert codes(in_a_lane([turn(limited, 3), turn(other, 4)], later))[1] is True

    assert [one.name for one in first.statements] == ["reserve", "open_usage", "find_used", "reserve", "open_usage"]
    assert [one.name for one in later.statements] == ["find_used", "reserve", "open_usage"]


def test_one_key_twice_in_a_batch_is_one_turn() -> None:
    free, limited = client_with(), client_with(day_tokens=1000)

    results = in_a_lane([turn(one, n, key="k") for n, one in enumerate([free, limited, free, limited])])

    assert results == [True, True, False, False]
    assert UsageEvent.objects.count() == 2
    assert Budget.objects.get(unit="tokens").used == 10


def test_a_key_that_another_has_claimed_costs_its_own_turn() -> None:
    limited, other = client_with(day_tokens=1000), client_with(day_tokens=1000)
    in_a_lane([turn(limited, 0, key="k")])

    assert in_a_lane([turn(limited, 1, key="k"), turn(other, 2, key="k")]) == [False, True]

    assert {*Budget.objects.filter(unit="tokens").values_list("used", flat=True)} == {10}


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_decides_as_each_would_alone(seed: int) -> None:
    """In the order in which they came, whatever the limits, and whatever is used already."""
    dice = random.Random(seed)  # noqa: S311
    clients = [
        client_with(
            **{
                name: dice.choice([None, most])
                for name, most in [("concurrent_turns", 3), ("day_tokens", 100), ("user_month_tokens", 90)]
            }
        )
        for _ in range(3)
    ]
    used = [turn(dice.choice(clients), n, dice.choice([10, 20])) for n in range(3)]
    alone(used)
    batch = [turn(dice.choice(clients), 100 + n, dice.choice([10, 20, 40])) for n in range(12)]

    with transaction.atomic():
        expected = codes(alone(batch))
        counted = {*Budget.objects.values_list("key", "used")}
        transaction.set_rollback(True)
    with transaction.atomic():
        found = codes(in_a_lane(batch))

    assert found == expected
    assert {*Budget.objects.values_list("key", "used")} == counted


def test_what_is_remembered_of_limits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_SCARCE", 3)
    scarce = room.Scarce()

    scarce.add(str(number) for number in range(10))

    assert [str(number) in scarce for number in range(10)] == [False] * 7 + [True] * 3
