"""What the scripts of Python clients share: they print {"scenario": "works" or what went wrong} as their last line."""

import asyncio
import inspect
import json
import os
import urllib.request
from collections.abc import Callable

BASE_URL = os.environ["BASE_URL"]
TOKEN = os.environ["TOKEN"]
MODEL = os.environ["MODEL"]

NAME = "My name is Ann."
NICE = "Nice to meet you, Ann."
ASK = "What is my name?"
KNOWN = "Your name is Ann."
WEATHER = "What is the weather in Oslo and Rome?"
SUNNY = "It is sunny in Oslo and sunny in Rome."
THANKS = "Thank you!"
WELCOME = "You are welcome."
WARMEST = "Which of them is warmest?"
LOOK = "What do you see?"
SEEN = "A picture and a document."
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
DOCUMENT = "JVBERi0xLjQKJSVFT0YK"
TOO_LONG = "This is too long."
BUSY = "Is your provider busy?"
WRONG_TOKEN = "wrong"
UNKNOWN_MODEL = "unknown"


def conversation() -> str:
    """Create a conversation of llmapi, for clients that have no call for it."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{BASE_URL}/conversations", b"{}", headers)
    with urllib.request.urlopen(request) as answer:
        conversation_id: str = json.load(answer)["id"]
        return conversation_id


def equal(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{got!r} instead of {wanted!r}")


def run(scenario: Callable[[], object]) -> Exception | None:
    try:
        result = scenario()
        if inspect.iscoroutine(result):
            asyncio.run(result)
    except Exception as exc:
        return exc
    return None


def report(scenarios: dict[str, Callable[[], object]], complete: Callable[..., object]) -> None:
    """Run them all, and what is to fail: `complete(text, token=…, model=…)` asks for one reply.

    Of a failure the name of the error is what counts.
    """
    failures = {
        "a wrong token": lambda: complete(NAME, token=WRONG_TOKEN),
        "an unknown model": lambda: complete(NAME, model=UNKNOWN_MODEL),
        "a prompt too long": lambda: complete(TOO_LONG),
        "the provider's limit": lambda: complete(BUSY),
    }
    outcomes = {}
    for name, scenario in scenarios.items():
        error = run(scenario)
        outcomes[name] = f"{type(error).__name__}: {error}" if error else "works"
    for name, failure in failures.items():
        error = run(failure)
        outcomes[name] = type(error).__name__ if error else "no error"
    print(json.dumps(outcomes))
