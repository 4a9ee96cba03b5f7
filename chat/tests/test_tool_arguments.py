"""Whether the arguments of a call are whole is told from pieces, each of which is looked at once."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chat.upstream import tool_calls
from chat.upstream.tool_calls import MAX_CALLS, Arguments, ToolCalls

MARKS = st.text(st.sampled_from('{}[]",:\\ a1'), max_size=3)
OBJECTS = st.dictionaries(st.text(max_size=3), st.recursive(st.text(max_size=3), st.lists, max_leaves=3), max_size=3)


@given(st.one_of(st.lists(MARKS, max_size=8), OBJECTS.map(json.dumps).map(list)))
@example(['{"a\\', '"": "}', '"}'])
@example(['{"a": "\\\\', '"}', " "])
@example(["{}", "{}"])
def test_it_is_whole_as_soon_as_it_is_a_json_object(pieces: list[str]) -> None:
    arguments, text = Arguments(), ""
    for piece in pieces:
        arguments.add(piece)
        text += piece

        assert arguments.is_whole == (text.rstrip().endswith("}") and tool_calls.is_json(text))
        assert str(arguments) == text


def test_it_is_read_once_however_many_pieces_come(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = tool_calls.is_json

    def counted(text: str) -> bool:
        read.append(len(text))
        return original(text)

    monkeypatch.setattr(tool_calls, "is_json", counted)
    calls = ToolCalls()
    for piece in ['{"a": [{}', *[", {}"] * 5000, "]}"]:
        calls.add([{"index": 0, "id": "c", "function": {"name": "f", "arguments": piece}}])

    assert len(json.loads(calls.bodies()[0]["function"]["arguments"])["a"]) == 5001
    assert len(read) <= 1


def test_calls_past_the_most_that_a_message_holds_are_left_out() -> None:
    calls = ToolCalls()
    for number in range(MAX_CALLS + 50):
        calls.add([{"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": '{"a": 1}'}}])

    assert len(calls.bodies()) == MAX_CALLS
