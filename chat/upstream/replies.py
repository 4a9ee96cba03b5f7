"""A model's reply, made well-formed while it comes: one choice, whole characters, calls with names, known endings.

The same reading serves a stream's chunks and a whole answer, which is one chunk whose delta is the message.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from analytics.ledger import LlmTokens
from chat.estimates import estimate_message
from chat.upstream import errors
from chat.upstream.shapes import (
    FAILED,
    calls_of,
    choices_of,
    logprobs_of,
    meaning_of,
    parts_of,
    time_of,
    unreadable,
)
from chat.upstream.text import TextJoiner, storable, storable_text
from chat.upstream.tool_calls import ToolCalls
from chat.upstream.usage import UsageFigures
from chat.upstream.words import Heard, texts_in

# Names of a reply's reasoning, which providers send beside its content.
REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
# Fields of a message that are passed on as they are: lists grow with each chunk.
LISTS = ("reasoning_details", "annotations", "images")
# Fields of a chunk that are passed on: words, and values of any kind.
WORDS = ("service_tier", "system_fingerprint")
EXTRAS = ("moderation", "citations", "search_results")
# Of a word: each chunk repeats those of its head.
MAX_WORD = 100


@dataclass(frozen=True)
class Call:
    """One request to the upstream: `body` as it is sent, and the size of its prompt as it was estimated.

    `asked` are the names of the parameters that the client itself has sent. The messages from `first_new` on are the
    client's new ones.
    """

    request_id: str
    body: dict[str, Any]
    prompt_tokens: int
    asked: frozenset[str] = frozenset()
    first_new: int = 0
    heard: Heard = field(default_factory=Heard, compare=False)

    def note_error(self, problem: errors.Problem, reply: Iterable[str] = ()) -> None:
        """Note a failure for the log, without what was asked, and what has come of the `reply`."""
        self.heard.note_error(problem.code, problem.message, [*texts_in(self.body), *reply])


@dataclass(frozen=True)
class Completion:
    """OpenAI's `chat.completion` object with its one message, and the tokens that it took."""

    body: dict[str, Any]
    message: dict[str, Any]
    model: str
    tokens: LlmTokens

    @property
    def is_cut_to_nothing(self) -> bool:
        """Tell whether the model has used up its tokens, by thinking, before it said anything."""
        says = any(self.message.get(name) for name in ("content", "refusal", "tool_calls"))
        return not says and self.body["choices"][0]["finish_reason"] == "length"

    @property
    def service_tier(self) -> str:
        """The tier that served it, which sets its price; empty where the answer names none."""
        tier = self.body.get("service_tier")
        return tier[:20] if isinstance(tier, str) else ""


