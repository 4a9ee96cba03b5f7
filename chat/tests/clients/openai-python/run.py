"""The official Python SDK, as its README uses it."""

import json
from typing import Any

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

import report as say

client = OpenAI(base_url=say.BASE_URL, api_key=say.TOKEN)


class weather(BaseModel):  # noqa: N801 - the class names the tool
    """Return the weather of a city."""

    city: str

    def run(self) -> str:
        return f"sunny in {self.city}"


class City(BaseModel):
    name: str
    degrees: int


TOOLS = [pydantic_function_tool(weather)]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def results(message: Any) -> list[Any]:
    """Run the tools that a message calls."""
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": weather(**json.loads(call.function.arguments)).run(),
        }
        for call in message.tool_calls
    ]


def two_turns() -> None:
    messages: list[Any] = [user(say.NAME)]
    first = client.chat.completions.create(model=say.MODEL, messages=messages)
    say.equal(first.choices[0].message.content, say.NICE)
    messages.append(first.choices[0].message)
    messages.append(user(say.ASK))
    second = client.chat.completions.create(model=say.MODEL, messages=messages)
    say.equal(second.choices[0].message.content, say.KNOWN)


def streamed_text(messages: list[Any], **extra: Any) -> str:
    """Read a stream as OpenAI's quickstart does, which takes every chunk to have a choice."""
    text = ""
    for chunk in client.chat.completions.create(model=say.MODEL, messages=messages, stream=True, **extra):
        text += chunk.choices[0].delta.content or ""
    return text


def two_turns_streamed() -> None:
    messages: list[Any] = [user(say.NAME)]
    text = streamed_text(messages)
    say.equal(text, say.NICE)
    messages += [{"role": "assistant", "content": text}, user(say.ASK)]
    with client.chat.completions.stream(model=say.MODEL, messages=messages) as stream:
        message = stream.get_final_completion().choices[0].message
    say.equal(message.content, say.KNOWN)
    messages += [message, user(say.THANKS)]
    say.equal(streamed_text(messages), say.WELCOME)


def tool_loop() -> None:
    messages: list[Any] = [user(say.WEATHER)]
    message = client.chat.completions.create(model=say.MODEL, messages=messages, tools=TOOLS).choices[0].message
    messages += [message, *results(message)]
    message = client.chat.completions.create(model=say.MODEL, messages=messages, tools=TOOLS).choices[0].message
    say.equal(message.content, say.SUNNY)
    messages += [message, user(say.THANKS)]
    message = client.chat.completions.create(model=say.MODEL, messages=messages, tools=TOOLS).choices[0].message
    say.equal(message.content, say.WELCOME)


def tool_loop_streamed() -> None:
    messages: list[Any] = [user(say.WEATHER)]
    with client.chat.completions.stream(model=say.MODEL, messages=messages, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    messages += [message, *results(message)]
    with client.chat.completions.stream(model=say.MODEL, messages=messages, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    say.equal(message.content, say.SUNNY)
    messages += [message, user(say.THANKS)]
    with client.chat.completions.stream(model=say.MODEL, messages=messages, tools=TOOLS) as stream:
        say.equal(stream.get_final_completion().choices[0].message.content, say.WELCOME)


def structured() -> None:
    messages: list[Any] = [user(say.WARMEST)]
    message = client.chat.completions.parse(model=say.MODEL, messages=messages, response_format=City).choices[0].message
    say.equal(message.parsed, City(name="Rome", degrees=21))
    messages += [message, user(say.THANKS)]
    message = client.chat.completions.parse(model=say.MODEL, messages=messages, response_format=City).choices[0].message
    say.equal(message.parsed, City(name="Rome", degrees=21))


def files() -> None:
    messages: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": say.LOOK},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{say.PICTURE}"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{say.DOCUMENT}"},
                },
            ],
        }
    ]
    say.equal(client.chat.completions.create(model=say.MODEL, messages=messages).choices[0].message.content, say.SEEN)


def conversation() -> None:
    memory: Any = {"extra_body": {"conversation_id": client.conversations.create().id}}
    first = client.chat.completions.create(model=say.MODEL, messages=[user(say.NAME)], **memory)
    say.equal(first.choices[0].message.content, say.NICE)
    say.equal(streamed_text([user(say.ASK)], **memory), say.KNOWN)


def conversation_with_tools() -> None:
    memory: Any = {"tools": TOOLS, "extra_body": {"conversation_id": client.conversations.create().id}}
    first = client.chat.completions.create(model=say.MODEL, messages=[user(say.WEATHER)], **memory)
    second = client.chat.completions.create(model=say.MODEL, messages=results(first.choices[0].message), **memory)
    say.equal(second.choices[0].message.content, say.SUNNY)
    third = client.chat.completions.create(model=say.MODEL, messages=[user(say.THANKS)], **memory)
    say.equal(third.choices[0].message.content, say.WELCOME)


def complete(text: str, *, token: str = say.TOKEN, model: str = say.MODEL) -> None:
    OpenAI(base_url=say.BASE_URL, api_key=token, max_retries=0).chat.completions.create(
        model=model, messages=[user(text)]
    )


say.report(
    {
        "two turns": two_turns,
        "two turns, streamed": two_turns_streamed,
        "tool loop": tool_loop,
        "tool loop, streamed": tool_loop_streamed,
        "structured output": structured,
        "a picture and a PDF": files,
        "conversation": conversation,
        "conversation, tool loop": conversation_with_tools,
    },
    complete,
)
