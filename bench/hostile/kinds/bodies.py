"""Clients whose requests are large, or small and much work."""

import itertools
import json
from typing import Any

from bench.hostile import wire
from bench.hostile.kinds.base import NONE, TOKEN, Flood, said

TURN = "/v1/chat/completions"
PROTOBUF = "application/x-protobuf"
PAIR = [{"type": "image_url", "image_url": {"url": "https://a/b"}}, {"type": "text", "text": "x"}]
# Of protos/chat.proto: a field that holds bytes is its number and type, a length, and the bytes.
MESSAGES, STOP, TOOLS, METADATA = (number << 3 | 2 for number in (4, 9, 14, 11))
ROLE, PARTS, TEXT, PICTURE, URL = (number << 3 | 2 for number in (1, 4, 1, 2, 1))


def of_one_user(content: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": content}]}, separators=(",", ":")).encode()


class Body(Flood):
    """Send one body again and again. With a wrong token or none, the server has to read it only to refuse it."""

    connections, sources = 4, (TOKEN, NONE)
    media_type = "application/json"
    path = TURN

    def make(self) -> bytes:
        raise NotImplementedError

    def prepare(self) -> None:
        self.body = self.make()

    def request(self, number: int) -> bytes:
        headers = {"Content-Type": self.media_type}
        return wire.request("POST", self.path, self.body, token=self.token(number), headers=headers)


class Pictures(Body):
    """52,000 pictures and 52,000 texts."""

    name = "pictures"

    def make(self) -> bytes:
        return of_one_user(PAIR * 52_000)


class FewPictures(Body):
    """5,200 pictures and 5,200 texts: little to send."""

    name = "few-pictures"

    def make(self) -> bytes:
        return of_one_user(PAIR * 5200)


class Texts(Body):
    """100,000 texts of one letter in one message."""

    name = "texts"

    def make(self) -> bytes:
        return of_one_user([{"type": "text", "text": "x"}] * 100_000)


class EmptyLists(Body):
    """400,000 empty lists."""

    name = "empty-lists"

    def make(self) -> bytes:
        return json.dumps({**said("x"), "metadata": [[]] * 400_000}, separators=(",", ":")).encode()


class Entries(Body):
    """An object with 150,000 entries."""

    name = "entries"

    def make(self) -> bytes:
        return json.dumps({**said("x"), "metadata": {f"k{n}": n for n in range(150_000)}}).encode()


class Messages(Body):
    """20,000 messages."""

    name = "messages"

    def make(self) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": "x"}] * 20_000}).encode()


class ToolCalls(Body):
    """1,000 replies that call 20 tools each, and one result of each, in reverse."""

    name = "tool-calls"

    def make(self) -> bytes:
        call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
        calling = [
            {"role": "assistant", "tool_calls": [{**call, "id": f"{turn}-{n}"} for n in range(20)]}
            for turn in range(1000)
        ]
        results = [{"role": "tool", "tool_call_id": f"{turn}-19", "content": "x"} for turn in reversed(range(1000))]
        return json.dumps({"messages": [*calling, *results]}).encode()


class Deep(Body):
    """A list in a list, 900,000 times."""

    name = "deep"

    def make(self) -> bytes:
        return b'{"messages":' + b"[" * 900_000 + b"]" * 900_000 + b"}"


class Schemas(Body):
    """A tool whose schema has 50,000 properties, 80 levels deep."""

    name = "schemas"

    def make(self) -> bytes:
        schema: dict[str, Any] = {f"p{n}": {"type": "string"} for n in range(50_000)}
        for _ in range(40):
            schema = {"type": "object", "properties": schema}
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        return json.dumps({**said("x"), "tools": [tool]}).encode()


class LongText(Body):
    """One text of 19 MB."""

    name = "long-text"

    def make(self) -> bytes:
        return of_one_user("x" * 19_000_000)


class LongForeignText(Body):
    """One text of 19 MB in letters of three bytes, each written as six."""

    name = "long-foreign-text"

    def make(self) -> bytes:
        return of_one_user("漢" * 3_100_000)


class Numbers(Body):
    """Numbers of 4,000 digits."""

    name = "numbers"

    def make(self) -> bytes:
        return b'{"messages": [' + b",".join([b"9" * 3999] * 450) + b"]}"


def field(key: int, value: bytes) -> bytes:
    length, size = [], len(value)
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    tag = [key & 0x7F | 0x80, key >> 7] if key >= 0x80 else [key]
    return bytes([*tag, *length, size]) + value


class ProtobufMessages(Body):
    """Protobuf: 900,000 empty messages."""

    name, media_type = "protobuf-messages", PROTOBUF

    def make(self) -> bytes:
        return field(MESSAGES, b"") * 900_000


class ProtobufParts(Body):
    """Protobuf: one message with 470,000 empty texts."""

    name, media_type = "protobuf-parts", PROTOBUF

    def make(self) -> bytes:
        return field(MESSAGES, field(ROLE, b"user") + field(PARTS, field(TEXT, b"")) * 470_000)


class ProtobufPictures(Body):
    """Protobuf: 52,000 pictures and 52,000 texts in one message, 1.2 MB."""

    name, media_type = "protobuf-pictures", PROTOBUF

    def make(self) -> bytes:
        pair = field(PARTS, field(PICTURE, field(URL, b"https://a/b"))) + field(PARTS, field(TEXT, b"x"))
        return field(MESSAGES, field(ROLE, b"user") + pair * 52_000)


class ProtobufStops(Body):
    """Protobuf: 300,000 tools, words to stop at, and entries of metadata each, all empty."""

    name, media_type = "protobuf-lists", PROTOBUF

    def make(self) -> bytes:
        turn = field(MESSAGES, field(ROLE, b"user"))
        return turn + field(TOOLS, b"") * 300_000 + field(STOP, b"") * 300_000 + field(METADATA, b"") * 300_000


class LargeItems(Flood):
    """Turns in a conversation of 120 items of 1.9 MB, and pages of them."""

    name, connections = "large-items", 8

    def prepare(self) -> None:
        found = self.conversation([{"role": "user", "content": "x" * 1_900_000}] * 120, at_once=10)
        turn = json.dumps({"conversation_id": found, "message": "hello there"}).encode()
        page = f"/v1/conversations/{found}/items?limit=100"
        requests = [("POST", TURN, turn), ("GET", page, None)]
        self.requests = itertools.cycle([wire.request(*each, token=self.token(0)) for each in requests])

    def request(self, number: int) -> bytes:
        return next(self.requests)


class StoredPictures(Flood):
    """Turns in a conversation with an item of 52,000 pictures and 52,000 texts."""

    name, connections = "stored-pictures", 8

    def prepare(self) -> None:
        found = self.conversation([{"role": "user", "content": PAIR * 52_000}])
        self.body = json.dumps({"conversation_id": found, "message": "hello there"}).encode()

    def request(self, number: int) -> bytes:
        return wire.request("POST", TURN, self.body, token=self.token(number))


class RepeatedHistory(StoredPictures):
    """Turns with 2,000 messages, in a conversation that ends with a reply of 26,000 texts."""

    name = "repeated-history"

    def prepare(self) -> None:
        reply = {"role": "assistant", "content": [{"type": "text", "text": "x"}] * 26_000}
        found = self.conversation([{"role": "user", "content": "x"}, reply])
        said_before = [{"role": role, "content": "x"} for role in ("user", "assistant")] * 1000
        messages = [*said_before, {"role": "user", "content": "hello there"}]
        self.body = json.dumps({"conversation_id": found, "messages": messages}).encode()
