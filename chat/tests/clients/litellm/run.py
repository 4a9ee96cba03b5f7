"""LiteLLM as a library."""

import json
import os
from typing import Any

# Its table of prices comes with the package; a newer one would be fetched from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from pydantic import BaseModel

import report as say

litellm.suppress_debug_info = True  # it would print advice on standard output
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Return the weather of a city.", "parameters": PARAMETERS},
    }
]


class City(BaseModel):
    name: str
    degrees: int


def complete(messages: list[Any], **options: Any) -> Any:
    """Return the message of a reply."""
    reply = litellm.completion(
        model=f"openai/{say.MODEL}", api_base=say.BASE_URL, api_key=say.TOKEN, messages=messages, **options
    )
    return reply.choices[0].message


def stream(messages: list[Any], **options: Any) -> Any:
    """Return the message that the chunks of a stream make."""
    chunks = list(
        litellm.completion(
            model=f"openai/{say.MODEL}",
            api_base=say.BASE_URL,
            api_key=say.TOKEN,
            messages=messages,
            stream=True,
            **options,
        )
    )
    return litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def results(message: Any) -> list[Any]:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "name": call.function.name,
            "content": f"sunny in {json.loads(call.function.arguments)['city']}",
        }
        for call in message.tool_calls
    ]


def two_turns(ask=complete) -> None:
    messages: list[Any] = [user(say.NAME)]
    messages.append(ask(messages))
    say.equal(messages[-1].content, say.NICE)
    messages.append(user(say.ASK))
    say.equal(ask(messages).content, say.KNOWN)


def tool_loop(ask=complete) -> None:
    messages: list[Any] = [user(say.WEATHER)]
    messages.append(ask(messages, tools=TOOLS))
    messages += results(messages[-1])
    messages.append(ask(messages, tools=TOOLS))
    say.equal(messages[-1].content, say.SUNNY)
    messages.append(user(say.THANKS))
    say.equal(ask(messages, tools=TOOLS).content, say.WELCOME)


def structured() -> None:
    say.equal(City.model_validate_json(complete([user(say.WARMEST)], response_format=City).content).name, "Rome")


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
    say.equal(complete(messages).content, say.SEEN)


def conversation() -> None:
    memory: Any = {"extra_body": {"conversation_id": say.conversation()}}
    say.equal(complete([user(say.NAME)], **memory).content, say.NICE)
    say.equal(stream([user(say.ASK)], **memory).content, say.KNOWN)


def conversation_with_tools() -> None:
    memory: Any = {"tools": TOOLS, "extra_body": {"conversation_id": say.conversation()}}
    first = complete([user(say.WEATHER)], **memory)
    say.equal(complete(results(first), **memory).content, say.SUNNY)
    say.equal(complete([user(say.THANKS)], **memory).content, say.WELCOME)


def failing(text: str, *, token: str = say.TOKEN, model: str = say.MODEL) -> None:
    litellm.completion(
        model=f"openai/{model}", api_base=say.BASE_URL, api_key=token, messages=[user(text)], max_retries=0
    )


say.report(
    {
        "two turns": two_turns,
        "two turns, streamed": lambda: two_turns(stream),
        "tool loop": tool_loop,
        "tool loop, streamed": lambda: tool_loop(stream),
        "structured output": structured,
        "a picture and a PDF": files,
        "conversation": conversation,
        "conversation, tool loop": conversation_with_tools,
    },
    failing,
)
