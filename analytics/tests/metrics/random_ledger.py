"""Random ledgers: some weeks of users with several clients, models and versions, up to an instant of their own.

Users cross midnight, come back after a month or never; their turns end late, or not at all; their clients tell of
events hours later. The same story can be written at once, as the rows that it leaves, or live, as the server does it.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import time_machine

from analytics import ledger
from analytics.ledger import Event, LlmTokens, Status, Subject
from analytics.models import AnalyticsEvent, Refusals, UsageEvent

DAYS = 35
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
MODELS = ["gpt-4o", "gpt-4o-mini", "local"]
# Of events that an app was opened, in whose place somebody signs in for the first time.
SIGN_UPS = 0.2
VERSIONS = ["1.0", "1.1", "2.0", ""]
# Later than `at`: at once, within a session, at its very end, and just after it.
GAPS = [timedelta(0), 9.7 * MINUTE, 30 * MINUTE, 30 * MINUTE + timedelta(microseconds=1)]

# What somebody does with one client, model and version.
Who = dict[str, Any]


@dataclass
class Turn:
    """A turn, and how it ends: "superseded" is abandoned, and "late" is completed after it was given up."""

    request_id: str
    who: Who
    opened: datetime
    closed: datetime
    outcome: str
    latency_ms: int
    first_token_ms: int | None
    tokens: LlmTokens
    cost_nanos: int | None

    @property
    def row(self) -> UsageEvent:
        """The row while the turn is pending."""
        lease = self.opened + MINUTE
        return UsageEvent(request_id=self.request_id, **self.who, created_at=self.opened, locked_until=lease)

    def rows(self, now: datetime) -> Iterator[UsageEvent | AnalyticsEvent]:
        """Yield what the turn has left in both tables."""
        row = self.row
        yield row
        if self.outcome == "pending" or self.closed > now:
            return
        row.status = {"superseded": "abandoned", "late": "completed"}.get(self.outcome, self.outcome)
        row.error_code = "" if row.status == "completed" else self.outcome
        row.finished_at = self.closed
        if self.outcome != "abandoned":
            row.latency_ms, row.cost_nanos = self.latency_ms, self.cost_nanos
            row.prompt_tokens, row.cached_tokens = self.tokens.prompt, self.tokens.cached
            row.completion_tokens, row.reasoning_tokens = self.tokens.completion, self.tokens.reasoning
            row.total_tokens = self.tokens.total
        if row.status == "completed":
            row.first_token_ms = self.first_token_ms
            yield AnalyticsEvent(event_name="chat.completed", **self.who, created_at=self.closed)
        if self.outcome == "failed":
            yield AnalyticsEvent(event_name="chat.failed", **self.who, created_at=self.closed)
        if self.outcome in ("abandoned", "late"):
            yield AnalyticsEvent(event_name="chat.abandoned", **self.who, created_at=self.opened)

    def close(self) -> None:
        """Settle the row now, through the write side of the ledger."""
        status = {"superseded": Status.ABANDONED, "failed": Status.FAILED}.get(self.outcome, Status.COMPLETED)
        if self.outcome in ("abandoned", "late"):
            assert ledger.abandon([self.request_id])
        if self.outcome != "abandoned":
            ending = ledger.Ending(
                Subject(self.request_id, **self.who),
                status,
                self.latency_ms,
                code="" if status == Status.COMPLETED else self.outcome,
                tokens=self.tokens,
                served_model=self.who["model"],
                first_token_ms=self.first_token_ms if status == Status.COMPLETED else None,
            )
            assert ledger.close_usage(ending) is not None


@dataclass
class Story:
    """All that happens before `now`; events and refusals with the instant at which the server hears of them."""

    rng: random.Random
    now: datetime
    turns: list[Turn] = field(default_factory=list)
    events: list[tuple[datetime, AnalyticsEvent]] = field(default_factory=list)
    refused: list[tuple[datetime, int, str]] = field(default_factory=list)

    @classmethod
    def tell(cls, seed: int, now: datetime) -> "Story":
        story = cls(seeded(seed), now)
        rng = story.rng
        clients = list(range(1, rng.choice([3, 3, 25]) + 1))
        models = rng.choice([MODELS, MODELS[:2]])
        launches = [0, *rng.sample(range(DAYS + 1), 4)]
        for number in range(rng.choice([10, 25])):
            of_user = rng.sample(clients, rng.choice([1, 2]))
            first, presence = rng.choice(launches), rng.choice([0.03, 0.15, 0.4])
            for day in range(DAYS + 1):
                is_back = rng.random() < (0.5 if day - first in (1, 7, 30) else presence)
                if day == first or (day > first and is_back):
                    story.sit(f"u{number:02}", of_user, models, story.first_day + day * DAY)
        # Who asks every half an hour for days has one session.
        at = story.first_day + rng.randrange(DAYS) * DAY
        for _ in range(rng.randrange(60, 110)):
            at += 30 * MINUTE
            story.step("robot", clients[:1], models[:1], at)
        for _ in range(30):
            at = now - rng.random() * DAYS * DAY
            story.refused.append((at, rng.choice(clients), rng.choice(["rate_limit_exceeded", "budget_exceeded"])))
        return story

    @property
    def first_day(self) -> datetime:
        return datetime(self.now.year, self.now.month, self.now.day, tzinfo=UTC) - DAYS * DAY

    def sit(self, user: str, clients: list[int], models: list[str], day: datetime) -> None:
        """Let the user do a few things one after the other, often around midnight."""
        start = self.rng.choice([self.rng.randrange(24 * 60), self.rng.choice([0, 23 * 60 + 30, 23 * 60 + 58])])
        at = day + start * MINUTE
        for _ in range(self.rng.choice([1, 2, 4])):
            self.step(user, clients, models, at)
            at += self.rng.choice(GAPS)

    def step(self, user: str, clients: list[int], models: list[str], at: datetime) -> None:
        rng = self.rng
        if at >= self.now:
            return
        # A new version every two weeks comes to some at once, and to others late.
        newest = VERSIONS[(at - self.first_day).days // 14 % 3]
        who = {
            "user_id": user,
            "client_token_id": rng.choice(clients),
            "model": rng.choices(models, [10, 5, 1][: len(models)])[0],
            "app_version": rng.choice([newest, newest, rng.choice(VERSIONS)]),
        }
        known = [turn for turn in self.turns if turn.who["user_id"] == user and is_answered(turn, at)]
        kind = rng.choices(["turn", "opened", "said", "replayed"], [14, 2, 3, 2])[0]
        if kind == "opened" and rng.random() < SIGN_UPS:
            about = {**who, "model": "", "app_version": ""}
            self.events.append((at, AnalyticsEvent(event_name="person.signed_up", **about, created_at=at)))
        elif kind == "opened":
            self.client_tells("opened", {**who, "model": ""}, at)
        elif kind == "said" and known:
            self.client_tells(rng.choice(["thumbs_up", "thumbs_down", "regenerated"]), rng.choice(known).who, at)
        elif kind == "replayed" and known:
            turn = rng.choice(known)
            about = {**turn.who, "model": "", "app_version": who["app_version"]}
            metadata = {"original_request_id": turn.request_id}
            replay = AnalyticsEvent(event_name="chat.replayed", **about, metadata_json=metadata, created_at=at)
            self.events.append((at, replay))
        else:
            self.turns.append(self.random_turn(who, at))

    def client_tells(self, name: str, who: Who, at: datetime) -> None:
        """Let a client tell of something, sometimes hours later."""
        told_at = min(self.now, at + self.rng.choice([0, 0, 0.99]) * self.rng.random() * DAY)
        event_id = f"e{len(self.events)}"
        event = AnalyticsEvent(event_name=f"client.{name}", **who, client_event_id=event_id, created_at=at)
        self.events.append((told_at, event))

    def random_turn(self, who: Who, at: datetime) -> Turn:
        rng = self.rng
        outcomes = ["completed", "failed", "abandoned", "superseded", "late", "pending"]
        outcome = rng.choices(outcomes, [40, 4, 2, 2, 2, 1])[0]
        # Short ones, halves of three digits, and what takes minutes or hours.
        latencies = [rng.randrange(1000), rng.randrange(100_000), 1005, 1015, 99_950, rng.randrange(900_000)]
        latency_ms = rng.choice(latencies if outcome == "completed" else [*latencies, 4_000_000, 70_000_000])
        prompt, completion = rng.randrange(5000), rng.randrange(1000)
        cached, reasoning = rng.randrange(prompt + 1), rng.randrange(completion + 1)
        tokens = LlmTokens(prompt, completion, prompt + completion, cached, reasoning)
        has_sold = rng.random() < (0.97 if outcome == "completed" else 0.5)
        return Turn(
            request_id=f"r{len(self.turns)}",
            who=who,
            opened=at,
            closed=at + timedelta(milliseconds=latency_ms),
            outcome=outcome,
            latency_ms=latency_ms,
            first_token_ms=rng.choice([None, rng.randrange(latency_ms + 1)]),
            tokens=tokens if has_sold else LlmTokens(),
            cost_nanos=None if who["model"] == "local" else rng.choice([150, 2500]) * tokens.total,
        )


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def is_answered(turn: Turn, at: datetime) -> bool:
    """Whether the answer can be given again, or judged: it is kept for a day."""
    return turn.outcome == "completed" and turn.closed < at < turn.opened + DAY


def write(story: Story, end: datetime) -> None:
    """Write the rows of all that has happened up to `end`, as they are then."""
    rows = [row for turn in story.turns if turn.opened <= end for row in turn.rows(end)]
    rows += [event for told_at, event in story.events if told_at <= end]
    UsageEvent.objects.bulk_create([row for row in rows if isinstance(row, UsageEvent)])
    AnalyticsEvent.objects.bulk_create([row for row in rows if isinstance(row, AnalyticsEvent)])
    for at, client, code in story.refused:
        if at <= end:
            refused, _ = Refusals.objects.get_or_create(day=at.date(), client_token_id=client, code=code)
            Refusals.objects.filter(pk=refused.pk).update(count=refused.count + 1)


def live(story: Story, start: datetime, end: datetime, clock: time_machine.Traveller) -> None:
    """Do what happens after `start` and up to `end` one after the other, each at its time, as the server does."""
    happens: list[tuple[datetime, Callable[[], Any]]] = []
    for turn in story.turns:
        happens.append((turn.opened, turn.row.save))
        if turn.outcome != "pending":
            happens.append((turn.closed, turn.close))
    for told_at, event in story.events:
        happens.append((told_at, partial(tell, event, told_at - event.created_at)))
    for at, client, code in story.refused:
        happens.append((at, partial(ledger.count_refusal, client, code)))
    for at, do in sorted(happens, key=lambda one: one[0]):
        if start < at <= end:
            clock.move_to(at)
            do()
    clock.move_to(end)
    ledger.flush_refusals()


def tell(event: AnalyticsEvent, age: timedelta) -> None:
    """Store an event through the write side of the ledger: a client's, or a replay."""
    subject = Subject("", event.client_token_id, event.user_id, app_version=event.app_version, model=event.model)
    if event.client_event_id:
        told = Event(event.event_name, subject, event.client_event_id, age)
        ledger.record_client_events(event.client_token_id, [told])
    else:
        ledger.record_event(event.event_name, subject, event.metadata_json)
