"""Protobuf messages for requests and answers: which route takes and gives which, and how JSON becomes one of them."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from chat.api.fits import fit, fit_json
from chat.pieces import worked
from chat.turns.chunks import choice_in
from protos import chat_pb2 as pb


class Messages(NamedTuple):
    """What a route takes and gives. A route without a body takes None."""

    request: type[Message] | None
    answer: type[Message]


def messages_of(view: Any) -> Messages:
    """Return the messages of the route that a view is serving."""
    return ROUTES[f"{type(view).__name__}.{view.action}"]


ROUTES = {
    "CompletionViewSet.create": Messages(pb.ChatRequest, pb.ChatResponse),
    "CompletionViewSet.cancel": Messages(None, pb.Cancellation),
    "ConversationViewSet.create": Messages(pb.ConversationRequest, pb.Conversation),
    "ConversationViewSet.retrieve": Messages(None, pb.Conversation),
    "ConversationViewSet.update": Messages(pb.ConversationUpdate, pb.Conversation),
    "ConversationViewSet.destroy": Messages(None, pb.ConversationDeleted),
    "ItemViewSet.list": Messages(None, pb.ItemList),
    "ItemViewSet.create": Messages(pb.ItemsRequest, pb.ItemList),
    "ItemViewSet.retrieve": Messages(None, pb.Item),
    "ItemViewSet.destroy": Messages(None, pb.Conversation),
    "ModelViewSet.list": Messages(None, pb.ModelList),
    "ModelViewSet.retrieve": Messages(None, pb.Model),
    "EventViewSet.create": Messages(pb.EventsRequest, pb.EventsStored),
    "SessionViewSet.create": Messages(pb.SessionRequest, pb.Session),
    "SessionViewSet.refresh": Messages(pb.RefreshRequest, pb.Session),
    "SessionViewSet.retrieve": Messages(None, pb.Session),
    "SessionViewSet.destroy": Messages(None, pb.SessionDeleted),
    "UsageViewSet.list": Messages(None, pb.UsageReport),
}

Fields = dict[str, Any]
# A FieldDescriptor of either implementation of Protobuf.
Field = Any
# Messages inside of each other. The deepest of an answer has four; parsers refuse a hundred.
MAX_LEVELS = 20
# Ends the name of a field that holds a JSON value as text.
JSON_SUFFIX = "_json"
# Of the fields that requests have, the one whose JSON is a list. All others are objects.
JSON_LISTS = frozenset({"reasoning_details_json"})

# --- answers: from JSON ---


M = TypeVar("M", bound=Message)


def fill(message: M, answer: Mapping[str, Any], levels: int = MAX_LEVELS) -> M:
    """Set the fields that a JSON answer has, and return the message. A value that does not fit its field is left out.

    The figures and texts of an answer are the upstream's. The client was billed for it, and must be able to read it.
    Raises nothing, whatever the answer holds; messages deeper than so many levels are left out.
    """
    values = RENAMED[type(message)](answer) if type(message) in RENAMED else answer
    for field in message.DESCRIPTOR.fields:
        value = values.get(field.name.removesuffix(JSON_SUFFIX))
        if value is None:
            continue
        if field.name.endswith(JSON_SUFFIX):
            setattr(message, field.name, fit_json(value))
        elif is_map(field):
            if isinstance(value, Mapping):
                getattr(message, field.name).update(fitting_items(field, value))
        elif field.is_repeated:
            fill_list(getattr(message, field.name), field, value if isinstance(value, list) else [], levels)
        elif field.message_type is not None:
            if isinstance(value, Mapping) and levels:
                inner = getattr(message, field.name)
                inner.SetInParent()
                fill(inner, value, levels - 1)
        elif (fitting := fit(field, value)) is not None:
            setattr(message, field.name, fitting)
    return message


def fill_list(repeated: Any, field: Field, values: list[Any], levels: int) -> None:
    for value in values:
        if field.message_type is None:
            if (fitting := fit(field, value)) is not None:
                repeated.append(fitting)
        elif isinstance(value, Mapping) and levels:
            fill(repeated.add(), value, levels - 1)


def is_map(field: Field) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def fitting_items(field: Field, values: Mapping[str, Any]) -> Fields:
    inner: Field = field.message_type.fields_by_name["value"]
    return {key: fitting for key, value in values.items() if (fitting := fit(inner, value)) is not None}


# What of a message is a field of the whole answer. The text has other names.
SAID = (
    "refusal",
    "tool_calls",
    "annotations",
    "reasoning_content",
    "reasoning_details",
    "extra_content",
    "images",
)
# What a chunk says of the whole reply at its end.
AT_THE_END = ("usage", "cancelled", "incomplete_details", "citations", "search_results", "moderation")


def completion_fields(answer: Mapping[str, Any]) -> Fields:
    choice = choice_in(answer)
    said = {name: choice["message"].get(name) for name in SAID}
    return {**answer, **said, "finish_reason": choice.get("finish_reason"), "logprobs": choice.get("logprobs")}


def chunk_fields(chunk: Mapping[str, Any]) -> Fields:
    """Return the fields of a `ChatChunk`. Of what describes the whole reply, the first chunk alone tells."""
    choice = chunk["choices"][0] if chunk["choices"] else {}
    fields = {name: chunk[name] for name in AT_THE_END if name in chunk}
    if "request_id" in chunk:
        whole = ("request_id", "conversation_id", "model", "history_truncated", "created", "service_tier")
        fields |= {name: chunk.get(name) for name in (*whole, "system_fingerprint")}
    delta = choice.get("delta") or {}
    said = {name: delta.get(name) for name in SAID}
    ended = {"finish_reason": choice.get("finish_reason"), "logprobs": choice.get("logprobs")}
    return {**fields, **said, **ended, "delta": delta.get("content")}


def part_fields(part: Mapping[str, Any]) -> Fields:
    """Return the fields of a `ContentPart`, for a part of a message or of an item."""
    kind = str(part.get("type"))
    if kind in {"text", "input_text", "output_text"}:
        return {"text": part.get("text")}
    if kind == "input_image":
        return {"image_url": {"url": part.get("image_url"), "detail": part.get("detail")}}
    if kind in {"image_url", "input_audio", "file", "refusal"}:
        return {kind: part.get(kind)}
    return {}


def token_fields(entry: Mapping[str, Any]) -> Fields:
    return {**entry, "utf8": entry.get("bytes")}


def report_fields(report: Mapping[str, Any]) -> Fields:
    return {**report, "first_day": report["from"], "last_day": report["to"]}


# Messages whose fields are not those of the JSON. All others have the same names.
RENAMED: dict[type[Message], Callable[[Mapping[str, Any]], Fields]] = {
    pb.ChatResponse: completion_fields,
    pb.ChatChunk: chunk_fields,
    pb.ContentPart: part_fields,
    pb.TokenLogprob: token_fields,
    pb.UsageReport: report_fields,
}


# --- requests: to JSON ---


def fields_of(message: Message, load: Callable[[str, str, type], Any], path: str = "") -> Any:
    """Return the JSON that a request stands for. Fields that are not set are absent.

    `load(text, path, kind)` reads the JSON value, a dict or a list, in a field whose name ends in _json.
    """
    fields: Fields = {}
    worked(4)
    for field, value in message.ListFields():
        at = f"{path}.{field.name}" if path else field.name
        if field.name.endswith(JSON_SUFFIX):
            kind = list if field.name in JSON_LISTS else dict
            fields[field.name.removesuffix(JSON_SUFFIX)] = load(value, at, kind)
        elif is_map(field):
            fields[field.name] = dict(value)
        elif field.message_type is not None and field.is_repeated:
            fields[field.name] = [fields_of(inner, load, f"{at}[{index}]") for index, inner in enumerate(value)]
        elif field.message_type is not None:
            fields[field.name] = fields_of(value, load, at)
        elif field.is_repeated:
            fields[field.name] = list(value)
        elif isinstance(value, bytes):
            fields[field.name] = base64.b64encode(value).decode()
        else:
            fields[field.name] = value
    return SPOKEN[type(message)](fields) if type(message) in SPOKEN else fields


def request_json(fields: Fields) -> Fields:
    extra = fields.pop("extra", {})
    return {**extra, **fields}


def message_json(fields: Fields) -> Fields:
    """Return a chat message.

    Protobuf cannot tell an empty text from none. Only the calls and the refusal of an assistant stand without a text.
    """
    parts = fields.pop("parts", [])
    if parts and "content" in fields:
        parts = [{"type": "text", "text": fields["content"]}, *parts]
    if parts:
        fields["content"] = parts
    needs_no_text = fields.get("role") == "assistant" and bool({"tool_calls", "refusal"} & set(fields))
    if not needs_no_text:
        fields.setdefault("content", "")
    return fields


def part_json(fields: Fields) -> Fields:
    return {"type": next(iter(fields), ""), **fields}


def tool_json(fields: Fields) -> Fields:
    kind = "custom" if "custom" in fields else "function"
    return {"type": kind, **fields}


def call_json(fields: Fields) -> Fields:
    fields.pop("index", None)
    if "function" in fields:
        fields["function"] = {"name": "", "arguments": "", **fields["function"]}
    return tool_json(fields)


def choice_json(fields: Fields) -> Any:
    for kind in ("function", "custom"):
        if kind in fields:
            return {"type": kind, kind: {"name": fields[kind]}}
    return fields.get("mode", fields.get("choice"))


def metadata_json(fields: Fields) -> Any:
    return fields.get("pairs", {})


# Messages whose JSON is not simply their fields.
SPOKEN: dict[type[Message], Callable[[Fields], Any]] = {
    pb.ChatRequest: request_json,
    pb.ChatMessage: message_json,
    pb.ContentPart: part_json,
    pb.Tool: tool_json,
    pb.ToolCall: call_json,
    pb.ToolChoice: choice_json,
    pb.Metadata: metadata_json,
}
