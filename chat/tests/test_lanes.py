"""Group commit: what comes at once is committed together, and nobody pays for another's failure."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from analytics.ledger import Subject
from analytics.models import UsageEvent
from bench.openai_double import OpenAIDouble
from chat.estimates import Estimate
from chat.limits.reservations import Reservation
from chat.models import ClientToken, Conversation, Message
from chat.sql import DjangoSession
from chat.turns import lanes, opening
from chat.turns.admission import admissions
from chat.turns.cuts import Cut
from chat.turns.lanes import Alone, Apart, Lane
from chat.turns.request import Turn, TurnRequest
from chat.turns.settling import settlements
from chat.upstream.replies import Call
from conftest import Server, wait_until

URL = "/v1/chat/completions"
POISON = 666


class Journal:
    """A session that keeps a journal of its transactions."""

    def __init__(self) -> None:
        self.is_connected = True
        self.is_in_doubt = False
        self.fails_to_commit = False
        self.entries: list[str] = []

    @contextmanager
    def transaction(self, *, is_atomic: bool) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.entries.append("rollback")
            raise
        if self.fails_to_commit:
            raise OSError("gone")
        self.entries.append("commit")

    def run(self, *steps: Any, is_last: bool = False) -> list[Any]:
        return []


class Shop:
    """A lane whose work is shut until `gate` opens, so that a queue forms before it."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.batches: list[list[int]] = []
        self.lane: Lane[int, int] = Lane("shop", self.work, owner_of=lambda item: item // 100)

    def work(self, session: Any, items: Sequence[int]) -> list[int]:
        self.begun.set()
        if isinstance(session, Journal):
            self.gate.wait(10)
            self.batches.append(list(items))
        if known := {id(item): item for item in items if item > 1000}:
            raise Apart(known)
        if POISON in items:
            raise TypeError("poison")
        if any(item < 0 for item in items):
            raise Alone if len(items) > 1 else ValueError("negative")
        return [2 * item for item in items]

    def run(self, pool: ThreadPoolExecutor, items: Sequence[int]) -> list[Future[int]]:
        """Send the first, and the others while it is at work."""
        first = pool.submit(self.lane.run, items[0])
        assert self.begun.wait(10)
        others = [pool.submit(self.lane.run, item) for item in items[1:]]
        wait_until(lambda: len(self.lane._queue) == len(items) - 1)
        self.gate.set()
        return [first, *others]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    journal = Journal()
    monkeypatch.setattr(lanes, "lasting_session", lambda name: journal)
    monkeypatch.setattr(lanes, "_are_open", True)
    # Who runs alone has Django's connection, which this test has no need of.
    monkeypatch.setattr(transaction, "atomic", nullcontext)
    return journal


def test_what_queues_is_committed_together(journal: Journal) -> None:
    shop = Shop()

    with ThreadPoolExecutor(8) as pool:
        results = [future.result(10) for future in shop.run(pool, [1, 2, 3, 4, 5])]

    assert results == [2, 4, 6, 8, 10]
    assert [sorted(batch) for batch in shop.batches] == [[1], [2, 3, 4, 5]]
    assert journal.entries == ["commit", "commit"]


def test_who_has_queued_little_rides_in_the_next_batch(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    monkeypatch.setattr(lanes, "MAX_BATCH", 4)

    with ThreadPoolExecutor(30) as pool:
        futures = shop.run(pool, [1, *range(10, 30), 200])

        assert [future.result(10) for future in futures][-1] == 400

    assert 200 in shop.batches[1]
    assert len(shop.batches[1]) == 4


def test_a_request_alone_waits_for_nobody(journal: Journal) -> None:
    shop = Shop()
    shop.gate.set()

    assert [shop.lane.run(item) for item in (1, 2)] == [2, 4]
    assert shop.batches == [[1], [2]]


def test_one_that_fails_spoils_no_other(journal: Journal) -> None:
    shop = Shop()

    with ThreadPoolExecutor(8) as pool:
        futures = shop.run(pool, [1, 2, -3, 4])
        results = [future.exception(10) or future.result(10) for future in futures]

    assert [results[0], results[1], results[3]] == [2, 4, 8]
    assert str(results[2]) == "negative"
    assert journal.entries == ["commit", "rollback"]


def test_poison_is_found_by_halves(journal: Journal) -> None:
    """One row that the database does not take, among a hundred, runs alone, and no other does."""
    shop = Shop()
    items = [1, *range(2, 51), POISON, *range(52, 102)]

    with ThreadPoolExecutor(len(items)) as pool:
        futures = shop.run(pool, items)
        failed = [item for item, future in zip(items, futures, strict=True) if future.exception(10)]

    assert failed == [POISON]
    assert len(journal.entries) <= 1 + lanes.MAX_TRIES
    assert journal.entries.count("commit") <= 8


@pytest.mark.parametrize("trouble", [OperationalError, sqlite3.OperationalError, psycopg.errors.LockNotAvailable])
def test_trouble_of_the_database_is_not_looked_for_in_the_requests(journal: Journal, trouble: type[Exception]) -> None:
    shop = Shop()
    work = shop.lane.work

    def fail(session: Any, items: Sequence[int]) -> Any:
        work(session, items)
        if isinstance(session, Journal) and len(items) > 1:
            raise trouble
        return [2 * item for item in items]

    shop.lane.work = fail
    with ThreadPoolExecutor(8) as pool:
        assert [future.result(10) for future in shop.run(pool, [1, 2, 3, 4])] == [2, 4, 6, 8]

    assert journal.entries == ["commit", "rollback"]


def test_those_whose_result_is_known_are_left_out(journal: Journal) -> None:
    shop = Shop()

    with ThreadPoolExecutor(8) as pool:
        results = [future.result(10) for future in shop.run(pool, [1, 2, 1003, 4, 1005])]

    assert results == [2, 4, 1003, 8, 1005]
    assert [sorted(batch) for batch in shop.batches] == [[1], [2, 4, 1003, 1005], [2, 4]]
    assert journal.entries == ["commit", "rollback", "commit"]


def test_what_cannot_be_decided_runs_alone_in_the_end(journal: Journal) -> None:
    shop = Shop()
    work = shop.lane.work

    def undecided(session: Any, items: Sequence[int]) -> Any:
        work(session, items)
        if isinstance(session, Journal):
            raise Apart({})
        return [2 * item for item in items]

    shop.lane.work = undecided
    shop.gate.set()

    assert shop.lane.run(1) == 2
    assert journal.entries == ["rollback"] * lanes.MAX_TRIES


def test_what_is_large_rides_with_nobody(journal: Journal) -> None:
    shop = Shop()
    shop.lane.bytes_of = lambda item: item * lanes.MAX_BATCH_BYTES // 10

    with ThreadPoolExecutor(8) as pool:
        assert shop.run(pool, [1, 4, 5, 6, 7])
        assert shop.lane.run(20) == 40

    assert {len(batch) for batch in shop.batches} <= {1, 2, 3}
    assert all(sum(batch) <= 20 for batch in shop.batches)
    assert not any(20 in batch for batch in shop.batches)


def test_who_waits_too_long_is_told_and_never_runs(journal: Journal) -> None:
    """The queue stands still, because the database is silent."""
    shop = Shop()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shop.lane.run, 1)
        assert shop.begun.wait(10)
        shop.lane.patience = 0.01

        with pytest.raises(OperationalError, match="did not move"):
            shop.lane.run(2)

        shop.gate.set()
        assert first.result(10) == 2
        shop.lane.patience = 10
        assert shop.lane.run(3) == 6
    assert shop.batches == [[1], [3]]


def test_a_client_is_told_within_two_seconds() -> None:
    """But not of a turn that has been paid for."""
    assert {lane.name: lane.patience for lane in (admissions, opening.looks, opening.openings, settlements)} == {
        "admit": 2,
        "look": 2,
        "open": 2,
        "settle": lanes.WAIT_SECONDS,
    }


def test_a_commit_that_fails_is_told_and_not_repeated(journal: Journal) -> None:
    """Nobody knows whether the database has made it."""
    shop = Shop()
    shop.gate.set()
    journal.fails_to_commit = True

    with pytest.raises(OperationalError):
        shop.lane.run(1)

    assert shop.batches == [[1]]


def test_a_lane_without_a_database_is_passed_by(journal: Journal) -> None:
    shop = Shop()
    shop.gate.set()
    journal.is_connected = False

    with pytest.raises(ValueError, match="negative"):
        shop.lane.run(-1)
    assert shop.lane.run(2) == 4

    assert shop.batches == [[-1]]


@pytest.mark.django_db
@pytest.mark.parametrize("limits", [{"concurrent_turns": 2}, {"day_tokens": 25}, {"tokens_per_min": 25}])
def test_turns_at_once_do_not_overrun_a_limit_that_nobody_has_used(limits: dict[str, int]) -> None:
    """Each has room, and the three of them have none: no row says so yet."""
    client = ClientToken(name="limited", **limits)
    client.renew()
    client.save()
    turns: list[Any] = []
    for number in range(3):
        reservation = Reservation.plan(client, "u", {"model": "m"}, prompt=Estimate(5, 5), reply_tokens=5, limits=[])
        request = TurnRequest(client, Subject(f"r_{number}", client.pk, "u"), [])
        turns.append(Turn(request, Call(f"r_{number}", {}, 5), [], Cut(), reservation))

    with pytest.raises(Alone):
        opening.write(DjangoSession(), turns)
    assert opening.write(DjangoSession(), turns[:2]) == [True, True]


def test_turns_at_once_share_transactions_and_lose_nothing(server: Server, upstream: OpenAIDouble) -> None:
    cids = [server.conversation() for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        asks = [({"conversation_id": cids[n % 4], "message": f"Hi {n}"}, f"k-{n}") for n in [*range(40), *range(8)]]
        statuses = {status for status, _, _ in pool.map(lambda ask: server.post(URL, *ask), asks)}

    assert statuses == {200}
    assert UsageEvent.objects.filter(status="completed").count() == 40 == len(upstream.requests)
    pairs = Message.objects.order_by("id").values_list("role", "request_id")
    assert [role for role, _ in pairs] == ["user", "assistant"] * 40
    assert all(one[1] == other[1] for one, other in zip(pairs[::2], pairs[1::2], strict=True))


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has neither")
class TestPostgreSQL:
    def test_a_lane_whose_connection_was_ended_connects_again(self, server: Server, upstream: OpenAIDouble) -> None:
        ask = {"conversation_id": server.conversation(), "message": "Hi"}
        assert server.post(URL, ask)[0] == 200

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name ~ '^llmapi-' AND datname = current_database()"
            )

        assert [server.post(URL, ask)[0] for _ in range(4)] == [200] * 4

    def test_a_row_that_somebody_has_locked_holds_up_its_own_turn_alone(
        self, server: Server, upstream: OpenAIDouble
    ) -> None:
        locked, free = server.conversation(), server.conversation()
        with ThreadPoolExecutor(1) as pool, transaction.atomic():
            Conversation.objects.select_for_update().get(pk=locked)
            waiting = pool.submit(server.post, URL, {"conversation_id": locked, "message": "Hi"})
            wait_until(lambda: bool(upstream.requests))
            assert server.post(URL, {"conversation_id": free, "message": "Hi"})[0] == 200
            assert not waiting.done()
            transaction.set_rollback(True)
        assert waiting.result(10)[0] == 200
