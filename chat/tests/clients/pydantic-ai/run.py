"""Pydantic AI with its model of chat completions."""

from base64 import b64decode

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

import report as say

# The name "openai:gpt-4o-mini" would speak the Responses API.
model = OpenAIChatModel(say.MODEL, provider=OpenAIProvider(base_url=say.BASE_URL, api_key=say.TOKEN))
agent = Agent(model)
meteorologist = Agent(model)


@meteorologist.tool_plain
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    name: str
    degrees: int


async def two_turns() -> None:
    first = await agent.run(say.NAME)
    say.equal(first.output, say.NICE)
    say.equal((await agent.run(say.ASK, message_history=first.all_messages())).output, say.KNOWN)


async def two_turns_streamed() -> None:
    async with agent.run_stream(say.NAME) as first:
        say.equal(await first.get_output(), say.NICE)
    async with agent.run_stream(say.ASK, message_history=first.all_messages()) as second:
        say.equal(await second.get_output(), say.KNOWN)


async def tool_loop() -> None:
    first = await meteorologist.run(say.WEATHER)
    say.equal(first.output, say.SUNNY)
    say.equal((await meteorologist.run(say.THANKS, message_history=first.all_messages())).output, say.WELCOME)


async def tool_loop_streamed() -> None:
    async with meteorologist.run_stream(say.WEATHER) as first:
        say.equal(await first.get_output(), say.SUNNY)
    async with meteorologist.run_stream(say.THANKS, message_history=first.all_messages()) as second:
        say.equal(await second.get_output(), say.WELCOME)


async def structured() -> None:
    result = await Agent(model, output_type=NativeOutput(City)).run(say.WARMEST)
    say.equal(result.output, City(name="Rome", degrees=21))


async def structured_by_tool() -> None:
    asking = Agent(model, output_type=City)
    first = await asking.run(say.WARMEST)
    say.equal(first.output, City(name="Rome", degrees=21))
    second = await asking.run(say.WARMEST, message_history=first.all_messages())
    say.equal(second.output, City(name="Rome", degrees=21))


async def files() -> None:
    picture = BinaryContent(b64decode(say.PICTURE), media_type="image/png")
    document = BinaryContent(b64decode(say.DOCUMENT), media_type="application/pdf")
    say.equal((await agent.run([say.LOOK, picture, document])).output, say.SEEN)


async def conversation() -> None:
    settings = ModelSettings(extra_body={"conversation_id": say.conversation()})
    say.equal((await agent.run(say.NAME, model_settings=settings)).output, say.NICE)
    async with agent.run_stream(say.ASK, model_settings=settings) as second:
        say.equal(await second.get_output(), say.KNOWN)


async def conversation_with_tools() -> None:
    settings = ModelSettings(extra_body={"conversation_id": say.conversation()})
    say.equal((await meteorologist.run(say.WEATHER, model_settings=settings)).output, say.SUNNY)
    say.equal((await meteorologist.run(say.THANKS, model_settings=settings)).output, say.WELCOME)


async def complete(text: str, *, token: str = say.TOKEN, model: str = say.MODEL) -> None:
    async with AsyncOpenAI(base_url=say.BASE_URL, api_key=token, max_retries=0) as client:
        await Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client))).run(text)


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
