"""Conversations: the list, and a page with the messages of one, what each reply took, and the turns without a reply.

Messages and turns are two tables. Each is read by key in the order of its rows, and the two are merged by time. So a
place in the thread is a pair of keys: the first message and the first turn beyond it.
"""

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce, Length, Substr
from django.http import HttpRequest

from analytics.formatting import format_exact, usd
from analytics.ledger.sums import FIGURES
from analytics.metrics.sources import Usage
from analytics.metrics.usage import COSTS, STATUSES, TOKENS
from analytics.models import UsageEvent
from chat import audit
from chat.models import Conversation, Message
from llmapi.staff.base import ReadOnlyAdmin
from llmapi.staff.lists.filters import ClientFilter, DayFilter, UserFilter
from llmapi.staff.lists.keyset import Key
from llmapi.staff.lists.links import RowLinks
from llmapi.staff.totals import Totals, label_usage

PAGE_SIZE = 50
# Turns that are added up: what a page does must not grow with a conversation.
MAX_TURNS = 1_000
# Characters of a message that a thread shows, and that the page of one message shows.
MAX_CHARACTERS, ALL_CHARACTERS = 10_000, 2**31 - 1
PLACE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")
MAX_KEY = 10**18 - 1
Status = UsageEvent.Status


@admin.register(Conversation)
class ConversationAdmin(RowLinks, ReadOnlyAdmin):
    change_form_template = "admin/chat/conversation/change_form.html"
    list_display = ["conversation_id", "created_at", "client", "user", "updated_at"]
    list_filter = [DayFilter, ClientFilter, UserFilter]
    list_keys = [Key("conversation_id", by_time=False), Key("user_id"), Key("client_token_id"), Key()]
    search_columns = {"c_": "conversation_id", "": "user_id"}
    search_help_text = "Search for a conversation (c_…) or a user, by the exact id."
    fields = ["conversation_id", "client", "user", "metadata", "created_at", "updated_at"]
    private = ["metadata"]
    export_columns = ["conversation_id", "client_token_id", "user_id", "created_at", "updated_at", "metadata"]

    class Media:
        css = {"all": ["llmapi/conversation.css"]}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        # This writes the audit record. The thread is read only after it.
        response = super().render_change_form(request, context, **kwargs)
        response.context_data["thread"] = read_thread(kwargs["obj"], request.GET, audit.may_read(request.user))
        return response


@dataclass(frozen=True)
class Place:
    message: int
    turn: int

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        found = PLACE.fullmatch(text)
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.message}.{self.turn}"


OLDEST, NEWEST = Place(0, 0), Place(MAX_KEY, MAX_KEY)


@dataclass
class Entry:
    """A message, with its turn if it is a reply; or a turn without a reply."""

    at: datetime
    message: Any = None
    turn: UsageEvent | None = None

    @property
    def is_cut(self) -> bool:
        return bool(max(self.message.characters, self.message.extra_characters) > MAX_CHARACTERS)

    @property
    def size(self) -> str:
        """Describe a message to staff who may not read its text."""
        more = self.message.extra_characters
        return f"{self.message.characters:,} characters" + (f", and {more:,} beside the text" if more else "")

    @property
    def cost(self) -> str:
        return format_exact(usd(self.turn.cost_nanos if self.turn else None), "usd")


@dataclass(frozen=True)
class Thread:
    entries: list[Entry]
    with_texts: bool
    totals: Totals | None = None
    newer: Place | None = None
    older: Place | None = None
    # Whether this is one message, shown in full.
    is_whole: bool = False


