"""Shares: what one owner may take of what all share, and who is served next."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.fairness import (
    OVERHEAD,
    QUANTUM,
    RIVALRY,
    Busy,
    Processor,
    Share,
    breathe,
    outside,
    working,
)
from conftest import wait_until


def taken(share: Share, owner: object, most: int = 10_000) -> int:
    """Take as many as the owner may have."""
    for count in range(most):
        try:
            share.take(owner)
        except Busy:
            return count
    return most


def share_of(capacity: int, **options: float) -> Share:
    return Share(lambda: capacity, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capacity", "factor", "alone", "second"), [(64, 1, 32, 16), (1000, 8, 889, 99), (2, 8, 2, 0), (1, 1, 1, 0)]
)
def test_one_owner_leaves_something_for_the_next(capacity: int, factor: int, alone: int, second: int) -> None:
    share = share_of(capacity, factor=factor)

    assert (taken(share, "greedy"), taken(share, "next")) == (alone, second)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.booleans()), max_size=60), st.integers(1, 8))
def test_no_more_is_held_than_there_is(steps: list[tuple[int, int, bool]], factor: int) -> None:
    """Whatever is taken and given back, and whoever is forced to be let in, the books are right in the end."""
    share = share_of(100, factor=factor)
    held: list[tuple[int, int]] = []
    for owner, amount, is_back in steps:
        if is_back and held:
            share.give_back(*held.pop())
            continue
        free = 100 - sum(amount for _, amount in held)
        own = sum(size for holder, size in held if holder == owner)
        try:
            share.take(owner, amount)
        except Busy:
            assert amount > free or (own and own + amount > factor * free)
        else:
            assert amount <= free
            held.append((owner, amount))

    for owner, amount in held:
        share.give_back(owner, amount)
    assert (share._taken, share._held, share._waiting) == (0, {}, {})


def waiting(share: Share) -> Counter[object]:
    return Counter({owner: len(queue) for owner, queue in share._waiting.items()})


def test_owners_that_wait_are_served_in_turns() -> None:
    share = share_of(1, patience=60, most_waiting=50)
    share.take("first")
    order: list[str] = []

    def wait(owner: str) -> None:
        share.take(owner)
        order.append(owner)
        share.give_back(owner)

    with ThreadPoolExecutor(22) as pool:
        for owner, count in (("greedy", 20), ("modest", 2)):
            for _ in range(count):
                pool.submit(wait, owner)
            wait_until(lambda owner=owner, count=count: waiting(share)[owner] == count)  # type: ignore[misc]
        share.give_back("first")

    assert order[:4] == ["greedy", "modest", "greedy", "modest"]
    assert Counter(order) == {"greedy": 20, "modest": 2}


def test_who_waits_in_vain_is_told_so() -> None:
    share = share_of(1, patience=0.01, most_waiting=1)
    share.take("first")

    with pytest.raises(Busy):
        share.take("second")
    assert share._waiting == {}
    share.give_back("first")

    assert (share._taken, share._held) == (0, {})


def test_of_one_owner_only_so_many_wait() -> None:
    share = share_of(1, patience=60, most_waiting=1)
    share.take("greedy")
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(share.take, "greedy")
        wait_until(lambda: waiting(share)["greedy"] == 1)
        with pytest.raises(Busy):
            share.take("greedy")
        other = pool.submit(share.take, "other")
        wait_until(lambda: waiting(share)["other"] == 1)
        share.give_back("greedy")
        second.result()
        share.give_back("greedy")
        other.result()

    share.give_back("other")


def test_an_amount_that_never_fits_is_refused_at_once() -> None:
    share = share_of(10, patience=60, most_waiting=9)

    with pytest.raises(Busy):
        share.take("owner", 11)


@pytest.mark.parametrize("end", [lambda: None, lambda: [].pop()])
def test_nothing_is_held_while_a_thread_waits(end: Callable[[], object]) -> None:
    share = share_of(1)
    with suppress(IndexError), working(share, "owner"):
        with pytest.raises(Busy):
            share.take("other")
        with outside():
            share.take("other")
            share.give_back("other")
            end()

    assert (share._taken, share._held) == (0, {})


def test_who_has_begun_goes_on_before_others_of_the_same_owner() -> None:
    share, order = share_of(1, patience=60, most_waiting=9), []
    is_outside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with working(share, "owner"):
            with outside():
                is_outside.set()
                go_on.wait(60)
            order.append("begun")

    def begin() -> None:
        with working(share, "owner"):
            order.append("new")

    with ThreadPoolExecutor(2) as pool:
        pool.submit(work)
        assert is_outside.wait(60)
        share.take("other")
        pool.submit(begin)
        wait_until(lambda: waiting(share)["owner"] == 1)
        go_on.set()
        wait_until(lambda: waiting(share)["owner"] == 2)
        share.give_back("other")

    assert order == ["begun", "new"]


def test_two_shares_are_taken_back_without_a_deadlock() -> None:
    """Who waits for the scarce one has given the other back."""
    turns, scarce = share_of(2, patience=60, most_waiting=99), share_of(1, patience=60, most_waiting=99)

    def work(owner: int) -> None:
        with working(turns, owner), working(scarce, owner):
            for _ in range(20):
                breathe()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, owner) for owner in range(8)]:
            done.result(60)

    assert (turns._taken, scarce._taken) == (0, 0)


# --- the processor ---


class Clock:
    """A clock that moves when it is told to, and rounds that begin when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("analytics.fairness.time.monotonic", lambda: self.now)
        self.processor = Processor(patience=2, most_waiting=100)
        # There is a driver already: this test.
        self.processor._has_driver = True

    def work(self, owner: str, seconds: float) -> None:
        with working(self.processor, owner):
            self.now += seconds

    def next_round(self) -> None:
        """Begin a round, as the driver does."""
        with self.processor._lock:
            self.processor._begin_round()

    def waiting(self) -> Counter[object]:
        return Counter({owner: len(queue) for owner, queue in self.processor._waiting.items()})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_an_owner_alone_never_waits(clock: Clock) -> None:
    clock.now += 10
    clock.work("alone", 0)
    clock.now += RIVALRY

    for _ in range(1000):
        clock.work("alone", 1)

    assert clock.waiting() == {}


