"""What a kind of hostile client is."""

import json
import secrets
from collections import Counter
from typing import Any, ClassVar

import gevent

from bench.hostile import wire
from bench.hostile.wire import Lost, Wire
from bench.hostile.world import World

# The client holds a token, or it does not: then it sends none, or one that nobody has ever been given.
TOKEN, NONE = "token", "none"
# After a lost connection, before the next one.
PAUSE_SECONDS = 0.05
# A client that does not read lets so little be sent to it before the other side must wait.
SMALL_BUFFER = 4096
MODEL_SILENT, MODEL_TRICKLES = "PROVIDER-IS-SILENT", "PROVIDER-TRICKLES-HEADERS"

KINDS: "dict[str, type[Kind]]" = {}


class Kind:
    """A subclass names itself, says how many connections it opens, and what each of them does, again and again."""

    name: ClassVar[str] = ""
    connections: ClassVar[int] = 1
    # Multiply the connections by the number of server processes.
    is_per_worker: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = (TOKEN,)
    credential: ClassVar[str] = "hostile"  # which token of the world

    def __init_subclass__(cls) -> None:
        if cls.name:
            KINDS[cls.name] = cls

    def __init__(self, world: World, source: str) -> None:
        self.world, self.source = world, source
        self.answers: Counter[str] = Counter()

    def prepare(self) -> None:
        """Make what the attack needs, before anything is measured."""

    def attack(self, number: int) -> None:
        """Do what connection `number` does once. It is called again when it returns or its connection is lost."""
        raise NotImplementedError

    def run(self, number: int) -> None:
        """Attack until killed."""
        while True:
            try:
                self.attack(number)
            except (OSError, ValueError) as exc:
                self.answers[type(exc).__name__] += 1
                gevent.sleep(PAUSE_SECONDS)

    def token(self, number: int) -> str:
        """Return what connection `number` sends as its token: of strangers, every other one sends none."""
        if self.source == TOKEN:
            return str(getattr(self.world, self.credential))
        return f"llm_{secrets.token_urlsafe(32)}" if number % 2 else ""

    def open(self, *, receive_buffer: int = 0) -> Wire:
        return Wire(self.world.port, receive_buffer=receive_buffer)

    def count(self, connection: Wire) -> bytes:
        """Read an answer to its end, and count it by its status."""
        body = connection.answer()
        self.answers[str(connection.status)] += 1
        return body

    def call(self, number: int, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """Send one request on a connection of its own, and return the body of the answer."""
        with self.open() as connection:
            connection.send(wire.request(method, path, body, token=self.token(number), headers=headers))
            return self.count(connection)

    def conversation(self, items: list[dict[str, Any]], *, at_once: int = 1) -> str:
        """Make a conversation with these items, as far as the server takes them, and return its id.

        Raise ValueError where the server refuses to make one.
        """
        answer = json.loads(self.call(0, "POST", "/v1/conversations", b"{}"))
        if "id" not in answer:
            raise ValueError(answer)
        created: str = answer["id"]
        for start in range(0, len(items), at_once):
            body = json.dumps({"items": items[start : start + at_once]}).encode()
            self.call(0, "POST", f"/v1/conversations/{created}/items", body)
        return created

    def wait_for_the_end(self, connection: Wire) -> None:
        """Do nothing until the other side closes the connection or answers."""
        while not connection.is_readable(3600):
            pass
        try:
            self.answers[str(connection.head())] += 1
        except Lost:
            self.answers["closed"] += 1


class Flood(Kind):
    """Requests without a pause, on connections that are kept as long as the other side lets them."""

    def request(self, number: int) -> bytes:
        raise NotImplementedError

    def attack(self, number: int) -> None:
        with self.open() as connection:
            while not connection.is_over:
                connection.send(self.request(number))
                self.count(connection)


def said(text: str, **fields: Any) -> dict[str, Any]:
    """Return the fields of a turn that is in no conversation."""
    return {"messages": [{"role": "user", "content": text}], **fields}
