"""Sixty honest clients, in a process of their own: each asks for one turn every PACE seconds, whatever became of the
last one.

So a service that slows is not asked less, and a request's time runs from when it was due. The odd clients read streams.
Half of both have conversations, and a new one every ten turns; the others send what was said.

`python -m bench.hostile.honest WORLD` (JSON) reads two numbers from each line, how many seconds they shall ask and at
which pace, and answers with a `Window`.
"""

import itertools
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import gevent

from bench.hostile import wire
from bench.hostile.figures import GIVE_UP_MS, Window
from bench.hostile.wire import Wire
from bench.hostile.world import World

CLIENTS = 60
TURNS_OF_A_CONVERSATION = 10
# A stream of the double, in chunks (upstream.conf).
CHUNKS = 40
SAID = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "word " * 30}]
LATE_SECONDS = 0.005


class Refused(Exception):
    """An answer that an honest client should not get; the message names it."""


class Client:
    """One client with its token, its connections and perhaps a conversation."""

    def __init__(self, number: int, world: World, window: Window) -> None:
        self.port, self.window = world.port, window
        self.token = world.honest[number % len(world.honest)]
        self.is_stream, self.has_conversation = number % 2 == 1, number % 4 >= 2
        self.number, self.turns, self.conversation = number, 0, ""
        self.idle: list[Wire] = []

    def body(self) -> bytes:
        message = f"hello for the {self.turns}th time"
        if self.conversation:
            content: dict[str, Any] = {"conversation_id": self.conversation, "message": message}
        else:
            content = {"messages": [*SAID, {"role": "user", "content": message}]}
        return json.dumps({**content, "user": f"user {self.number}", "stream": self.is_stream}).encode()

    def turn(self, due: float) -> None:
        """Take the turn that was due at that time, and write down what came of it."""
        try:
            with gevent.Timeout(max(0.001, (due + GIVE_UP_MS - wire.now_ms()) / 1000)):
                self.ask(due)
            self.window.ended += 1
        except gevent.Timeout:
            self.fail("timeout")
            (self.window.first if self.is_stream else self.window.whole).append(GIVE_UP_MS)
        except Refused as exc:
            self.fail(str(exc))
        except (OSError, ValueError) as exc:
            self.fail(type(exc).__name__)

    def fail(self, label: str) -> None:
        self.window.errors[label] = self.window.errors.get(label, 0) + 1

    def ask(self, due: float) -> None:
        connection = self.connection()
        is_kept = False
        try:
            if self.has_conversation and self.turns % TURNS_OF_A_CONVERSATION == 0:
                self.conversation = self.create(connection)
            self.turns += 1
            connection.send(wire.request("POST", "/v1/chat/completions", self.body(), token=self.token))
            if connection.head() != 200:
                raise Refused(str(connection.status))
            self.read(connection, due)
            is_kept = not connection.is_over
        finally:
            if is_kept:
                self.idle.append(connection)
            else:
                connection.close()

    def connection(self) -> Wire:
        """Return a connection that is open, as clients do: one that the server has closed is thrown away."""
        while self.idle:
            if not (kept := self.idle.pop()).is_readable():
                return kept
            kept.close()
        return Wire(self.port)

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()

    def create(self, connection: Wire) -> str:
        connection.send(wire.request("POST", "/v1/conversations", b"{}", token=self.token))
        answer = connection.answer()
        if connection.status != 201:
            raise Refused(str(connection.status))
        return str(json.loads(answer)["id"])

    def read(self, connection: Wire, due: float) -> None:
        if not self.is_stream:
            json.loads(b"".join(connection.body()))
            self.window.whole.append(wire.now_ms() - due)
            return
        pieces, arrivals = [], []
        for piece in connection.body():
            pieces.append(piece)
            arrivals.append(wire.now_ms())
        text = b"".join(pieces)
        if b"data: [DONE]" not in text or text.count(b'"word "') != CHUNKS:
            raise Refused("stream not whole")
        self.window.first.append(arrivals[0] - due)
        self.window.gaps.append(max(later - at for at, later in itertools.pairwise(arrivals)))


def run(world: World, seconds: float, pace: float) -> Window:
    """Let all clients ask for so long, each every `pace` seconds, wait for their answers, and return what they saw."""
    window = Window(seconds=seconds)
    clients = [Client(number, world, window) for number in range(CLIENTS)]
    jobs = []
    begin = wire.now_ms() + 100
    watch = gevent.spawn(notice_lateness, window)
    for number in range(round(seconds * CLIENTS / pace)):
        due = begin + number * 1000 * pace / CLIENTS
        gevent.sleep(max(0, (due - wire.now_ms()) / 1000))
        jobs.append(gevent.spawn(clients[number % CLIENTS].turn, due))
    gevent.joinall(jobs)
    watch.kill()
    for client in clients:
        client.close()
    return window


def notice_lateness(window: Window) -> None:
    """Sleep and see how late this process wakes: what a figure owes to the load generator."""
    while True:
        began = time.perf_counter()
        gevent.sleep(LATE_SECONDS)
        window.late.append(1000 * (time.perf_counter() - began - LATE_SECONDS))


def main() -> None:
    world = World(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(asdict(run(world, *map(float, line.split())))), flush=True)


if __name__ == "__main__":
    main()
