"""Clients that send cheap requests as fast as they are answered."""

import json
import re
import secrets
import urllib.parse

import gevent

from bench.hostile import wire
from bench.hostile.kinds.base import NONE, TOKEN, Flood, Kind, said

TURN = "/v1/chat/completions"
PAGES = ("/", "/docs", "/schema", "/health", "/ready", "/metrics", "/admin/login/")
MAX_EVENTS = 100


class Unauthorized(Flood):
    """Send turns with a token at random, or none."""

    name, connections, sources = "flood-401", 100, (NONE,)

    def request(self, number: int) -> bytes:
        return wire.request("POST", TURN, json.dumps(said("hello there")).encode(), token=self.token(number))


class Limited(Flood):
    """Send turns with a token whose minute is used up."""

    name, connections, credential = "flood-429", 100, "limited"

    def request(self, number: int) -> bytes:
        return wire.request("POST", TURN, json.dumps(said("hello there")).encode(), token=self.token(number))


class Unknown(Flood):
    """Ask for pages and objects that are not there."""

    name, connections, sources = "flood-404", 100, (TOKEN, NONE)

    def request(self, number: int) -> bytes:
        place = "/v1/conversations/c_" if number % 2 else "/nowhere/"
        return wire.request("GET", place + secrets.token_hex(12), token=self.token(number))


class Preflights(Flood):
    """Ask whether a page of some origin may send a request, as browsers do before they send it."""

    name, connections, sources = "flood-preflights", 100, (NONE,)

    def request(self, number: int) -> bytes:
        headers = {
            "Origin": "https://chat.example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": f"authorization, x-{secrets.token_hex(4)}",
        }
        return wire.request("OPTIONS", TURN, headers=headers)


class Pages(Flood):
    """Read the pages that need no token."""

    name, connections, sources = "pages", 100, (NONE,)

    def request(self, number: int) -> bytes:
        return wire.request("GET", PAGES[secrets.randbelow(len(PAGES))])


class Reads(Flood):
    """Read the models, and what the token has used today."""

    name, connections = "flood-reads", 100

    def request(self, number: int) -> bytes:
        return wire.request("GET", "/v1/usage" if number % 2 else "/v1/models", token=self.token(number))


class NewConnections(Kind):
    """Open a connection for each request, and close it at once."""

    name, connections, sources = "new-connections", 100, (TOKEN, NONE)

    def attack(self, number: int) -> None:
        self.call(number, "GET", "/v1/models" if self.source == TOKEN else "/health")


class Vanishing(Kind):
    """Send a turn, and close the connection without reading the answer."""

    name, connections, sources = "vanishing", 100, (TOKEN, NONE)

    def attack(self, number: int) -> None:
        body = json.dumps(said("hello there", stream=bool(number % 2))).encode()
        with self.open() as connection:
            connection.send(wire.request("POST", TURN, body, token=self.token(number)))
            gevent.sleep(0.02)
        self.answers["closed"] += 1


class Events(Flood):
    """Send events, as many as one request may hold."""

    name, connections = "events", 20

    def request(self, number: int) -> bytes:
        one = {"name": "opened", "metadata": {f"key {n}": "x" * 500 for n in range(16)}}
        events = [{**one, "id": secrets.token_hex(16)} for _ in range(MAX_EVENTS)]
        return wire.request("POST", "/v1/events", json.dumps({"events": events}).encode(), token=self.token(number))


class Login(Kind):
    """Try passwords of a member of staff, on one connection."""

    name, connections, sources = "login", 1, (NONE,)
    FIELD = re.compile(rb'name="csrfmiddlewaretoken" value="([^"]+)"')

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(wire.request("GET", "/admin/login/"))
            page = self.FIELD.search(self.count(connection))
            cookie = connection.headers.get("set-cookie", "").partition(";")[0]
            while page and not connection.is_over:
                fields = {
                    "csrfmiddlewaretoken": page[1].decode(),
                    "username": self.world.staff,
                    "password": secrets.token_hex(8),
                }
                headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
                body = urllib.parse.urlencode(fields).encode()
                connection.send(wire.request("POST", "/admin/login/", body, headers=headers))
                self.count(connection)


class Logins(Login):
    """Try passwords on eight connections."""

    name, connections = "login-8", 8
