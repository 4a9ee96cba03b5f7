"""Messages as clients send them, read into the one form of OpenAI's chat completions.

Plain functions over dicts: nested serializers of DRF take 5 ms for 200 messages, these 0.3 ms. An assistant message
may be any reply that OpenAI, or a server that speaks its protocol, has given: what the model need not see again is
dropped. In all other messages a field that is not listed is refused by its name.
"""

import json
from collections.abc import Callable
from typing import Any

from rest_framework.serializers import ValidationError

from chat.api.parts import HINTS, REQUIRED, UNKNOWN, invalid, read_content, refuse_many_fields
from chat.api.values import ValueCount
from chat.pieces import A_MESSAGE, worked

MAX_MESSAGES = 2048
MAX_ITEMS = 20
MAX_NAME = 64  # characters
# Characters. Some servers hide the model's signature in it.
MAX_CALL_ID = 4096
# Of all messages of a request together. Each call has a message with its result.
MAX_ALL_PARTS = 8_192
MAX_CALLS = MAX_MESSAGES
# Of JSON in the arguments of calls: shorter ones count as nothing.
SHORT_ARGUMENTS = 200  # characters

ROLE_AND_CONTENT = {"role", "content"}
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# What a message may have beside its role and its content.
FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"name"}),
    "developer": frozenset({"name"}),
    "user": frozenset({"name"}),
    "tool": frozenset({"name", "tool_call_id"}),
}
# What an assistant message keeps of the model's thinking, by type: some providers ask for it back.
THINKING: dict[str, type | tuple[type, ...]] = {
    "reasoning_content": str,
    "reasoning": (str, dict),
    "reasoning_details": list,
    "extra_content": dict,
}
# One class for messages of all roles sends these empty where they say nothing.
OFTEN_EMPTY = frozenset(
    {*THINKING, "annotations", "function_call", "images", "name", "refusal", "tool_call_id", "tool_calls"}
)
ITEM_LABELS = frozenset({"id", "created_at", "status"})
ITEM_ROLES = ("system", "developer", "user", "assistant")


def read_each(sent: Any, read: Callable[[list[Any], int], dict[str, Any]], *, most: int) -> list[dict[str, Any]]:
    """Read a list of objects. `read` gets the list and an index, and an error is told under that index."""
    if not isinstance(sent, list):
        raise invalid("Send a list of objects, each with a role and content.")
    if len(sent) > most:
        raise invalid(f"Send at most {most} at once.")
    found = []
    size = Size()
    for index, each in enumerate(sent):
        if not isinstance(each, dict):
            raise invalid("Send an object with a role and content.", index)
        try:
            size.add(each)
            found.append(read(sent, index))
        except ValidationError as exc:
            raise invalid(exc.detail, index) from exc
    return found


class Size:
    """What the messages of one request have in all, as they were sent."""

    def __init__(self) -> None:
        self._parts = 0
        self._calls = 0
        self._values = ValueCount()

    def add(self, message: dict[str, Any]) -> None:
        """Count a message before it is read. Raises ValidationError or RequestTooLarge past what a request may have."""
        worked(A_MESSAGE)
        refuse_many_fields(message)
        content, calls = message.get("content"), message.get("tool_calls")
        if isinstance(content, list):
            self._parts += len(content)
            if self._parts > MAX_ALL_PARTS:
                raise invalid(f"Send at most {MAX_ALL_PARTS:,} parts in all messages of a request.", "content")
        if isinstance(calls, list):
            self._calls += len(calls)
            if self._calls > MAX_CALLS:
                raise invalid(f"Send at most {MAX_CALLS:,} tool calls in all messages of a request.", "tool_calls")
            for call in calls:
                worked(6)
                self._add_arguments(call)
        if isinstance(message.get("function_call"), dict):
            self._add_arguments({"function": message["function_call"]})

    def _add_arguments(self, call: Any) -> None:
        """Count the JSON in the arguments of a call, which is read whenever the call goes to a model."""
        called = call.get("function") if isinstance(call, dict) else None
        arguments = called.get("arguments") if isinstance(called, dict) else None
        if isinstance(arguments, str) and len(arguments) > SHORT_ARGUMENTS:
            self._values.add_json(arguments.encode(), "tool_calls")


def read_messages(sent: Any) -> list[dict[str, Any]]:
    """Read the messages of a completion. Raises ValidationError."""
    if sent == []:
        raise invalid("Send at least one message.")
    return read_each(sent, read_message, most=MAX_MESSAGES)


def read_message(sent: list[Any], index: int) -> dict[str, Any]:
    message = sent[index]
    role = read_role(message, ROLES)
    if role == "assistant":
        return read_reply(with_tool_calls(sent, index))
    if role == "function":
        return read_function_result(sent, index)
    if message.keys() != ROLE_AND_CONTENT:
        refuse_unknown(message, FIELDS[role])
    read = {"role": role, "content": read_content(message.get("content"), role)}
    if name := read_name(message):
        read["name"] = name
    if role == "tool":
        call_id = message.get("tool_call_id")
        if not call_id or not isinstance(call_id, str) or len(call_id) > MAX_CALL_ID:
            raise invalid("Name the call that this result answers.", "tool_call_id")
        read["tool_call_id"] = call_id
    return read


def read_items(sent: Any) -> list[dict[str, Any]]:
    """Read the items of a conversation into chat messages. Raises ValidationError."""
    return read_each(sent, read_item, most=MAX_ITEMS)


