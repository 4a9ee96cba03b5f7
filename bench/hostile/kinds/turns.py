"""Clients that take turns, and conversations, as if nobody else did."""

import itertools
import json
import secrets
from typing import Any

import gevent

from bench.hostile import wire
from bench.hostile.kinds.base import MODEL_SILENT, MODEL_TRICKLES, SMALL_BUFFER, Flood, Kind, said

TURN = "/v1/chat/completions"


class Turns(Flood):
    """Take turns from 300 connections, with a token that has no limits."""

    name, connections = "turns", 300
    fields: dict[str, Any] = {}

    def request(self, number: int) -> bytes:
        return wire.request("POST", TURN, json.dumps(said("hello", **self.fields)).encode(), token=self.token(number))


class Streams(Turns):
    """Take streams from 300 connections, with a token that has no limits."""

    name, fields = "streams", {"stream": True}


class Burst(Kind):
    """Send 3,000 requests at once, read the answers, and again."""

    name, connections = "burst", 3000

    def attack(self, number: int) -> None:
        self.call(number, "POST", TURN, json.dumps(said("hello")).encode())


class Refused(Turns):
    """Take turns that the budget of the token refuses."""

    name, connections, credential = "over-budget", 50, "poor"


class SilentModel(Kind):
    """Take turns for which the model's provider says nothing: more than a process runs at once."""

    name, connections, is_per_worker = "silent-model", 1200, True
    word = MODEL_SILENT

    def attack(self, number: int) -> None:
        with self.open() as connection:
            body = json.dumps(said(self.word, stream=bool(number % 2))).encode()
            connection.send(wire.request("POST", TURN, body, token=self.token(number)))
            self.wait_for_the_end(connection)
            gevent.sleep(0.1)


class TricklingModel(SilentModel):
    """Take turns for which the model's provider sends headers, one a second."""

    name, connections, is_per_worker, word = "trickling-model", 300, False, MODEL_TRICKLES


class TricklingReply(TricklingModel):
    """Take streams in which the model's provider sends a sign of life a second, and no more."""

    name, word = "trickling-reply", "PROVIDER-TRICKLES-BODY"


class OneKey(Kind):
    """Send one turn under one key from 200 connections at once, then one under the next key."""

    name, connections = "one-key", 200
    is_stream = False

    def prepare(self) -> None:
        self.run_id, self.sent = secrets.token_hex(4), itertools.count()

    def key(self) -> str:
        return f"{self.run_id}-{next(self.sent) // self.connections}"

    def request(self, number: int) -> bytes:
        body = json.dumps(said("hello", stream=self.is_stream)).encode()
        return wire.request("POST", TURN, body, token=self.token(number), headers={"Idempotency-Key": self.key()})

    def attack(self, number: int) -> None:
        with self.open() as connection:
            connection.send(self.request(number))
            self.count(connection)


class UnreadJoins(OneKey):
    """Join one stream from 200 connections, and read none of it."""

    name, is_stream = "unread-joins", True

    def attack(self, number: int) -> None:
        with self.open(receive_buffer=SMALL_BUFFER) as connection:
            connection.send(self.request(number))
            gevent.sleep(2)


class OneConversation(Flood):
    """Take turns in one conversation from 100 connections."""

    name, connections = "one-conversation", 100

    def prepare(self) -> None:
        self.found = self.conversation([])

    def request(self, number: int) -> bytes:
        body = {"conversation_id": self.found, "message": "hello", "stream": bool(number % 2)}
        return wire.request("POST", TURN, json.dumps(body).encode(), token=self.token(number))


class DeletedConversations(Kind):
    """Delete a conversation while turns and items are written to it, and make the next."""

    name, connections = "deleted-conversations", 40

    def prepare(self) -> None:
        self.found = ""

    def attack(self, number: int) -> None:
        if not number:
            self.found = self.conversation([])
            gevent.sleep(0.1)
            self.call(number, "DELETE", f"/v1/conversations/{self.found}")
        elif number % 2:
            turn = {"conversation_id": self.found, "message": "hello"}
            self.call(number, "POST", TURN, json.dumps(turn).encode())
        else:
            items = {"items": [{"role": "user", "content": "x" * 1000}] * 20}
            self.call(number, "POST", f"/v1/conversations/{self.found}/items", json.dumps(items).encode())


class NewConversations(Flood):
    """Make conversations, each with 20 messages."""

    name, connections = "new-conversations", 50

    def request(self, number: int) -> bytes:
        items = {"items": [{"role": "user", "content": "x" * 1000}] * 20}
        return wire.request("POST", "/v1/conversations", json.dumps(items).encode(), token=self.token(number))


class Cancellations(Kind):
    """Begin a stream, cancel it twice, and leave."""

    name, connections = "cancellations", 50

    def attack(self, number: int) -> None:
        with self.open() as connection:
            body = json.dumps(said("hello", stream=True)).encode()
            connection.send(wire.request("POST", TURN, body, token=self.token(number)))
            connection.head()
            request_id = connection.headers.get("x-request-id", "r_unknown")
            for _ in range(2):
                self.call(number, "POST", f"{TURN}/{request_id}/cancel")
