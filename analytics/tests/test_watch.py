"""Threads that look each second, and end where there is nothing to look at."""

import threading

from analytics.watch import Watch
from conftest import wait_until


def test_looks_while_there_is_something_and_begins_again() -> None:
    looks: list[int] = []
    running: set[str] = set()
    threads: set[int] = set()

    def look() -> None:
        looks.append(len(running))
        threads.add(threading.get_ident())
        if len(looks) == 2:
            raise RuntimeError("of one look")

    watch = Watch(look, lambda: running, seconds=0.01)
    for _ in range(2):
        before = len(looks)
        running.add("a call")
        for _ in range(5):
            watch.wake()
        wait_until(lambda before=before: len(looks) > before + 3)  # type: ignore[misc]
        assert len(threads) == 1
        running.clear()
        wait_until(lambda: not watch._runs)
        threads.clear()

    assert looks[0] == 1


def test_wakes_at_once_never_start_two_threads() -> None:
    running = {"a call"}
    seen: set[int] = set()
    watch = Watch(lambda: seen.add(threading.get_ident()), lambda: running, seconds=0.01)
    barrier = threading.Barrier(20)

    def wake() -> None:
        barrier.wait()
        watch.wake()

    wakers = [threading.Thread(target=wake) for _ in range(20)]
    for waker in wakers:
        waker.start()
    for waker in wakers:
        waker.join()
    wait_until(lambda: bool(seen))

    running.clear()
    wait_until(lambda: not watch._runs)
    assert len(seen) == 1
