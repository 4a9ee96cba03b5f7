"""The tokens that a provider says it sold, from wherever it says so, and never less than it said."""

from collections.abc import Iterator
from typing import Any

from analytics.ledger import LlmTokens

# Names of one figure, by provider: OpenAI's first.
PROMPT = ("prompt_tokens", "input_tokens")
COMPLETION = ("completion_tokens", "output_tokens")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
CACHE_WRITE = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
# Anthropic counts these beside the prompt.
OUTSIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
# No prompt and no reply is so long. All sums of such figures fit the columns of the ledger.
MOST_TOKENS = 500_000_000
DETAILS = ("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details")


class UsageFigures:
    """The figures of one reply. Some providers repeat them with each chunk, some say zero first or null last: of each
    figure the highest that was said counts."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}  # the last usage object with a figure, as it was said
        self._highest: dict[str, int] = {}

    def add(self, frame: dict[str, Any]) -> None:
        """Take what a chunk or a whole answer says of usage."""
        for usage in objects(frame):
            found = [*usage.items(), *(item for part in DETAILS for item in items(usage.get(part)))]
            figures = [(name, number) for name, value in found if (number := whole(value)) is not None]
            if any(number for _, number in figures):
                self.body = usage
            for name, number in figures:
                self._highest[name] = max(number, self._highest.get(name, 0))

    @property
    def is_known(self) -> bool:
        """Tell whether the provider has said that it sold anything."""
        return any(self._highest.values())

    def tokens(self, *, prompt: int, completion: int) -> LlmTokens:
        """Return the figures; where one is missing or a zero that cannot be, the estimate given, marked as one."""
        said_prompt, said_completion = self._first(PROMPT), self._first(COMPLETION)
        total = self._highest.get("total_tokens", 0)
        outside = sum(self._highest.get(name, 0) for name in OUTSIDE)
        if outside and total == said_prompt + said_completion + outside:
            said_prompt += outside
        # Google says thoughts in the total alone, xAI its reasoning.
        said_completion = max(said_completion, total - said_prompt if said_prompt else 0)
        if not said_prompt or (not said_completion and completion):
            said_prompt, said_completion = said_prompt or prompt, said_completion or completion
            return LlmTokens(
                said_prompt, said_completion, total=max(total, said_prompt + said_completion), is_estimated=True
            )
        cached = min(self._first(CACHED), said_prompt)
        return LlmTokens(
            prompt=said_prompt,
            completion=said_completion,
            total=max(total, said_prompt + said_completion),
            cached=cached,
            cache_write=min(self._first(CACHE_WRITE), said_prompt - cached),
            reasoning=min(self._highest.get("reasoning_tokens", 0), said_completion),
        )

    def _first(self, names: tuple[str, ...]) -> int:
        return next((self._highest[name] for name in names if self._highest.get(name)), 0)


def objects(frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the usage objects of a frame: OpenAI's, Groq's, and Moonshot's, which is inside the choice."""
    choices = frame.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    for holder in (frame, frame.get("x_groq"), choice):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            yield holder["usage"]


def items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, dict) else ()


def whole(value: Any) -> int | None:
    """Return a figure that can be, which some providers send as a float or as text; else None."""
    if isinstance(value, str) and len(value) < 20 and value.isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None
