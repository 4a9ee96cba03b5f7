"""Answers in which any field may be of another type, size, sign or range than OpenAI's."""

import json
from typing import Any

from hypothesis import strategies as st


def nest(levels: int, name: str = "") -> Any:
    """Return a list, or objects of one name, inside of each other."""
    value: Any = "x"
    for _ in range(levels):
        value = {name: value} if name else [value]
    return value


NUMBERS = [0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 2**70, -(2**70), 10**400, 1762000000123, 0.5, -0.0]
FLOATS = [float("nan"), float("inf"), float("-inf"), 1e300, 1762000000.5]
TEXTS = ["", "x", "stop", "7", "-7", "9" * 5000, "\ud83d", "\ude00\ud83d", "a\0b", "x" * 70_000, "\u0664", "NaN", "1e9"]
NESTED = [[], {}, [[]], [None], [{}], {"": None}, {"a": {"b": [1, {"c": None}]}}, ["x", 1, None], {"text": {"text": 5}}]
DEEPLY = [nest(300), nest(300, "a"), nest(95, "top_logprobs"), nest(600, "error")]
GROUPS: list[list[Any]] = [NUMBERS, FLOATS, TEXTS, NESTED, DEEPLY]
ODD: st.SearchStrategy[Any] = st.one_of(st.none(), st.booleans(), *(st.sampled_from(values) for values in GROUPS))

CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROB = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
MESSAGE = {
    "role": "assistant",
    "content": "Hi",
    "refusal": None,
    "reasoning_content": "hm",
    "reasoning_details": [{"type": "x"}],
    "extra_content": {"google": {"signature": "s"}},
    "images": [{"type": "image_url"}],
    "annotations": [{"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2, "title": "t"}}],
    "tool_calls": [CALL],
    "function_call": None,
}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
}
HEAD = {
    "id": "u1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "service_tier": "default",
    "system_fingerprint": "fp",
    "citations": ["https://example.com"],
    "search_results": [{"title": "t"}],
    "moderation": {"flagged": False},
}
LOGPROBS = {"content": [LOGPROB], "refusal": None}


def whole() -> dict[str, Any]:
    choice = {"index": 0, "message": MESSAGE, "logprobs": LOGPROBS, "finish_reason": "stop"}
    return json.loads(json.dumps({**HEAD, "choices": [choice], "usage": USAGE}))  # type: ignore[no-any-return]


def chunks() -> list[dict[str, Any]]:
    choice = {"index": 0, "delta": MESSAGE, "logprobs": LOGPROBS, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    found = [{**HEAD, "choices": [choice]}, {**HEAD, "choices": [last]}, {**HEAD, "choices": [], "usage": USAGE}]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each field."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in ((*path, key), *places(item, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], odd: Any) -> None:
    """Put an odd value in the place of a field, if the field is still there."""
    for key in path[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(value, dict) or (isinstance(value, list) and isinstance(path[-1], int) and path[-1] < len(value)):
        value[path[-1]] = odd


@st.composite
def oddities(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a whole answer and an event stream with the same odd fields: some of OpenAI's, or some that it has not."""
    answer, stream = whole(), chunks()
    odd_places: list[tuple[Any, ...]] = []
    extra = [("usage", "input_tokens"), ("usage", "output_tokens"), ("error",), ("choices",), ("x_groq",)]
    for path in draw(st.lists(st.sampled_from([*places(answer), *extra]), min_size=1, max_size=3)):
        if any(path[: len(taken)] == taken for taken in odd_places):
            continue
        odd_places.append(path)
        odd = draw(ODD)
        put(answer, path, odd)
        delta_path = tuple("delta" if key == "message" else key for key in path)
        for chunk in stream:
            put(chunk, delta_path, odd)
    events = b"".join(b"data: " + dump(chunk) + b"\n\n" for chunk in stream)
    return dump(answer), events + b"data: [DONE]\n\n"


def dump(value: Any) -> bytes:
    """Write JSON as lax servers do: NaN and Infinity as words, any number of digits."""
    return json.dumps(value).encode()