def read_item(sent: list[Any], index: int) -> dict[str, Any]:
    item = sent[index]
    if item.get("type") not in (None, "message"):
        raise invalid("Items are of type message.", "type")
    role = read_role(item, ITEM_ROLES)
    for name, value in item.items():
        if name not in {"type", "role", "content"} and name not in ITEM_LABELS and value is not None:
            raise invalid(UNKNOWN, name[:100])
    content = item.get("content")
    is_empty_reply = role == "assistant" and content == []
    return {"role": role, "content": "" if is_empty_reply else read_content(content, role)}


def read_role(message: dict[str, Any], roles: tuple[str, ...]) -> str:
    role = message.get("role")
    if role is None:
        raise invalid(REQUIRED, "role")
    if not isinstance(role, str) or role not in roles:
        raise invalid(f"Send one of {', '.join(roles)}.", "role")
    return role


def refuse_unknown(message: dict[str, Any], known: frozenset[str]) -> None:
    for name, value in message.items():
        if value is None or name in known or name in HINTS or name in ROLE_AND_CONTENT:
            continue
        if (name == "type" and value == "message") or (name in OFTEN_EMPTY and not value):
            continue
        raise invalid(UNKNOWN, name[:100])


def read_name(message: dict[str, Any]) -> str | None:
    name = message.get("name") or None
    if name is not None and (not isinstance(name, str) or len(name) > MAX_NAME):
        raise invalid(f"Send a string of at most {MAX_NAME} characters.", "name")
    return name


# --- what the model said ---


def read_reply(message: dict[str, Any]) -> dict[str, Any]:
    """Read an assistant message, which may be empty: models give empty replies, and clients send them back."""
    content = message.get("content")
    is_empty = content is None or content == []
    read: dict[str, Any] = {"role": "assistant", "content": None if is_empty else read_content(content, "assistant")}
    if message.keys() == ROLE_AND_CONTENT:  # as most are
        return read
    if name := read_name(message):
        read["name"] = name
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        read["refusal"] = refusal
    if calls := message.get("tool_calls"):
        read["tool_calls"] = read_calls(calls)
    for field, kind in THINKING.items():
        if (thinking := message.get(field)) and isinstance(thinking, kind):
            read[field] = thinking
    return read


def read_calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise invalid("Send a list of tool calls.", "tool_calls")
    read = []
    for index, call in enumerate(calls):
        try:
            read.append(read_call(call))
        except ValidationError as exc:
            raise invalid(exc.detail, "tool_calls", index) from exc
    return read


def read_call(call: Any) -> dict[str, Any]:
    """Read a tool call. Streams give it an index, and some providers leave out its type or its arguments."""
    if not isinstance(call, dict):
        raise invalid("Send an object with id, type and function.")
    call_id, kind = call.get("id"), call.get("type") or "function"
    if not call_id or not isinstance(call_id, str) or len(call_id) > MAX_CALL_ID:
        raise invalid("Send the id that the model gave the call.", "id")
    if kind not in ("function", "custom"):
        raise invalid("Send function or custom.", "type")
    called = call.get(kind)
    if not isinstance(called, dict) or not called.get("name") or not isinstance(called["name"], str):
        raise invalid("Send the name of what is called.", kind, "name")
    read: dict[str, Any] = {"id": call_id, "type": kind}
    if kind == "custom":
        read["custom"] = {"name": called["name"], "input": read_input(called.get("input"))}
    else:
        read["function"] = {"name": called["name"], "arguments": read_arguments(called.get("arguments"))}
    if isinstance(extra := call.get("extra_content"), dict):
        read["extra_content"] = extra
    return read


def read_input(given: Any) -> str:
    """Read what a custom tool is given, which is text."""
    return given if isinstance(given, str) else "" if given is None else json.dumps(given, ensure_ascii=False)


def read_arguments(arguments: Any) -> str:
    """Read the arguments of a call, which are JSON in a string; some clients send the object itself."""
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    if arguments is not None and not isinstance(arguments, str):
        raise invalid("Send the arguments as JSON in a string.", "function", "arguments")
    return arguments or "{}"


# --- function calls, as they were before tools ---


def function_call_of(message: Any) -> dict[str, Any] | None:
    if not isinstance(message, dict) or message.get("role") != "assistant" or message.get("tool_calls"):
        return None  # Some servers repeat the first tool call in function_call.
    call = message.get("function_call")
    return call if isinstance(call, dict) and call.get("name") else None


def with_tool_calls(sent: list[Any], index: int) -> dict[str, Any]:
    """Turn the message's function_call into a tool call, if its result is the next message."""
    message: dict[str, Any] = sent[index]
    call = function_call_of(message)
    if call is None:
        return message
    result = sent[index + 1] if index + 1 < len(sent) else None
    if not isinstance(result, dict) or result.get("role") != "function" or result.get("name") != call["name"]:
        raise invalid(
            "Answer it by the next message, of role function and the same name; or send tool_calls.", "function_call"
        )
    return {**message, "tool_calls": [{"id": call_id_at(index), "type": "function", "function": call}]}


def read_function_result(sent: list[Any], index: int) -> dict[str, Any]:
    """Turn the result of the function_call before it into that of a tool call."""
    message = sent[index]
    call = function_call_of(sent[index - 1]) if index else None
    if call is None or call["name"] != message.get("name"):
        raise invalid("It must follow the function_call that it answers; or send role tool with tool_call_id.", "role")
    refuse_unknown(message, FIELDS["user"])
    return {
        "role": "tool",
        "content": read_content(message.get("content") or "", "tool"),
        "tool_call_id": call_id_at(index - 1),
    }


def call_id_at(index: int) -> str:
    """Name the call of a message by its place: the same request has the same ids."""
    return f"call_function_{index}"
