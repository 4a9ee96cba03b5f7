"""Whose connections are closed when they run short."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from llmapi.client_connections import SPARE, ClientConnections
from llmapi.client_socket import NEWCOMER, ClientSocket

ROOM = 20


class Crowd:
    """A process with room for ROOM connections, beside the spare ones."""

    def __init__(self, stack: ExitStack) -> None:
        self.connections = ClientConnections(ROOM + SPARE)
        self.stack = stack

    def open(self, owner: str = NEWCOMER, *, is_quiet: bool = True) -> ClientSocket:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            self.stack.enter_context(end)
        connected = ClientSocket(ours, self.connections, head_seconds=5)
        self.connections.add(connected)
        connected.belong_to(owner)
        if is_quiet:
            self.connections.quiet(connected)
        return connected


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(stack)


def is_closed(connected: ClientSocket) -> bool:
    return connected._is_over


def test_whoever_has_the_most_gives_way(crowd: Crowd) -> None:
    """The modest one has been quiet for longer. Of the greedy each new one closes another, before it has noticed."""
    modest = crowd.open("modest")
    greedy = [crowd.open("greedy") for _ in range(ROOM)]
    for _ in range(3):
        crowd.open("modest")

    assert [is_closed(one) for one in greedy] == [True] * 3 + [False] * (ROOM - 3)
    assert not is_closed(modest)


def test_with_room_nobody_gives_way(crowd: Crowd) -> None:
    assert not any(is_closed(crowd.open("greedy")) for _ in range(ROOM))
    assert not crowd.connections.has_too_many("greedy")


def test_a_request_under_way_is_not_closed(crowd: Crowd) -> None:
    working = [crowd.open("greedy", is_quiet=False) for _ in range(ROOM)]
    quiet = crowd.open("greedy")
    crowd.open("modest")

    assert not any(map(is_closed, working))
    assert is_closed(quiet)


def test_who_has_more_than_an_equal_share_ends_with_the_answer(crowd: Crowd) -> None:
    for _ in range(ROOM):
        crowd.open("greedy", is_quiet=False)
    crowd.open("modest")

    assert crowd.connections.has_too_many("greedy")
    assert not crowd.connections.has_too_many("modest")


def test_a_connection_belongs_to_who_used_it_last(crowd: Crowd) -> None:
    """A proxy sends requests of many clients on one."""
    connected = crowd.open("first", is_quiet=False)
    connected.belong_to("second")

    assert crowd.connections._open == {"second": 1}
    crowd.connections.remove(connected)
    assert crowd.connections._open == {}


def test_quiet_connections_are_closed_a_few_at_a_time(crowd: Crowd) -> None:
    opened = [crowd.open(str(number)) for number in range(6)]
    crowd.connections.busy(opened[0])

    crowd.connections.hang_up_quiet(60, most=3)
    assert not any(map(is_closed, opened))
    crowd.connections.hang_up_quiet(0, most=3)

    assert [is_closed(one) for one in opened] == [False, True, True, True, False, False]


def test_without_a_quiet_one_a_head_that_waits_is_refused(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[object] = []
    monkeypatch.setattr("llmapi.client_connections.processor.refuse_oldest", refused.append)
    for _ in range(ROOM + 1):
        crowd.open("greedy", is_quiet=False)
    assert refused == []

    crowd.open("modest")

    assert refused == ["greedy"]
