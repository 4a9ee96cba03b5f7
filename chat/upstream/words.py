"""What the log says of a provider's answer: its status, its id of the request, and its error words.

A provider's words may quote what it was sent, whole or in pieces, and the key. So a word that the request or the reply
has, too, is left out, unless it is one that providers use to say what is wrong.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

SECRET = re.compile(r"\b(sk|pk|gsk|xai|key|AIza|Bearer)[-_ ]?[\w*.-]{8,}", re.I)
# Of a provider's message, as far as it is passed on.
MAX_WORDS = 500
# Characters of a request that the words are compared with. Of a longer one nothing is told: to look would take long.
MAX_COMPARED = 256 * 1024
# A longer word is no word: it is a piece of a file, a token or a URL.
MAX_WORD = 40
# One or two letters or digits of ASCII tell nothing; one sign of Chinese may be a word.
WORD = re.compile(r"[^\W_]{3,}|[^\W_a-zA-Z0-9]{1,2}")
ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\[nrtbf]")
ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
# Fields of a body that hold no text of a user, and parts that are files.
TECHNICAL = frozenset({"model", "role", "type", "service_tier", "reasoning_effort", "stream_options", "tool_choice"})
FILES = frozenset({"url", "data", "file_data", "image_url"})
VOCABULARY = """
    the and are not was were has have had been for with from this that your you our can cannot could may must should
    will please try again later too many more than least most only one two all any but its use used using
    error errors invalid incorrect unknown unsupported supported missing required expected unexpected failed failure
    request requests response message messages content role user assistant system developer tool tools call calls
    function functions name names type types value values field fields parameter parameters argument arguments schema
    format model models token tokens context length window maximum minimum limit limits exceeded exceeds large long
    rate quota billing account organization project key api authentication permission access denied forbidden found
    exist exists does server service internal unavailable overloaded overload busy capacity timeout timed out
    status code reason details contact help image images file files audio input output prompt completion stream
    resulted reduce policy filter filtered safety blocked
"""
USUAL = frozenset(VOCABULARY.split())


@dataclass
class Heard:
    """What the provider has answered to a call so far. It is written by the thread that makes the call."""

    status: int | None = None
    request_id: str = ""
    code: str = ""
    words: str = ""

    def note(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        found = headers.get("x-request-id") or headers.get("request-id") or headers.get("apim-request-id") or ""
        self.request_id = found if ID.fullmatch(found) else ""

    def note_error(self, code: str, words: str, said: Iterable[str]) -> None:
        """Note an error, without what `said` holds: the texts of the request and of the reply."""
        known = list(said)
        self.code = without_known(code, known)
        self.words = without_known(words, known)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the line that tells how the turn ended."""
        return {
            "upstream_status": self.status,
            "upstream_request_id": self.request_id,
            "upstream_code": self.code,
            "upstream_error": self.words,
        }


def without_known(words: str, texts: list[str]) -> str:
    """Leave those words out that are in the texts, too. A run of them becomes one mark."""
    if sum(map(len, texts)) > MAX_COMPARED:
        return "[not compared with the prompt, which is long]" if words else ""
    known = "\n".join([*texts, settings.OPENAI_API_KEY]).casefold()
    # An escape would hide the word that follows it.
    plain = ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", without_secrets(words))

    def leave_out(found: re.Match[str]) -> str:
        word = found[0].casefold()
        is_told = word in USUAL or (word not in known and len(word) <= MAX_WORD)
        return found[0] if is_told else "\0"

    return re.sub(r"\0(?:[^\w\0]{0,3}\w{0,2}[^\w\0]{0,3}\0)*", "[…]", WORD.sub(leave_out, plain.replace("\0", " ")))


def texts_in(value: Any, name: str = "") -> Iterator[str]:
    """Yield the texts of a JSON value: what a user wrote, and the names that a user gave."""
    if isinstance(value, str):
        if name not in FILES or not value.startswith("data:"):
            yield value
    elif isinstance(value, dict):
        for inner_name, inner in value.items():
            if inner_name not in TECHNICAL:
                yield from (text for text in (inner_name,) if name == "properties")
                yield from texts_in(inner, inner_name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner, name)


def without_secrets(message: str) -> str:
    if settings.OPENAI_API_KEY:
        message = message.replace(settings.OPENAI_API_KEY, "[key]")
    return SECRET.sub("[key]", message)[:MAX_WORDS]
