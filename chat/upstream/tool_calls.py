"""Tool calls as providers stream them, made whole: each has an index, an id, a type and a name."""

import json
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

from chat.upstream.text import TextJoiner, storable, storable_text

# OpenAI takes no more back in one message. What follows is left out.
MAX_CALLS = 128
STRUCTURE = re.compile(r'\\.|["{}\[\]]', re.S)
JSON_SPACE = " \t\n\r"  # RFC 8259, section 2
ALPHABET = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Return an id for a call that came without one: nine letters and digits, which Mistral demands."""
    return "".join(secrets.choice(ALPHABET) for _ in range(9))


class Arguments:
    """The text of a call's arguments, in pieces, and whether it is whole JSON: each piece is looked at once."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._is_in_text = False
        self._escape = ""  # A backslash at the end of a piece belongs to what comes next.
        self._last = ""
        self._is_json: bool | None = None

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, piece: str) -> None:
        if not piece:
            return
        self._pieces.append(piece)
        if self._is_json and piece.strip(JSON_SPACE):
            self._is_json = False
        self._last = piece.rstrip()[-1:] or self._last
        text = self._escape + piece
        self._escape = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        for mark in STRUCTURE.findall(text.removesuffix(self._escape)):
            if mark == '"':
                self._is_in_text = not self._is_in_text
            elif len(mark) == 1 and not self._is_in_text:
                self._depth += 1 if mark in "{[" else -1

    @property
    def is_whole(self) -> bool:
        if self._depth or self._is_in_text or self._last != "}":
            return False
        if self._is_json is None:
            self._is_json = is_json(str(self))  # What is none with all its brackets closed never becomes one.
        return self._is_json


@dataclass(eq=False)
class ToolCall:
    """One call, as far as it has come."""

    positions: set[int]  # the provider's own indexes of it
    given_id: str = ""
    id: str = ""
    index: int = 0
    name: str = ""
    kind: str = "function"  # or "custom", whose input is free text
    text: Arguments = field(default_factory=Arguments)
    has_empty_object: bool = False  # They began as `{}`, after which some providers send the true ones.
    extra: dict[str, Any] = field(default_factory=dict)
    is_announced: bool = False
    joiner: TextJoiner = field(default_factory=TextJoiner)

    def body(self, text: str | None = None) -> dict[str, Any]:
        """Return OpenAI's object of the call."""
        text = str(self.text) if text is None else text
        if self.kind == "custom":
            return {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": text}, **self.extra}
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": text}, **self.extra}

    def piece(self, text: str, **extra: Any) -> dict[str, Any]:
        """Return the delta that adds `text` to the arguments."""
        if self.kind == "custom":
            return {"index": self.index, "custom": {"input": text}, **extra}
        return {"index": self.index, "function": {"arguments": text}, **extra}

    @property
    def is_complete(self) -> bool:
        """Tell whether the arguments are whole: what comes next is a repetition, or belongs to another call."""
        return self.text.is_whole if self.text else self.has_empty_object

    def add(self, text: str) -> str:
        """Add to the arguments, and return what is new of them."""
        if self.kind == "function":
            if not self.text and text.strip() == "{}":
                self.has_empty_object = True
                return ""
            if self.text and self.is_complete:
                return ""
        text = self.joiner.add(text)
        self.text.add(text)
        return text


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class ToolCalls:
    """The calls of one reply, from deltas in which indexes, ids, types and names may be missing, empty or repeated."""

    def __init__(self) -> None:
        self._found: list[ToolCall] = []

    def __bool__(self) -> bool:
        return any(call.name for call in self._found)

    def bodies(self) -> list[dict[str, Any]]:
        return [call.body() for call in self._found if call.is_announced]

    def add(self, deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take the deltas of a chunk, and return well-formed ones: OpenAI's first piece of a call has its id and name,
        all others have its arguments alone."""
        return [piece for delta in deltas for piece in self._add(delta)]

    def finish(self) -> list[dict[str, Any]]:
        """Return what is missing at the end. A call without arguments has an empty object of them."""
        pieces = []
        for call in self._found:
            rest = call.joiner.flush()
            if call.kind == "function" and not (str(call.text) + rest).strip():
                rest += "{}"
            call.text.add(rest)
            if call.name and not call.is_announced:
                pieces.append(self._announce(call))
            elif rest and call.is_announced:
                pieces.append(call.piece(rest))
        return pieces

    def _add(self, delta: dict[str, Any]) -> list[dict[str, Any]]:
        bodies = [value for value in map(delta.get, ("function", "custom")) if isinstance(value, dict)]
        body: dict[str, Any] = bodies[0] if bodies else {}
        name: str = storable_text(body["name"]) if isinstance(body.get("name"), str) else ""
        given_id: str = storable_text(delta["id"]) if isinstance(delta.get("id"), str) else ""
        text = text_of(body.get("arguments", body.get("input")))
        position = delta.get("index")
        call = self._call_of(position if type(position) is int else None, given_id, name, text)
        if len(self._found) > MAX_CALLS:
            self._found.pop()
            return []
        if "custom" in delta or delta.get("type") == "custom":
            call.kind = "custom"
        if name and name != call.name and not call.is_announced:
            call.name += name
        extra = {"extra_content": storable(delta["extra_content"])} if delta.get("extra_content") else {}
        call.extra |= extra
        fresh = call.add(text)
        # Those before it can get no other name any more.
        pieces = [self._announce(one) for one in self._found[: self._found.index(call)] if self._can_announce(one)]
        if call.is_announced:
            return [*pieces, call.piece(fresh, **extra)] if fresh or extra else pieces
        return [*pieces, self._announce(call)] if call.text and self._can_announce(call) else pieces

    def _can_announce(self, call: ToolCall) -> bool:
        """Tell whether a client can be told of the call. Without a name nobody can answer it."""
        return bool(call.name) and not call.is_announced

    def _announce(self, call: ToolCall) -> dict[str, Any]:
        ids = {one.id for one in self._found if one.is_announced}
        call.index = len(ids)
        call.id = call.given_id if call.given_id and call.given_id not in ids else new_call_id()
        call.is_announced = True
        return {"index": call.index, **call.body()}

    def _call_of(self, position: int | None, given_id: str, name: str, text: str) -> ToolCall:
        """Find the call that a delta belongs to, or begin one."""
        known = next((call for call in self._found if given_id and call.given_id == given_id), None)
        if known and not (name and known.name and position is not None and position not in known.positions):
            return known
        same = [call for call in self._found if position in call.positions]
        if not same and (position is None or not name):
            same = self._found[-1:]  # Only a name begins a call.
        if not same or is_another(same[-1], position, given_id, name, text):
            self._found.append(ToolCall(set(), given_id))
            same = self._found[-1:]
        call = same[-1]
        call.given_id = call.given_id or given_id
        if position is not None:
            call.positions.add(position)
        return call


def is_another(last: ToolCall, position: int | None, given_id: str, name: str, text: str) -> bool:
    """Tell whether a delta begins a call after `last`, though it has the position of `last`.

    Some providers put parallel calls at one position or at none, some repeat the name with each piece, some send a name
    in pieces, and some send each piece under a new id.
    """
    if not name or not last.name:
        return False
    if given_id and last.given_id:
        return name != last.name or last.is_complete or not last.text
    if last.is_complete:
        return bool(text.strip()) or name != last.name
    return name != last.name and (bool(last.text) or position is None)


def text_of(arguments: Any) -> str:
    """Return arguments as text; some providers send them as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
