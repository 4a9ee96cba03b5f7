"""LangChain for Python: ChatOpenAI of langchain-openai."""

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import report as say

model = ChatOpenAI(model=say.MODEL, base_url=say.BASE_URL, api_key=say.TOKEN)


@tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    """A city."""

    name: str
    degrees: int


with_tools = model.bind_tools([weather])


def results(message: AIMessage) -> list[Any]:
    return [weather.invoke(call) for call in message.tool_calls]


def joined(chunks: Iterator[Any]) -> Any:
    first = next(chunks)
    return sum(chunks, start=first)


def two_turns() -> None:
    messages: list[Any] = [HumanMessage(say.NAME)]
    first = model.invoke(messages)
    say.equal(first.content, say.NICE)
    messages += [first, HumanMessage(say.ASK)]
    say.equal(model.invoke(messages).content, say.KNOWN)


def two_turns_streamed() -> None:
    messages: list[Any] = [HumanMessage(say.NAME)]
    first = joined(model.stream(messages))
    say.equal(first.content, say.NICE)
    messages += [first, HumanMessage(say.ASK)]
    say.equal(joined(model.stream(messages, stream_usage=True)).content, say.KNOWN)


def tool_loop() -> None:
    messages: list[Any] = [HumanMessage(say.WEATHER)]
    messages.append(with_tools.invoke(messages))
    messages += results(messages[-1])
    messages.append(with_tools.invoke(messages))
    say.equal(messages[-1].content, say.SUNNY)
    messages.append(HumanMessage(say.THANKS))
    say.equal(with_tools.invoke(messages).content, say.WELCOME)


def tool_loop_streamed() -> None:
    messages: list[Any] = [HumanMessage(say.WEATHER)]
    messages.append(joined(with_tools.stream(messages)))
    messages += results(messages[-1])
    messages.append(joined(with_tools.stream(messages)))
    say.equal(messages[-1].content, say.SUNNY)
    messages.append(HumanMessage(say.THANKS))
    say.equal(joined(with_tools.stream(messages)).content, say.WELCOME)


def structured() -> None:
    say.equal(model.with_structured_output(City).invoke(say.WARMEST), City(name="Rome", degrees=21))


def structured_by_tool() -> None:
    by_tool = model.with_structured_output(City, method="function_calling")
    say.equal(by_tool.invoke(say.WARMEST), City(name="Rome", degrees=21))


def files() -> None:
    parts: list[Any] = [
        {"type": "text", "text": say.LOOK},
        {"type": "image", "base64": say.PICTURE, "mime_type": "image/png"},
        {"type": "file", "base64": say.DOCUMENT, "mime_type": "application/pdf", "filename": "a.pdf"},
    ]
    say.equal(model.invoke([HumanMessage(parts)]).content, say.SEEN)


def conversation() -> None:
    remembering = model.bind(extra_body={"conversation_id": say.conversation()})
    say.equal(remembering.invoke([HumanMessage(say.NAME)]).content, say.NICE)
    say.equal(joined(remembering.stream([HumanMessage(say.ASK)])).content, say.KNOWN)


def conversation_with_tools() -> None:
    remembering = model.bind_tools([weather], extra_body={"conversation_id": say.conversation()})
    first = remembering.invoke([HumanMessage(say.WEATHER)])
    say.equal(remembering.invoke(results(first)).content, say.SUNNY)
    say.equal(remembering.invoke([HumanMessage(say.THANKS)]).content, say.WELCOME)


def complete(text: str, *, token: str = say.TOKEN, model: str = say.MODEL) -> None:
    ChatOpenAI(model=model, base_url=say.BASE_URL, api_key=token, max_retries=0).invoke(text)


say.report(
    {
        "two turns": two_turns,
        "two turns, streamed": two_turns_streamed,
        "tool loop": tool_loop,
        "tool loop, streamed": tool_loop_streamed,
        "structured output": structured,
        "structured output by a tool": structured_by_tool,
        "a picture and a PDF": files,
        "conversation": conversation,
        "conversation, tool loop": conversation_with_tools,
    },
    complete,
)
