"""Clients that send slowly, that do not read, or that only hold their connections."""

import json

import gevent

from bench.hostile import wire
from bench.hostile.kinds.base import NONE, SMALL_BUFFER, TOKEN, Kind, said

TURN = "/v1/chat/completions"
BYTE_SECONDS = 1.0


class HalfHeads(Kind):
    """Send half of a request's head, and nothing more."""

    name, connections, sources = "half-heads", 1000, (NONE,)

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ")
            self.wait_for_the_end(connection)


class DrippingHeads(Kind):
    """Send a head a byte a second."""

    name, connections, sources = "dripping-heads", 500, (NONE,)

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.drip(wire.request("GET", "/health", headers={"X-Long": "x" * 4000}), BYTE_SECONDS)


class HalfBodies(Kind):
    """Name a length, and send half of the body."""

    name, connections, sources = "half-bodies", 128, (TOKEN, NONE)

    def prepare(self) -> None:
        found = self.conversation([]) if self.source == TOKEN else "c_0"
        # What each of them reads before the body differs, and with it what a request holds while the body comes.
        self.places = (TURN, "/v1/conversations", "/v1/events", f"/v1/conversations/{found}/items")

    def start(self, number: int) -> bytes:
        place = self.places[number // 2 % len(self.places)]
        return wire.request("POST", place, json.dumps(said("x" * 1000)).encode(), token=self.token(number))[:-500]

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(self.start(number))
            self.wait_for_the_end(connection)


class HalfChunkedBodies(HalfBodies):
    """Send half of a body in chunks."""

    name = "half-chunked-bodies"

    def start(self, number: int) -> bytes:
        headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
        place = self.places[number // 2 % len(self.places)]
        return wire.request("POST", place, token=self.token(number), headers=headers) + b'40\r\n{"messages": ['


class DrippingBodies(HalfBodies):
    """Send a body a byte a second."""

    name = "dripping-bodies"

    def attack(self, number: int) -> None:
        body = json.dumps(said("x" * 1000)).encode()
        whole = wire.request("POST", self.places[number // 2 % len(self.places)], body, token=self.token(number))
        with self.open() as connection:
            connection.send(whole[: -len(body)])
            connection.drip(body, BYTE_SECONDS)


class DrippingChunks(HalfBodies):
    """Send a body in chunks of one byte, one a second."""

    name = "dripping-chunks"

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(self.start(number))
            while not connection.is_readable(BYTE_SECONDS):
                connection.send(b"1\r\n \r\n")


class Idle(Kind):
    """Ask once, and keep the connection: as many as a server process takes, but for a hundred."""

    name, connections, is_per_worker, sources = "idle", 4900, True, (NONE,)

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(wire.request("GET", "/health"))
            connection.answer()
            self.wait_for_the_end(connection)


class BusyIdle(Kind):
    """Keep connections open by a request every two seconds."""

    name, connections, is_per_worker, sources = "kept-alive", 1000, True, (NONE,)

    def attack(self, number: int) -> None:
        with self.open() as connection:
            gevent.sleep(number % 200 / 100)
            while not connection.is_over:
                connection.send(wire.request("GET", "/health"))
                self.count(connection)
                gevent.sleep(2)


class Unread(Kind):
    """Ask for much, and read nothing of the answer."""

    def unread(self, request: bytes) -> None:
        with self.open(receive_buffer=SMALL_BUFFER) as connection:
            connection.send(request)
            gevent.sleep(3600)


class UnreadItems(Unread):
    """Do not read a page of items of 9 MB."""

    name, connections = "unread-items", 40

    def prepare(self) -> None:
        item = {"role": "user", "content": "x" * 900_000}
        self.path = f"/v1/conversations/{self.conversation([item] * 10)}/items?limit=100"

    def attack(self, number: int) -> None:
        self.unread(wire.request("GET", self.path, token=self.token(number)))


class UnreadStreams(Unread):
    """Do not read streams."""

    name, connections = "unread-streams", 100

    def attack(self, number: int) -> None:
        body = json.dumps(said("hello there", stream=True)).encode()
        with self.open(receive_buffer=SMALL_BUFFER) as connection:
            connection.send(wire.request("POST", TURN, body, token=self.token(number)))
            # A stream of the double is over after half a second; then the next one.
            gevent.sleep(5)


class UnreadExports(Unread):
    """Do not read the CSV of all turns, with a session of staff."""

    name, connections, sources = "unread-exports", 20, ("session",)

    def attack(self, number: int) -> None:
        cookie = {"Cookie": f"sessionid={self.world.session}"}
        self.unread(wire.request("GET", "/admin/analytics/usageevent/export/", headers=cookie))


class SlowReaders(UnreadItems):
    """Read a page of 9 MB at 1,000 bytes a second."""

    name = "slow-readers"

    def attack(self, number: int) -> None:
        with self.open(receive_buffer=SMALL_BUFFER) as connection:
            connection.send(wire.request("GET", self.path, token=self.token(number)))
            while connection.socket.recv(1000):
                gevent.sleep(1)
