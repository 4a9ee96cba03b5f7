"""The clients of the rehearsal: OpenAI's own SDK with its own retries, each message under an Idempotency-Key."""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import openai

from bench.rehearsal.proxy import HOST, Proxy
from bench.talkers import Received
from llmapi import defaults

# Turns of one conversation, and how often a client sends a message again after the SDK has given up.
TURNS = 15
TRIES = 10


class Broken(Exception):
    """A stream ended before the reply did."""


@dataclass
class Turn:
    conversation_id: str
    key: str
    is_stream: bool
    step: str = ""
    began: float = field(default_factory=time.time)  # Unix time
    seconds: float = 0
    sdk_retries: int = 0
    failures: list[str] = field(default_factory=list)  # what the client was told after the SDK's retries
    received: Received | None = None


@dataclass
class Clients:
    """Everybody who talks, the step that is under way, and the token that all of them have now."""

    proxy: Proxy
    token: str
    step: str = ""
    turns: list[Turn] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def talking(self, count: int) -> Iterator[None]:
        """Let clients talk until the block ends, and then until each has its last reply."""
        with ThreadPoolExecutor(count) as pool:
            works: list[Future[None]] = [pool.submit(self.talk, number) for number in range(count)]
            try:
                yield
            finally:
                self.stopped.set()
            for work in works:
                work.result()

    def answered(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.received]

    def talk(self, number: int) -> None:
        sdk = connect(self.proxy.url, self.token, self.proxy.certificate)
        conversation_id, dice = "", random.Random(number)  # noqa: S311
        for count in itertools.count():
            if self.stopped.is_set():
                break
            sdk.api_key = self.token
            if count % TURNS == 0:
                conversation_id = ""  # the turn begins one
            turn = Turn(conversation_id, f"client {number} turn {count}", dice.random() < 0.5, self.step)
            self.turns.append(turn)
            persist(sdk, turn)
            conversation_id = turn.conversation_id


def connect(url: str, token: str, certificate: str = "") -> openai.OpenAI:
    """Return the SDK with its own timeouts and number of retries. The name of the host is in no DNS."""
    http = openai.DefaultHttpxClient(verify=certificate or True)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=token, http_client=http, default_headers={"Host": HOST})


def persist(sdk: openai.OpenAI, turn: Turn) -> None:
    """Send a message under its key until it is answered."""
    for _ in range(TRIES):
        try:
            turn.received = ask(sdk, turn)
            break
        except (openai.OpenAIError, httpx.HTTPError, Broken) as exc:
            turn.failures.append(f"{type(exc).__name__}: {exc}"[:200])
            time.sleep(0.5)
    turn.seconds = time.time() - turn.began


def ask(sdk: openai.OpenAI, turn: Turn) -> Received:
    turn.conversation_id = turn.conversation_id or sdk.conversations.create().id
    with sdk.chat.completions.with_streaming_response.create(
        model=defaults.OPENAI_MODEL,
        messages=[{"role": "user", "content": turn.key}],
        stream=turn.is_stream,
        extra_headers={"Idempotency-Key": turn.key},
        extra_body={"conversation_id": turn.conversation_id},
    ) as answer:
        turn.sdk_retries += answer.retries_taken
        parsed = answer.parse()
        if isinstance(parsed, openai.Stream):
            return read(parsed, turn)
        return Received(turn.conversation_id, turn.key, parsed.id, parsed.choices[0].message.content or "")


def read(stream: openai.Stream[openai.types.chat.ChatCompletionChunk], turn: Turn) -> Received:
    text, request_id, reason = "", "", None
    for chunk in stream:
        request_id = chunk.id
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    if not reason:
        raise Broken("The stream ended before the reply did.")
    return Received(turn.conversation_id, turn.key, request_id, text)