@dataclass
class Reply:
    """One reply, as far as it has come."""

    call: Call
    finish_reason: str | None = None
    has_choice: bool = False
    extras: dict[str, Any] = field(default_factory=dict)
    usage: UsageFigures = field(default_factory=UsageFigures)
    _model: str = ""
    _created: int = 0
    _position: Any = None  # the provider's index of the choice that is read
    _texts: dict[str, list[str]] = field(default_factory=dict)
    _joiners: dict[str, TextJoiner] = field(default_factory=dict)
    _more: dict[str, Any] = field(default_factory=dict)
    _logprobs: dict[str, list[Any]] = field(default_factory=dict)
    _calls: ToolCalls = field(default_factory=ToolCalls)

    @property
    def is_sold(self) -> bool:
        """Tell whether anything of the reply has come, or the provider has said that it sold anything."""
        return self.has_text or self.usage.is_known

    def bought(self) -> "Completion | None":
        """Return what has been bought of a reply that failed."""
        return self.completion() if self.is_sold else None

    @property
    def has_text(self) -> bool:
        """Tell whether anything of the reply can be read."""
        return any(self._texts.values()) or bool(self._calls)

    def add(self, frame: Any) -> Iterator[dict[str, Any]]:
        """Take one value of the upstream's stream, and yield OpenAI's `choice` of a chunk where it adds to the reply.

        Values that say nothing are signs of life, and passed over. Raises ApiError for a failure that is reported
        inside of the stream, and UpstreamError for a chunk that has something which cannot be read.
        """
        if isinstance(frame, dict):
            self._note(frame)
        if problem := errors.find(frame):
            raise self._failed(problem)
        if not isinstance(frame, dict):
            return
        if choice := self._choice_of(choices_of(frame)):
            yield from self._add_choice(choice)

    def _choice_of(self, choices: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the one choice that was asked for. Some providers leave its index out, and some count blocks of
        content by it: then it is the only one of its chunk."""
        if choices and not self.has_choice:
            self.has_choice, self._position = True, choices[0].get("index")
        same = [choice for choice in choices if choice.get("index") == self._position]
        return next(iter(same or choices[:1]), None)

    def finish(self) -> Iterator[dict[str, Any]]:
        """Yield what is left to pass on when the upstream has ended, but for the last chunk with the finish reason.

        Raises UpstreamError where there was no reply at all.
        """
        if not self.has_choice:
            raise unreadable("it holds no reply")
        delta: dict[str, Any] = {}
        for name, joiner in self._joiners.items():
            if rest := joiner.flush():
                self._texts[name].append(rest)
                delta[name] = rest
        if pieces := self._calls.finish():
            delta["tool_calls"] = pieces
        if delta:
            yield choice_of(delta)
        if self._calls and self.finish_reason in {None, "stop"}:
            self.finish_reason = "tool_calls"
        self.finish_reason = self.finish_reason or "stop"

    def completion(self) -> Completion:
        """Return what has come so far. Its tokens are an estimate unless the upstream has named them."""
        message = self._message()
        likely = estimate_message(message).likely if self.has_text else 0
        tokens = self.usage.tokens(prompt=self.call.prompt_tokens, completion=likely)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs or None,
            "finish_reason": self.finish_reason or "stop",
        }
        body = {**self.head(), "choices": [choice], "usage": storable(self.usage.body)}
        return Completion(body, message, self.model, tokens)

    @property
    def model(self) -> str:
        return self._model or str(self.call.body["model"])

    def head(self) -> dict[str, Any]:
        """Return what all chunks of the reply and its completion share."""
        self._created = self._created or int(time.time())
        return {"created": self._created, "model": self.model, **self.extras}

    def _message(self) -> dict[str, Any]:
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        content = texts.pop("content", "") or (None if self._calls or texts.get("refusal") else "")
        message = {"role": "assistant", "content": content, "refusal": None, **texts, **self._more}
        if self._calls:
            message["tool_calls"] = self._calls.bodies()
        return message

    def _failed(self, problem: errors.Problem) -> Exception:
        self.call.note_error(problem, texts_in(self._message()))
        return errors.told(problem, is_billed=self.is_sold)

    def _note(self, frame: dict[str, Any]) -> None:
        """Take what a frame says beside its choices."""
        self.usage.add(frame)
        if not self._model and isinstance(frame.get("model"), str):
            self._model = storable_text(frame["model"][:MAX_WORD])
        self._created = self._created or time_of(frame.get("created"))
        for name in WORDS:
            if (word := frame.get(name)) and isinstance(word, str):
                self.extras[name] = storable_text(word[:MAX_WORD])
        for name in EXTRAS:
            if value := storable(frame.get(name)):
                self.extras[name] = value

    def _add_choice(self, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
        delta, logprobs = self._delta(choice), logprobs_of(choice.get("logprobs"))
        for name, entries in logprobs.items():
            self._logprobs.setdefault(name, []).extend(entries)
        if delta or logprobs:
            yield choice_of(delta, logprobs or None)
        reason = meaning_of(choice.get("finish_reason"))
        error = choice.get("error") if isinstance(choice.get("error"), dict) else None
        if problem := errors.find({"error": error}) if error else None:
            raise self._failed(problem)
        if reason == FAILED:
            word = str(choice["finish_reason"])
            raise self._failed(errors.read({"message": f"finish_reason {word}", "code": word}, 200))
        self.finish_reason = reason or self.finish_reason

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Make OpenAI's delta of a choice, of what it adds to the reply."""
        given = self._given(choice)
        content, thinking = parts_of(given.get("content"))
        reasoning = next((given[name] for name in REASONING if isinstance(given.get(name), str) and given[name]), "")
        refusal = given.get("refusal")
        texts = {
            "reasoning_content": reasoning or thinking,
            "content": content,
            "refusal": refusal if isinstance(refusal, str) else "",
        }
        delta: dict[str, Any] = {name: text for name, piece in texts.items() if (text := self._text(name, piece))}
        for name in LISTS:
            if isinstance(given.get(name), list) and given[name]:
                delta[name] = storable(given[name])
                self._more.setdefault(name, []).extend(delta[name])
        if given.get("extra_content"):
            delta["extra_content"] = self._more["extra_content"] = storable(given["extra_content"])
        if pieces := self._calls.add(calls_of(given)):
            delta["tool_calls"] = pieces
        return delta

    def _given(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return what a choice adds: its delta; a whole message or legacy text, unless it repeats what has come."""
        given = choice.get("delta")
        if not isinstance(given, dict | None):
            raise unreadable("its delta is none")
        if given:
            return given
        whole = choice.get("message") or {"content": choice.get("text")}
        if not isinstance(whole, dict):
            raise unreadable("its message is none")
        text, _ = parts_of(whole.get("content"))
        is_repeated = self.has_text and (not text or self._has_said(text))
        return {} if is_repeated else whole

    def _has_said(self, text: str) -> bool:
        said = self._texts.get("content", [])
        return len(text) == sum(map(len, said)) and text == "".join(said)

    def _text(self, name: str, piece: str) -> str:
        if not piece:
            return ""
        text = self._joiners.setdefault(name, TextJoiner()).add(piece)
        self._texts.setdefault(name, []).append(text)
        return text


def choice_of(delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None) -> dict[str, Any]:
    """Make OpenAI's `choice` of a chunk."""
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
