"""The content of a message as clients send it: a string, or parts, in the names of either of OpenAI's APIs."""

from collections.abc import Callable
from typing import Any

from rest_framework.serializers import ValidationError

from chat.pieces import worked

MAX_PARTS = 1_000  # of one message
# Of a request, a message or a part: three times as many as any of them knows. Those that are null are ignored.
MAX_FIELDS = 128
# Hints for other providers: they change nothing here.
HINTS = frozenset({"cache_control"})
# What a part may have beside its type.
PART_FIELDS: dict[str, frozenset[str]] = {
    "text": frozenset({"text"}),
    "input_text": frozenset({"text"}),
    "output_text": frozenset({"text"}),
    "refusal": frozenset({"refusal"}),
    "image_url": frozenset({"image_url", "detail"}),
    "input_image": frozenset({"image_url", "detail", "file_id"}),
    "input_audio": frozenset({"input_audio"}),
    "file": frozenset({"file"}),
    "input_file": frozenset({"file_data", "file_id", "file_url", "filename"}),
}
# Where OpenAI shall end a prefix that it caches.
BREAKPOINT = "prompt_cache_breakpoint"
PART_LABELS = HINTS | {"type", "annotations", "logprobs", BREAKPOINT}
# What the model itself may have said. Other parts of a reply, such as its thinking, nobody takes back.
SAID = frozenset({"text", "input_text", "output_text", "refusal"})
# What everybody but a user may say.
TEXTS = frozenset({"text", "input_text", "output_text"})

UNKNOWN = "This field is not supported; leave it out."
REQUIRED = "This field is required."
SEND_CONTENT = "Send a string, or a list of parts such as {'type': 'text', 'text': …}."


def invalid(problem: Any, *path: str | int) -> ValidationError:
    """Make the error of what is at `path`, for example `"content", 1, "text"`: a message, or the detail of an error."""
    detail: Any = [problem] if isinstance(problem, str) else problem
    for step in reversed(path):
        detail = {step: detail}
    return ValidationError(detail)


def refuse_many_fields(sent: dict[str, Any]) -> None:
    if len(sent) > MAX_FIELDS:
        raise invalid(f"Send at most {MAX_FIELDS} fields.")


def read_content(content: Any, role: str) -> str | list[dict[str, Any]]:
    is_reply = role == "assistant"
    if isinstance(content, str):
        return content
    if content is None:
        raise invalid(REQUIRED, "content")
    if isinstance(content, list) and len(content) > MAX_PARTS:
        raise invalid(f"Send at most {MAX_PARTS:,} parts in a message.", "content")
    is_list_of_parts = isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) for part in content
    )
    if not content or not is_list_of_parts:
        raise invalid(SEND_CONTENT, "content")
    read = []
    for index, part in enumerate(content):
        worked(3)
        if is_reply and part["type"] not in SAID:
            continue
        try:
            refuse_of_role(part["type"], role)
            read.append(read_part(part, is_reply=is_reply))
        except ValidationError as exc:
            raise invalid(exc.detail, "content", index) from exc
    return read or ""


def refuse_of_role(kind: str, role: str) -> None:
    """Refuse what OpenAI takes of nobody in that role: once stored, it would be refused at every turn."""
    if role not in {"user", "assistant"} and kind in PART_FIELDS and kind not in TEXTS:
        raise invalid(f"A message of role {role} has parts of text alone; send others as the user's.", "type")
    if role == "user" and kind == "refusal":
        raise invalid("Only the assistant refuses; send text.", "type")


def read_part(part: dict[str, Any], *, is_reply: bool) -> dict[str, Any]:
    """Read a part of a chat message, or the same part as the Responses API names it."""
    kind = part["type"]
    if kind not in PART_FIELDS:
        raise invalid(f"Parts of type {kind[:100]!r} are not supported; send one of {', '.join(PART_FIELDS)}.", "type")
    refuse_many_fields(part)
    known = PART_FIELDS[kind]
    for name, value in part.items():
        if name not in known and name not in PART_LABELS and value is not None and not is_reply:
            raise invalid(UNKNOWN, name[:100])
    if is_reply:
        part = {**part, **{name: "" for name in ("text", "refusal") if part.get(name) is None}}
    read = READERS[kind](part)
    if isinstance(boundary := part.get(BREAKPOINT), dict):
        read[BREAKPOINT] = boundary
    return read


def read_text(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": text_at(part, "text")}


def read_refusal(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text_at(part, "refusal")}


def read_picture(part: dict[str, Any]) -> dict[str, Any]:
    """Read a picture. Its URL may stand alone, as in the Responses API."""
    sent = part.get("image_url")
    if part.get("file_id"):
        raise invalid("Send the picture by its URL or as a data: URL; chat completions take no file_id.", "file_id")
    picture = {"url": sent} if isinstance(sent, str) else without_nulls(sent)
    if not isinstance(picture.get("url"), str) or not picture["url"]:
        raise invalid("Send {'url': …}, with the picture's URL or a data: URL.", "image_url")
    if detail := part.get("detail"):
        picture.setdefault("detail", detail)
    return {"type": "image_url", "image_url": picture}


def read_audio(part: dict[str, Any]) -> dict[str, Any]:
    audio = without_nulls(part.get("input_audio"))
    for name in ("data", "format"):
        if not isinstance(audio.get(name), str) or not audio[name]:
            raise invalid("Send {'data': …, 'format': …}, the data in Base64.", "input_audio", name)
    return {"type": "input_audio", "input_audio": audio}


def read_file(part: dict[str, Any]) -> dict[str, Any]:
    """Read a file. The Responses API has its fields in the part itself."""
    if part.get("file_url"):
        raise invalid("Send file_data or file_id; chat completions take no file_url.", "file_url")
    names = ("file_data", "file_id", "filename")
    file = without_nulls(part.get("file") if part["type"] == "file" else {name: part.get(name) for name in names})
    if not all(isinstance(value, str) for value in file.values()) or not (file.get("file_data") or file.get("file_id")):
        raise invalid("Send file_data (a data: URL) with filename, or file_id.", "file")
    return {"type": "file", "file": file}


def text_at(part: dict[str, Any], name: str) -> str:
    if not isinstance(text := part.get(name), str):
        raise invalid("Send a string.", name)
    return text


def without_nulls(sent: Any) -> dict[str, Any]:
    return {name: value for name, value in sent.items() if value is not None} if isinstance(sent, dict) else {}


READERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "text": read_text,
    "input_text": read_text,
    "output_text": read_text,
    "refusal": read_refusal,
    "image_url": read_picture,
    "input_image": read_picture,
    "input_audio": read_audio,
    "file": read_file,
    "input_file": read_file,
}
