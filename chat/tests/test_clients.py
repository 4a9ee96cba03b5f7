"""Client libraries that applications use, unmodified, each in its own environment, against a real server.

`make test-clients` installs and runs them; docs/sdks.md shows what comes of it.

To renew one, install its newest release in an empty environment, and write what `pip freeze` says into its
requirements.txt, the client itself first. In JavaScript, run `npm install --package-lock-only --save-exact NAME@latest`
in its folder.
"""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from bench.openai_double import Behaviour, OpenAIDouble
from conftest import Server
from llmapi.launch import ROOT

FOLDER = ROOT / "chat" / "tests" / "clients"
SCENARIOS = (
    "two turns",
    "two turns, streamed",
    "tool loop",
    "tool loop, streamed",
    "structured output",
    "structured output by a tool",
    "a picture and a PDF",
    "conversation",
    "conversation, tool loop",
)
FAILURES = ("a wrong token", "an unknown model", "a prompt too long", "the provider's limit")


@dataclass(frozen=True)
class ClientLibrary:
    folder: str
    name: str
    package: str
    arguments: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version that the client's folder pins: of requirements.txt the first."""
        folder = FOLDER / self.folder
        if (folder / "package.json").exists():
            version: str = json.loads((folder / "package.json").read_text())["dependencies"][self.package]
            return version
        return (folder / "requirements.txt").read_text().splitlines()[0].partition("==")[2]

    @property
    def command(self) -> list[str]:
        environment = ROOT / ".venv-clients" / self.folder
        assert (environment / "installed").exists(), f"{self.folder} is not installed; run make test-clients"
        if (FOLDER / self.folder / "run.py").exists():
            return [str(environment / "bin" / "python"), "run.py", *self.arguments]
        return [str(ROOT / ".venv" / "bin" / "node"), "run.mjs", *self.arguments]

    def run(self, server: Server) -> dict[str, str]:
        """Return what came of each scenario: "works", or what went wrong."""
        env = {
            **os.environ,
            "PYTHONPATH": str(FOLDER),
            "BASE_URL": f"{server.url}/v1",
            "TOKEN": server.token,
            "MODEL": "gpt-4o-mini",
        }
        result = subprocess.run(
            self.command, cwd=FOLDER / self.folder, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, f"{self.folder}: {result.stderr}"
        outcomes: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
        return outcomes


CLIENTS = (
    ClientLibrary("openai-python", "OpenAI, Python", "openai"),
    ClientLibrary("openai-javascript", "OpenAI, JavaScript", "openai"),
    ClientLibrary("langchain-python", "LangChain, Python", "langchain-openai"),
    ClientLibrary("langchain-javascript", "LangChain, JavaScript", "@langchain/openai"),
    ClientLibrary("ai-sdk", "AI SDK", "@ai-sdk/openai", ("openai",)),
    ClientLibrary("ai-sdk", "AI SDK", "@ai-sdk/openai-compatible", ("openai-compatible",)),
    ClientLibrary("pydantic-ai", "Pydantic AI", "pydantic-ai-slim"),
    ClientLibrary("openai-agents", "OpenAI Agents, Python", "openai-agents"),
    ClientLibrary("litellm", "LiteLLM", "litellm"),
)


TOO_LONG = {
    "message": "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 "
    "tokens. Please reduce the length of the messages.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}
BUSY = {
    "message": "Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3, Requested 1.",
    "type": "requests",
    "param": None,
    "code": "rate_limit_exceeded",
}


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def reply(content: str | None, **fields: Any) -> Behaviour:
    """A reply in the shape that OpenAI gives it."""
    return Behaviour(message={"role": "assistant", "content": content, "refusal": None, "annotations": [], **fields})


def call(name: str, *arguments: dict[str, Any]) -> Behaviour:
    """A reply that calls a tool, once for each arguments."""
    calls = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(each)}}
        for index, each in enumerate(arguments)
    ]
    return reply(None, tool_calls=calls)


def has_files(message: dict[str, Any]) -> bool:
    """Whether the parts after the text are a picture and a document, as OpenAI documents them."""
    _, picture, document = message["content"]
    url, file = picture["image_url"]["url"], document["file"]
    starts = url.startswith("data:image/png;base64,") and file["file_data"].startswith("data:application/pdf;base64,")
    return bool(starts and file["filename"])


def play(body: dict[str, Any]) -> Behaviour:
    """Answer as the model of every scenario: from what is said in the messages, and from nothing else."""
    messages = body["messages"]
    said = [(message["role"], text_of(message)) for message in messages]
    role, text = said[-1]
    city = {"name": "Rome", "degrees": 21}
    tools = [tool["function"]["name"] for tool in body.get("tools", [])]
    if role == "tool" and tools == ["weather"]:
        asked = max(index for index, (role, _) in enumerate(said) if role == "user")
        results = [text for role, text in said[asked:] if role == "tool"]
        return reply(f"It is {' and '.join(results)}.")
    if body.get("response_format", {}).get("type") == "json_schema":
        return reply(json.dumps(city))
    if text.startswith("What is the weather"):
        return call("weather", {"city": "Oslo"}, {"city": "Rome"})
    if text.startswith("Which of them"):
        return call(tools[0], city)
    if text == "What is my name?":
        told = said[-3:-1] == [("user", "My name is Ann."), ("assistant", "Nice to meet you, Ann.")]
        return reply("Your name is Ann." if told else f"You have not told me: {messages}")
    if text == "This is too long.":
        return Behaviour(status=400, error=TOO_LONG)
    if text == "Is your provider busy?":
        return Behaviour(status=429, error=BUSY, headers={"Retry-After": "20"})
    if text == "What do you see?":
        return reply("A picture and a document." if has_files(messages[-1]) else f"I see {messages[-1]}")
    if text == "Thank you!":
        return reply("You are welcome.")
    return reply("Nice to meet you, Ann.")


def table(outcomes: dict[ClientLibrary, dict[str, str]], columns: tuple[str, ...]) -> str:
    rows = []
    for client, each in outcomes.items():
        cells = [each.get(column, "–") for column in columns]
        rows.append(f"| {client.name}: {client.package} {client.version} | {' | '.join(cells)} |")
    return "\n".join(rows)


@pytest.mark.clients
def test_what_works_is_what_the_page_says(server: Server, upstream: OpenAIDouble) -> None:
    upstream.choose = play

    with ThreadPoolExecutor(4) as pool:
        outcomes = dict(zip(CLIENTS, pool.map(lambda client: client.run(server), CLIENTS), strict=True))

    page = (ROOT / "docs" / "sdks.md").read_text()
    works, fails = table(outcomes, SCENARIOS), table(outcomes, FAILURES)
    missing = [each for each in (works, fails) if each not in page]
    assert not missing, "\n\n".join(missing)
