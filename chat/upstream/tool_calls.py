"""Tool calls as providers stream them, made whole: each has an index, an id, a type and a name."""

import json
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

from chat.upstream.text import TextJoiner, storable, storable_text

ALPHABET = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Return an id for a call that came without one: nine letters and digits, which Mistral demands."""
    return "".join(secrets.choice(ALPHABET) for _ in range(9))


@dataclass
class ToolCall:
    """One call, as far as it has come."""

    index: int
    position: Any  # the provider's own index
    given_id: str = ""
    id: str = ""
    name: str = ""
    kind: str = "function"  # or "custom", whose input is free text
    text: str = ""  # the arguments
    extra: dict[str, Any] = field(default_factory=dict)
    is_announced: bool = False
    joiner: TextJoiner = field(default_factory=TextJoiner)

    def body(self, text: str | None = None) -> dict[str, Any]:
        """Return OpenAI's object of the call, whole or with this text in place of its arguments."""
        text = self.text if text is None else text
        if self.kind == "custom":
            return {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": text}, **self.extra}
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": text}, **self.extra}

    def piece(self, text: str) -> dict[str, Any]:
        """Return the delta that adds `text` to the arguments."""
        if self.kind == "custom":
            return {"index": self.index, "custom": {"input": text}}
        return {"index": self.index, "function": {"arguments": text}}

    @property
    def is_complete(self) -> bool:
        """Tell whether the arguments are whole: what comes next belongs to another call."""
        return is_json(self.text)


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
        return any(call.is_announced for call in self._found)

    def bodies(self) -> list[dict[str, Any]]:
        return [call.body() for call in self._announced()]

    def add(self, deltas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take the deltas of a chunk, and return well-formed ones: OpenAI's first piece of a call has its id and name,
        all others have its arguments alone."""
        return [piece for delta in deltas for piece in self._add(delta)]

    def finish(self) -> list[dict[str, Any]]:
        """Return what is missing at the end. A call without arguments has an empty object of them."""
        pieces = []
        for call in self._announced():
            rest = call.joiner.flush()
            if call.kind == "function" and not (call.text + rest).strip():
                rest += "{}"
            if rest:
                call.text += rest
                pieces.append(call.piece(rest))
        return pieces

    def _announced(self) -> list[ToolCall]:
        return [call for call in self._found if call.is_announced]

    def _add(self, delta: dict[str, Any]) -> list[dict[str, Any]]:
        bodies: list[dict[str, Any]] = [
            value for value in map(delta.get, ("function", "custom")) if isinstance(value, dict)
        ]
        body = bodies[0] if bodies else {}
        name: str = body["name"] if isinstance(body.get("name"), str) else ""
        given_id = delta["id"] if isinstance(delta.get("id"), str) else ""
        call = self._call_of(delta.get("index"), storable_text(given_id), name)
        if "custom" in delta or delta.get("type") == "custom":
            call.kind = "custom"
        if name and name != call.name and not call.is_announced:
            call.name += storable_text(name)
        if isinstance(delta.get("extra_content"), dict):
            call.extra["extra_content"] = storable(delta["extra_content"])
        text = call.joiner.add(text_of(body.get("arguments", body.get("input"))))
        call.text += text
        if call.is_announced:
            return [call.piece(text)] if text else []
        if not call.name:
            return []  # A call is announced once it has a name; without one nobody can answer it.
        call.index = len(self._announced())
        call.id = call.given_id or new_call_id()
        call.is_announced = True
        return [{"index": call.index, **call.body()}]

    def _call_of(self, position: Any, given_id: str, name: str) -> ToolCall:
        """Find the call that a delta belongs to, or begin one."""
        if isinstance(position, bool) or not isinstance(position, int):
            position = None
        same = [call for call in self._found if call.position == position] if position is not None else self._found
        if given_id and (known := next((call for call in same if call.given_id == given_id), None)):
            return known
        if not same or is_another(same[-1], given_id, name):
            self._found.append(ToolCall(len(self._found), position, given_id))
            return self._found[-1]
        same[-1].given_id = same[-1].given_id or given_id
        return same[-1]


def is_another(last: ToolCall, given_id: str, name: str) -> bool:
    """Tell whether a delta with this id and name begins a call after `last`, though it has the position of `last`.

    Some providers put parallel calls at one position or at none, some repeat the name with each piece, and some send
    each piece under a new id.
    """
    if not name or not last.name:
        return False
    if name != last.name or last.is_complete:
        return True
    return bool(given_id and last.given_id and not last.text)


def text_of(arguments: Any) -> str:
    """Return arguments as text; some providers send them as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
