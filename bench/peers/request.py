"""The request that a peer gets again and again, and how to send one."""

import contextlib
import http.client
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

MODEL = "gpt-4o-mini"
MESSAGE = "hello there"
# What was said before. Replies are half as long as the double's, so that 200 messages stay under HISTORY_TOKENS.
PAST = [{"role": "user", "content": MESSAGE}, {"role": "assistant", "content": "word " * 30}]
USERS = 1000
ITEMS_A_REQUEST = 20
_numbers = itertools.count()


@dataclass(frozen=True)
class Template:
    """What to send. CONVERSATION (one of `conversations`) and USER in the body are filled in for each request."""

    body: str
    headers: dict[str, str]
    conversations: list[str] = field(default_factory=list)
    has_key: bool = False  # an Idempotency-Key for each request

    def filled(self) -> tuple[str, dict[str, str]]:
        """Return the body and the headers of the next request of this process."""
        number = next(_numbers)
        body = self.body.replace("USER", f"u{number % USERS}")
        if self.conversations:
            body = body.replace("CONVERSATION", self.conversations[number % len(self.conversations)])
        key = {"Idempotency-Key": f"p{time.time_ns()}-{number}"} if self.has_key else {}
        return body, {"Content-Type": "application/json", **self.headers, **key}


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def is_whole(self, *, is_stream: bool, reply: str) -> bool:
        """Tell whether the answer has all of the reply, and says that it is the end."""
        if not is_stream:
            return self.status == 200 and reply.strip() in self.body.decode(errors="replace")
        events = [line[6:] for line in self.body.decode(errors="replace").splitlines() if line.startswith("data: ")]
        return self.status == 200 and "[DONE]" in events and "".join(map(delta_of, events)) == reply


def delta_of(event: str) -> str:
    """Return the text that an event of a stream adds to the reply."""
    if event == "[DONE]":
        return ""
    choices = json.loads(event).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


def ask(port: int, template: Template, at_first_byte: Callable[[float], None] = lambda _: None) -> Answer:
    """Send one request on a connection of its own. `at_first_byte` is told when the answer begins, in milliseconds.

    Raises OSError and http.client.HTTPException.
    """
    body, headers = template.filled()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        first = answer.read(1)
        if answer.status == 200:
            at_first_byte(1000 * (time.perf_counter() - began))
        return Answer(answer.status, first + answer.read())
    finally:
        connection.close()


def post(connection: http.client.HTTPConnection, path: str, body: Any, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise ValueError(f"POST {path}: {answer.status} {text[:300]!r}")
    return json.loads(text)


def start_session(port: int, key: str) -> str:
    """Start a session of an anonymous person, and return its access token."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        return str(post(connection, "/v1/sessions", {"install_id": str(uuid.uuid4())}, key)["access_token"])


def create_conversations(port: int, token: str, count: int, messages: int) -> list[str]:
    """Create so many conversations with so many messages each, over the API, and return their ids."""
    past = list(itertools.islice(itertools.cycle(PAST), messages))

    def create(_: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            found = post(connection, "/v1/conversations", {}, token)["conversation_id"]
            for items in batches(past):
                post(connection, f"/v1/conversations/{found}/items", {"items": items}, token)
        finally:
            connection.close()
        return str(found)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(create, range(count)))


def batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), ITEMS_A_REQUEST):
        yield items[start : start + ITEMS_A_REQUEST]


def of_openai(messages: int, *, is_stream: bool) -> str:
    """Return the body of a request to a peer that stores nothing: it gets the conversation with each turn."""
    past = list(itertools.islice(itertools.cycle(PAST), messages))
    stream = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return json.dumps({"model": MODEL, **stream, "messages": [*past, {"role": "user", "content": MESSAGE}]})


def of_conversation(*, is_stream: bool, has_user: bool) -> str:
    """Return the body of a request to a peer that has the conversation."""
    stream = {"stream": True} if is_stream else {}
    user = {"user": "USER"} if has_user else {}
    return json.dumps({"conversation_id": "CONVERSATION", "message": MESSAGE, **stream, **user})
