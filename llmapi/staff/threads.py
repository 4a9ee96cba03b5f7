"""A conversation as its page shows it: what was said, what each reply took, and the turns that brought none.

Messages and turns are two tables, each read by key in the order of its rows, and laid together by time. A place in
the thread is therefore a pair: the first message and the first turn that are past it.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce, Length, Substr

from analytics.metrics import sources as reading
from analytics.models import UsageEvent
from chat.models import Conversation, Message
from llmapi.staff.totals import Totals, money, of_newest

SIZE = 50
# Characters of one message.
SHOWN, EVERYTHING = 10_000, 2**31 - 1
PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
END = 10**18 - 1
Status = UsageEvent.Status


@dataclass(frozen=True)
class Place:
    message: int
    turn: int

    @classmethod
    def read(cls, text: str) -> "Place | None":
        found = PLACE.fullmatch(text)
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.message}.{self.turn}"


OLDEST, NEWEST = Place(0, 0), Place(END, END)


@dataclass
class Entry:
    """A message, with the turn it is the reply of; or a turn without a reply."""

    at: datetime
    message: Any = None
    turn: UsageEvent | None = None

    @property
    def is_cut(self) -> bool:
        return bool(max(self.message.characters, self.message.extra_characters) > SHOWN)

    @property
    def size(self) -> str:
        """What is told of a message whose text is not."""
        more = self.message.extra_characters
        return f"{self.message.characters:,} characters" + (f", and {more:,} beside the text" if more else "")

    @property
    def cost(self) -> str:
        nanos = self.turn.cost_nanos if self.turn else None
        return money(None if nanos is None else nanos / reading.NANOS_PER_DOLLAR)


@dataclass(frozen=True)
class Thread:
    entries: list[Entry]
    with_texts: bool
    totals: Totals | None = None
    newer: Place | None = None
    older: Place | None = None
    is_whole: bool = False


def thread(conversation: Conversation, asked: Mapping[str, str], with_texts: bool) -> Thread:
    """One page: the newest, one next to a place, or one message in full."""
    if asked.get("whole", "").isdecimal():
        return whole(conversation, int(asked["whole"][:18]), with_texts)
    newer = "after" in asked
    # A place that cannot be read is the newest.
    place = Place.read(asked.get("after" if newer else "before", ""))
    newer = newer and place is not None
    reading = Reading.begin(conversation, place or NEWEST, newer=newer, with_texts=with_texts)
    entries, end, has_more = reading.entries()
    add_replies(entries)
    onward, back = end if has_more else None, place if place != OLDEST else None
    totals = of_newest(turns_of(conversation).order_by("-pk"))
    if newer:
        return Thread(entries, with_texts, totals, newer=onward, older=back)
    return Thread(entries[::-1], with_texts, totals, newer=back, older=onward)


def whole(conversation: Conversation, pk: int, with_texts: bool) -> Thread:
    found = messages_of(conversation, with_texts, EVERYTHING).filter(pk=pk)
    entries = [Entry(message.created_at, message) for message in found]
    add_replies(entries)
    return Thread(entries, with_texts, is_whole=True)


def turns_of(conversation: Conversation) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(conversation_id=conversation.pk)


def messages_of(conversation: Conversation, with_texts: bool, most: int) -> Any:
    """Without permission texts are measured, and not even read."""
    extra = Coalesce(Cast("extra", TextField()), Value(""))
    rows = Message.objects.filter(conversation=conversation).defer("content", "extra")
    rows = rows.annotate(characters=Length("content"), extra_characters=Length(extra))
    return rows.annotate(text=Substr("content", 1, most), extra_text=Substr(extra, 1, most)) if with_texts else rows


@dataclass
class Reading:
    """Both tables from one place on, as far as one page can need them."""

    place: Place
    newer: bool
    messages: deque[Any]
    turns: deque[UsageEvent]
    # There may be more turns than were read; of messages there are more than a page has.
    is_cut: bool

    @classmethod
    def begin(cls, conversation: Conversation, place: Place, *, newer: bool, with_texts: bool) -> "Reading":
        past, order = ("gte", "pk") if newer else ("lt", "-pk")
        most = 2 * SIZE
        messages = messages_of(conversation, with_texts, SHOWN).filter(**{f"pk__{past}": place.message}).order_by(order)
        turns = list(turns_of(conversation).filter(**{f"pk__{past}": place.turn}).order_by(order)[:most])
        return cls(place, newer, deque(messages[: SIZE + 1]), deque(turns), len(turns) == most)

    def entries(self) -> tuple[list[Entry], Place, bool]:
        """A page of them in the order of reading, the place where it ends, and whether there are more."""
        found: list[Entry] = []
        message, turn = self.place.message, self.place.turn
        past = 1 if self.newer else 0
        while (head := self.head()) is not None:
            is_reply = head.turn is not None and head.turn.status == Status.COMPLETED
            if len(found) == SIZE and not is_reply:
                break
            if head.turn is None:
                message = self.messages.popleft().pk + past
            else:
                turn = self.turns.popleft().pk + past
            # What a completed turn has brought is among the messages.
            if not is_reply:
                found.append(head)
        return found, Place(message, turn), head is not None or self.is_cut

    def head(self) -> Entry | None:
        """What comes next; None where nothing does, or where that is not known for want of turns."""
        if not self.turns and self.is_cut:
            return None
        heads = [Entry(message.created_at, message) for message in list(self.messages)[:1]]
        heads += [Entry(turn.created_at, turn=turn) for turn in list(self.turns)[:1]]
        heads.sort(key=lambda entry: entry.at, reverse=not self.newer)
        return heads[0] if heads else None


def add_replies(entries: list[Entry]) -> None:
    """Put each turn beside the last message it has written, which is the reply."""
    said = sorted((entry for entry in entries if entry.message), key=lambda entry: entry.message.pk)
    replies = {entry.message.request_id: entry for entry in said if entry.message.role == Message.Role.ASSISTANT}
    for turn in UsageEvent.objects.filter(request_id__in=[request_id for request_id in replies if request_id]):
        replies[turn.request_id].turn = turn