def read_thread(conversation: Conversation, query: Mapping[str, str], with_texts: bool) -> Thread:
    """Read one page of a conversation: the newest, one beside a place, or one message in full."""
    if query.get("whole", "").isdecimal():
        found = messages_of(conversation, with_texts, ALL_CHARACTERS).filter(pk=int(query["whole"][:18]))
        entries = [Entry(message.created_at, message) for message in found]
        add_replies(entries)
        return Thread(entries, with_texts, is_whole=True)
    newer = "after" in query
    # A place that cannot be parsed stands for the newest page.
    place = Place.parse(query.get("after" if newer else "before", ""))
    newer = newer and place is not None
    entries, end, has_more = read_page(conversation, place or NEWEST, newer=newer, with_texts=with_texts)
    add_replies(entries)
    onward, back = end if has_more else None, place if place != OLDEST else None
    totals = thread_totals(conversation)
    if newer:
        return Thread(entries, with_texts, totals, newer=onward, older=back)
    return Thread(entries[::-1], with_texts, totals, newer=back, older=onward)


def thread_totals(conversation: Conversation) -> Totals:
    """Add up the newest turns of a conversation."""
    newest = turns_of(conversation).order_by("-pk")[:MAX_TURNS]
    sums = newest.aggregate(**{f"sum_{name}": FIGURES[name] for name in [*STATUSES, *TOKENS, *COSTS]})
    row = Usage(**{name.removeprefix("sum_"): value for name, value in sums.items()})
    note = f"Totals of the newest {MAX_TURNS:,} turns only." if row.pending + row.ended == MAX_TURNS else ""
    return Totals(label_usage(row), note)


def turns_of(conversation: Conversation) -> QuerySet[UsageEvent]:
    return UsageEvent.objects.filter(conversation_id=conversation.pk)


def messages_of(conversation: Conversation, with_texts: bool, max_characters: int) -> Any:
    """Select messages with the length of their texts, and with the texts only for staff who may read them."""
    extra = Coalesce(Cast("extra", TextField()), Value(""))
    rows = Message.objects.filter(conversation=conversation).defer("content", "extra")
    rows = rows.annotate(characters=Length("content"), extra_characters=Length(extra))
    if not with_texts:
        return rows
    return rows.annotate(text=Substr("content", 1, max_characters), extra_text=Substr(extra, 1, max_characters))


def read_page(
    conversation: Conversation, place: Place, *, newer: bool, with_texts: bool
) -> tuple[list[Entry], Place, bool]:
    """Return the entries of one page in reading order, the place where it ends, and whether there may be more."""
    side, order, step = ("gte", "pk", 1) if newer else ("lt", "-pk", 0)
    messages = messages_of(conversation, with_texts, MAX_CHARACTERS).filter(**{f"pk__{side}": place.message})
    turns = list(turns_of(conversation).filter(**{f"pk__{side}": place.turn}).order_by(order)[: 2 * PAGE_SIZE])
    heads = heapq.merge(
        [Entry(message.created_at, message) for message in messages.order_by(order)[: PAGE_SIZE + 1]],
        [Entry(turn.created_at, turn=turn) for turn in turns],
        key=attrgetter("at"),
        reverse=not newer,
    )
    found: list[Entry] = []
    # Of turns there may be more than were read. Of messages, one more than fits on a page is read.
    has_more = is_cut = len(turns) == 2 * PAGE_SIZE
    message, turn = place.message, place.turn
    for head in heads:
        # A completed turn is no entry of its own: its reply is among the messages.
        is_reply = head.turn is not None and head.turn.status == Status.COMPLETED
        if len(found) == PAGE_SIZE and not is_reply:
            has_more = True
            break
        if head.turn is None:
            message = head.message.pk + step
        else:
            turn = head.turn.pk + step
        if not is_reply:
            found.append(head)
        if is_cut and head.turn is turns[-1]:
            break
    return found, Place(message, turn), has_more


def add_replies(entries: list[Entry]) -> None:
    """Set the turn of each reply. The reply of a turn is the last message that it wrote."""
    messages = sorted((entry for entry in entries if entry.message), key=lambda entry: entry.message.pk)
    replies = {entry.message.request_id: entry for entry in messages if entry.message.role == Message.Role.ASSISTANT}
    for turn in UsageEvent.objects.filter(request_id__in=[request_id for request_id in replies if request_id]):
        replies[turn.request_id].turn = turn
