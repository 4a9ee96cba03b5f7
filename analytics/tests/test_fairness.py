"""Shares: what one owner may take of what all share, and who is served next."""

import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.fair_queue import FairQueue
from analytics.fairness import Busy, Share, breathe, outside, working
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
    assert (share._taken, share._held, bool(share._waiting)) == (0, {}, False)


def waiting(share: Share) -> Counter[object]:
    return Counter({owner: share._waiting.count(owner) for owner in share._waiting.owners()})


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


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_a_queue_serves_its_owners_in_turn(steps: list[tuple[int, bool]]) -> None:
    """Nobody comes out twice while another waits, and what one owner put in comes out in its order."""
    fair: FairQueue[tuple[int, int]] = FairQueue()
    put, got, waited = Counter[int](), Counter[int](), Counter[int]()
    for owner, is_put in steps:
        if is_put:
            fair.put((owner, put[owner]), owner)
            put[owner] += 1
            continue
        try:
            served, number = fair.get(block=False)
        except queue.Empty:
            assert put == got
            continue
        assert number == got[served]
        got[served] += 1
        waited[served] = 0
        for other in put:
            if other != served and put[other] > got[other]:
                waited[other] += 1
                assert waited[other] < len(put)
    assert len(fair) == put.total() - got.total()


def test_who_waits_in_vain_is_told_so() -> None:
    share = share_of(1, patience=0.01, most_waiting=1)
    share.take("first")

    with pytest.raises(Busy):
        share.take("second")
    assert not share._waiting
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
