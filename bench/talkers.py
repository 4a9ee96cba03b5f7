"""The clients of a fault run, on real sockets. They send each message under one key until they have its reply."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.nodes import Node
from bench.stack import TOKEN

TRIES = 100


@dataclass(frozen=True)
class Received:
    """A reply that a client received whole."""

    conversation_id: str
    key: str  # also the text of the user's message, so that both ledgers name it
    request_id: str
    text: str


@dataclass(frozen=True)
class Admitted:
    """A request that a limit let through, at a time between these two (CLOCK_MONOTONIC)."""

    sent: float
    answered: float


@dataclass
class Talk:
    """What the clients have seen."""

    nodes: list[Node]
    seed: int
    count: Counter[str] = field(default_factory=Counter)
    received: list[Received] = field(default_factory=list)
    admitted: list[Admitted] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int, turns: int) -> None:
        """Send `turns` messages in one conversation, each until it is answered. One in five is sent again later."""
        dice = random.Random(self.seed * 1000 + number)  # noqa: S311
        conversation_id = self.persist(lambda: self.new_conversation(dice))
        for turn in range(turns):
            key = f"client {number} turn {turn}"
            is_stream, repeats = dice.random() < 0.5, 1 + (dice.random() < 0.2)
            for _ in range(repeats):
                self.received.append(self.persist(lambda k=key, s=is_stream: self.say(dice, conversation_id, k, s)))  # type: ignore[misc]
            self.count["turns"] += 1

    def hammer(self, number: int, token: str) -> None:
        """Send requests again and again, whatever the limits say."""
        dice = random.Random(-number)  # noqa: S311
        while not self.stopped.wait(0.2):
            sent = time.monotonic()
            try:
                with self.post(dice, "/v1/conversations", {}, token=token) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                # Nobody knows whether it was let through. Counting it would loosen the bound.
                continue
            self.count[f"limited client: {answer.status}"] += 1
            if answer.status == 201:
                self.admitted.append(Admitted(sent, time.monotonic()))

    def spend(self, number: int, token: str) -> None:
        """Send requests under a budget in tokens until it is used up, and go on sending."""
        dice = random.Random(-number)  # noqa: S311
        body = {"messages": [{"role": "user", "content": "spend"}], "max_completion_tokens": 40}
        while not self.stopped.wait(0.2):
            try:
                with self.post(dice, "/v1/chat/completions", body, token=token) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                continue
            self.count[f"client with a budget: {answer.status}"] += 1

    def persist(self, attempt: Callable[[], Any]) -> Any:
        for tried in range(TRIES):
            try:
                if (result := attempt()) is not None:
                    return result
            except (OSError, http.client.HTTPException, ValueError):
                self.count["connections lost"] += 1
            time.sleep(min(2.0, 0.1 * 2 ** min(tried, 5)))
        raise SystemExit("A client had no reply after many tries; the service did not resume.")

    def post(
        self, dice: random.Random, path: str, body: dict[str, Any], key: str = "", token: str = TOKEN
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", dice.choice(self.nodes).port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse()

    def new_conversation(self, dice: random.Random) -> str | None:
        with self.post(dice, "/v1/conversations", {}) as answer:
            body = json.loads(answer.read())
        return body.get("id") if answer.status == 201 else None

    def say(self, dice: random.Random, conversation_id: str, key: str, is_stream: bool) -> Received | None:
        body = {"conversation_id": conversation_id, "message": key, "stream": is_stream}
        with self.post(dice, "/v1/chat/completions", body, key) as answer:
            self.count[f"status {answer.status}"] += 1
            if answer.status != 200:
                answer.read()
                return None
            self.count["duplicates avoided"] += answer.getheader("Idempotent-Replayed") == "true"
            if not is_stream:
                whole = json.loads(answer.read())
                return Received(conversation_id, key, whole["id"], whole["reply"])
            if dice.random() < 0.1:
                self.count["fault: client gone in mid-stream"] += 1
                answer.readline()
                return None
            return self.read_stream(answer, conversation_id, key)

    def read_stream(self, answer: http.client.HTTPResponse, conversation_id: str, key: str) -> Received | None:
        text, request_id = "", ""
        for line in answer:
            if line == b"data: [DONE]\n":
                return Received(conversation_id, key, request_id, text)
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.count["errors in mid-stream"] += 1
                    return None
                request_id = chunk["id"]
                text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        raise ValueError("the stream ended without [DONE]")
