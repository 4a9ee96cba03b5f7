"""OpenAI's Agents SDK with its model of chat completions."""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

import report as say

# Traces would go to OpenAI.
set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    name: str
    degrees: int


def model() -> OpenAIChatCompletionsModel:
    """A client belongs to the event loop of one scenario."""
    return OpenAIChatCompletionsModel(
        model=say.MODEL, openai_client=AsyncOpenAI(base_url=say.BASE_URL, api_key=say.TOKEN)
    )


async def run(agent: Agent, conversation: object, **options: object) -> object:
    return await Runner.run(agent, conversation, **options)


async def run_streamed(agent: Agent, conversation: object, **options: object) -> object:
    result = Runner.run_streamed(agent, conversation, **options)
    async for _ in result.stream_events():
        pass
    return result


async def talk(agent: Agent, runner, *turns: tuple[str, str]) -> None:
    """Send each question with all that was said before."""
    history: list = []
    for question, answer in turns:
        result = await runner(agent, [*history, {"role": "user", "content": question}])
        say.equal(result.final_output, answer)
        history = result.to_input_list()


async def two_turns() -> None:
    await talk(Agent(name="Host", model=model()), run, (say.NAME, say.NICE), (say.ASK, say.KNOWN))


async def two_turns_streamed() -> None:
    await talk(Agent(name="Host", model=model()), run_streamed, (say.NAME, say.NICE), (say.ASK, say.KNOWN))


async def tool_loop() -> None:
    agent = Agent(name="Meteorologist", model=model(), tools=[weather])
    await talk(agent, run, (say.WEATHER, say.SUNNY), (say.THANKS, say.WELCOME))


async def tool_loop_streamed() -> None:
    agent = Agent(name="Meteorologist", model=model(), tools=[weather])
    await talk(agent, run_streamed, (say.WEATHER, say.SUNNY), (say.THANKS, say.WELCOME))


async def structured() -> None:
    agent = Agent(name="Geographer", model=model(), output_type=City)
    say.equal((await run(agent, say.WARMEST)).final_output, City(name="Rome", degrees=21))


async def files() -> None:
    content = [
        {"type": "input_text", "text": say.LOOK},
        {"type": "input_image", "image_url": f"data:image/png;base64,{say.PICTURE}", "detail": "auto"},
        {"type": "input_file", "file_data": f"data:application/pdf;base64,{say.DOCUMENT}", "filename": "a.pdf"},
    ]
    agent = Agent(name="Viewer", model=model())
    say.equal((await run(agent, [{"role": "user", "content": content}])).final_output, say.SEEN)


async def conversation() -> None:
    agent = Agent(name="Host", model=model())
    settings = ModelSettings(extra_body={"conversation_id": say.conversation()})
    config = RunConfig(model_settings=settings)
    say.equal((await run(agent, say.NAME, run_config=config)).final_output, say.NICE)
    say.equal((await run_streamed(agent, say.ASK, run_config=config)).final_output, say.KNOWN)


async def conversation_with_tools() -> None:
    agent = Agent(name="Meteorologist", model=model(), tools=[weather])
    config = RunConfig(model_settings=ModelSettings(extra_body={"conversation_id": say.conversation()}))
    say.equal((await run(agent, say.WEATHER, run_config=config)).final_output, say.SUNNY)
    say.equal((await run_streamed(agent, say.THANKS, run_config=config)).final_output, say.WELCOME)


async def complete(text: str, *, token: str = say.TOKEN, model: str = say.MODEL) -> None:
    async with AsyncOpenAI(base_url=say.BASE_URL, api_key=token, max_retries=0) as client:
        await run(Agent(name="Host", model=OpenAIChatCompletionsModel(model, client)), text)


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
