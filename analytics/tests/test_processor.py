"""Turns of the processor: rounds, debts, and who is told that it comes too late."""

import math
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from analytics import fairness, processor
from analytics.fairness import Busy, Owner, Waiter, breathe, working
from analytics.processor import FLOOD, OVERHEAD, QUANTUM, REFUSAL, RIVALRY, Processor
from conftest import wait_until

# Seconds, longer than any test takes.
PATIENCE = 60


class Clock:
    """A clock that moves when it is told to, and rounds that begin when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        # Not that of the machine, by which the test itself waits.
        clock = SimpleNamespace(monotonic=lambda: self.now, thread_time=lambda: self.now, sleep=time.sleep)
        for module in (fairness, processor):
            monkeypatch.setattr(module, "time", clock)
        self.processor = Processor(patience=PATIENCE, most_waiting=100)
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
        return Counter({owner: self.processor._waiting.count(owner) for owner in self.processor._waiting.owners()})


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
        clock.work(owner, QUANTUM - OVERHEAD + 0.00001)
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
    most = math.ceil(QUANTUM / OVERHEAD)
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
        clock.now += PATIENCE + 1
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


def test_small_pieces_count_where_there_are_rivals(clock: Clock) -> None:
    piece = QUANTUM / 8
    done: list[int] = []

    def spend(times: int) -> None:
        for number in range(times):
            clock.processor.spend("alone", piece)
            done.append(number)

    clock.work("alone", 0)
    clock.now += RIVALRY
    spend(1000)
    clock.work("rival", 0)
    clock.next_round()
    done.clear()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(spend, 15)
        wait_until(lambda: clock.waiting()["alone"] == 1)
        spent_at_first = len(done)
        clock.work("rival", 0)
        clock.next_round()

    assert spent_at_first == 7
    assert len(done) == 15


def test_heads_wait_for_their_turns_however_many_they_are(clock: Clock) -> None:
    clock.work("rival", 0)
    clock.work("new", QUANTUM)

    with ThreadPoolExecutor(120) as pool:
        heads = [pool.submit(clock.processor.wait_for_turn, "new") for _ in range(120)]
        wait_until(lambda: clock.waiting()["new"] == 120)
        clock.work("rival", 0)  # is not kept waiting
        for _ in heads:
            clock.next_round()
            clock.processor.give_back("new")
        wait_until(lambda: all(head.done() for head in heads))


@pytest.mark.parametrize("is_newest_first", [False, True])
def test_of_too_many_heads_the_newest_is_read_first(clock: Clock, is_newest_first: bool) -> None:
    clock.work("rival", 0)
    clock.work("new", QUANTUM)
    read: list[int] = []

    def wait(number: int) -> None:
        clock.processor.wait_for_turn("new", is_newest_first=is_newest_first)
        read.append(number)

    with ThreadPoolExecutor(5) as pool:
        heads = []
        for number in range(5):
            heads.append(pool.submit(wait, number))
            wait_until(lambda: clock.waiting()["new"] == len(heads))
        for _ in heads:
            clock.next_round()
            wait_until(lambda: len(read) + clock.waiting()["new"] == 5)

    assert read == ([4, 3, 2, 1, 0] if is_newest_first else [0, 1, 2, 3, 4])


def test_heads_that_wait_too_long_are_refused_a_few_in_a_round(clock: Clock) -> None:
    """All of them came in one moment, and those that come now are served."""
    clock.work("rival", 0)
    clock.processor.charge("new", QUANTUM)
    outcomes: Counter[str] = Counter()

    def wait() -> None:
        try:
            clock.processor.wait_for_turn("new", is_newest_first=True)
        except Busy:
            outcomes["refused"] += 1
        else:
            outcomes["served"] += 1

    most = math.ceil(QUANTUM / 2 / REFUSAL)
    with ThreadPoolExecutor(41) as pool:
        old = [pool.submit(wait) for _ in range(40)]
        wait_until(lambda: clock.waiting()["new"] == 40)
        clock.now += PATIENCE + 1
        clock.work("rival", 0)
        new = pool.submit(wait)
        wait_until(lambda: clock.waiting()["new"] == 41)
        clock.next_round()
        new.result(60)
        wait_until(lambda: outcomes["refused"] == most)
        assert clock.waiting()["new"] == 40 - most
        while not all(head.done() for head in old):
            clock.next_round()

    assert outcomes == {"served": 1, "refused": 40}
    assert clock.waiting() == {}


def test_the_head_that_has_waited_for_longest_can_be_refused(clock: Clock) -> None:
    clock.work("rival", 0)
    clock.processor.charge("new", QUANTUM)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(clock.processor.wait_for_turn, "new", is_newest_first=True)
        wait_until(lambda: clock.waiting()["new"] == 1)
        second = pool.submit(clock.processor.wait_for_turn, "new", is_newest_first=True)
        wait_until(lambda: clock.waiting()["new"] == 2)

        clock.processor.refuse_oldest("new")
        with pytest.raises(Busy):
            first.result(60)
        assert not second.done()
        clock.next_round()
        second.result(60)
    clock.processor.refuse_oldest("new")


def test_a_head_whose_connection_was_given_up_is_refused_no_more(clock: Clock) -> None:
    """gevent ends a greenlet that waits by an exception of its own."""

    class Given(BaseException):
        pass

    class Bell:
        def acquire(self) -> None:
            raise Given

    original = clock.processor._enqueue

    def enqueue(owner: Owner, *, is_first: bool = False) -> Waiter:
        waiter = original(owner, is_first=is_first)
        waiter.bell = Bell()  # type: ignore[assignment]
        return waiter

    clock.work("rival", 0)
    clock.processor.charge("new", QUANTUM)
    clock.processor._enqueue = enqueue  # type: ignore[method-assign]
    with pytest.raises(Given):
        clock.processor.wait_for_turn("new")

    clock.processor.refuse_oldest("new")
    clock.next_round()
    assert clock.waiting() == {}


def test_a_flood_is_known_by_what_waits(clock: Clock) -> None:
    clock.work("rival", 0)
    clock.processor.charge("new", QUANTUM)
    with ThreadPoolExecutor(FLOOD) as pool:
        for number in range(1, FLOOD + 1):
            assert not clock.processor.is_flooded()
            pool.submit(clock.processor.wait_for_turn, "new")
            wait_until(lambda number=number: clock.waiting()["new"] == number)  # type: ignore[misc]
        found = [clock.processor.is_flooded(owner) for owner in (None, "new", "rival")]
        while clock.waiting():
            clock.next_round()

    assert found == [True, True, False]


def test_what_was_done_without_a_turn_counts(clock: Clock) -> None:
    clock.work("rival", 0)
    clock.processor.charge("many", 3 * QUANTUM)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(clock.work, "many", 0)
        wait_until(lambda: clock.waiting()["many"] == 1)
        clock.next_round()
        clock.next_round()
        assert not done.done()
        clock.next_round()

        done.result(60)


def test_a_head_costs_more_than_it_takes_to_read(clock: Clock) -> None:
    """Whatever comes of it, and be it refused at once, the server works for the connection and the answer."""

    def read_one() -> None:
        clock.processor.wait_for_turn("new")
        clock.processor.give_back("new")

    clock.work("rival", 0)
    for _ in range(math.ceil(QUANTUM / OVERHEAD)):
        read_one()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(read_one)
        wait_until(lambda: late.done() or clock.waiting()["new"] == 1)
        has_waited = not late.done()
        clock.next_round()

    assert has_waited


def test_rounds_begin_by_themselves() -> None:
    real = Processor(patience=PATIENCE, most_waiting=999)
    done: list[int] = []

    def work(owner: int) -> None:
        for _ in range(20):
            with working(real, owner):
                time.sleep(QUANTUM / 2)
                breathe()
                done.append(owner)

    with ThreadPoolExecutor(6) as pool:
        for one in [pool.submit(work, owner) for owner in (1, 1, 1, 1, 2, 2)]:
            one.result(60)

    assert Counter(done) == {1: 80, 2: 40}
    assert not real._waiting