def test_owners_work_in_rounds(clock: Clock) -> None:
    """The greedy one has fifty requests, and each round lets it work for a quantum. The modest one does not wait."""
    order: list[str] = []

    def work(owner: str) -> None:
        clock.work(owner, QUANTUM)
        order.append(owner)

    work("modest")
    work("greedy")
    with ThreadPoolExecutor(9) as pool:
        for _ in range(9):
            pool.submit(work, "greedy")
        wait_until(lambda: clock.waiting()["greedy"] == 9)
        for round_ in range(1, 10):
            clock.next_round()
            wait_until(lambda round_=round_: order.count("greedy") == round_ + 1)  # type: ignore[misc]
            work("modest")

    assert order == ["modest", "greedy", *["greedy", "modest"] * 9]


def test_who_worked_for_long_waits_for_as_many_rounds(clock: Clock) -> None:
    clock.work("other", 0)
    clock.work("long", 10 * QUANTUM)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(clock.work, "long", 0)
        wait_until(lambda: clock.waiting()["long"] == 1)
        for _ in range(9):
            clock.next_round()
            assert not done.done()
        clock.next_round()

        done.result(60)


def test_a_request_costs_more_than_the_work_that_is_seen(clock: Clock) -> None:
    clock.work("other", 0)
    most = round(QUANTUM / OVERHEAD) + 1
    with ThreadPoolExecutor(1) as pool:
        for _ in range(most):
            clock.work("many", 0)
        last = pool.submit(clock.work, "many", 0)
        wait_until(lambda: clock.waiting()["many"] == 1)
        clock.next_round()

        last.result(60)


def test_a_turn_that_comes_too_late_is_told_from_one_in_time(clock: Clock) -> None:
    def enter() -> bool:
        with working(clock.processor, "late") as is_in_time:
            return is_in_time

    clock.work("other", 0)
    clock.work("late", QUANTUM)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(enter)
        wait_until(lambda: clock.waiting()["late"] == 1)
        clock.now += 2.1
        clock.next_round()

        assert late.result(60) is False


def test_who_waits_for_the_processor_in_vain_is_told_so(clock: Clock) -> None:
    clock.processor.patience = 0.005
    clock.work("other", 0)
    clock.work("late", QUANTUM)

    with pytest.raises(Busy), working(clock.processor, "late"):
        pass

    assert clock.waiting() == {}


def test_of_one_owner_only_so_many_wait_for_the_processor(clock: Clock) -> None:
    clock.processor.most_waiting = 0
    clock.work("other", 0)
    clock.work("greedy", QUANTUM)

    with pytest.raises(Busy), working(clock.processor, "greedy"):
        pass


def test_rounds_begin_by_themselves() -> None:
    processor = Processor(patience=60, most_waiting=999)
    done: Counter[int] = Counter()

    def work(owner: int) -> None:
        for _ in range(20):
            with working(processor, owner):
                time.sleep(QUANTUM / 2)
                breathe()
                done[owner] += 1

    with ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(work, owner) for owner in (1, 1, 1, 1, 2, 2)]:
            one.result(60)

    assert done == {1: 80, 2: 40}
    assert not processor._waiting


def test_shares_are_right_under_many_threads() -> None:
    share, most, now = share_of(10, patience=60, most_waiting=100), 0, 0
    lock = threading.Lock()

    def work(owner: int) -> None:
        nonlocal most, now
        for _ in range(50):
            with working(share, owner % 3):
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))

    assert 1 <= most <= 10
    assert (share._taken, share._held) == (0, {})
