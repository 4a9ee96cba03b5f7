"""A made-up year of a chat product: who came, what they asked, and what it cost. The same seed makes the same year.

Users arrive, come back at a pace of their own, and leave; the turns of a day follow from who is there. Quantities
are drawn from tables of their quantiles, which is several times as fast as drawing from the distributions.
"""

import random
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import accumulate
from math import exp
from operator import itemgetter
from statistics import NormalDist
from typing import Any, TypeVar

from analytics.ledger.prices import cost_nanos

T = TypeVar("T")
Row = tuple[Any, ...]

USAGE = (
    *("request_id", "client_token_id", "user_id", "conversation_id", "model", "app_version", "served_model"),
    *(
        "status",
        "error_code",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "total_tokens",
        "is_estimated",
    ),
    *("cost_nanos", "latency_ms", "first_token_ms", "is_stream", "is_cancel_asked", "locked_until", "reserved_json"),
    *("created_at", "finished_at"),
)
EVENTS = (
    *("event_name", "client_token_id", "user_id", "conversation_id", "request_id", "model", "app_version"),
    *("metadata_json", "created_at"),
)
CONVERSATIONS = ("conversation_id", "client_token_id", "user_id", "metadata", "created_at", "updated_at")
CLIENTS = ("Chrome extension", "Web page", "Phone app")
CLIENT_OF_USER = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2)

TURNS_PER_ACTIVE_DAY = 5.5
GROWTH = 4.0  # of arrivals, from the first day to the last
QUIET_ARRIVALS = 0.6
QUIET_REST = 0.4  # of those who would come on a quiet day, and do not
HOLIDAYS = {(12, 24), (12, 25), (12, 26), (12, 31), (1, 1)}
HOURS = (5, 4, 3, 2, 2, 3, 4, 6, 8, 10, 11, 11, 11, 13, 16, 18, 18, 17, 15, 14, 13, 11, 9, 7)  # shares, UTC
DAYS_PER_RELEASE = 24

MS, SECOND, DAY = 1_000, 1_000_000, 86_400_000_000  # in microseconds
LEASE = 45 * SECOND
TIMEOUT_MS = 300_000
CACHE_BLOCK, CACHE_LEAST, CONTEXT_MOST = 128, 1024, 16_000  # tokens

QUANTILES = [NormalDist().inv_cdf((n + 0.5) / 16_384) for n in range(16_384)]


def log_normal(median: float, spread: float) -> list[int]:
    return [round(median * exp(spread * z)) for z in QUANTILES]


MESSAGE_TOKENS = log_normal(45, 1.1)
REPLY_TOKENS = [min(tokens, 4_096) for tokens in log_normal(170, 0.85)]
REASONING_TOKENS = log_normal(450, 0.7)
FIRST_TOKEN_MS = log_normal(420, 0.45)
ERROR_MS = log_normal(900, 0.9)
PACE = log_normal(1_000, 0.25)  # thousandths of a model's usual time for a token
THINK_US = [micros * MS for micros in log_normal(35_000, 1.0)]  # between a reply and the next message
CLOCK = [f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(86_400)]
HOUR_OF_START = [hour for hour, share in enumerate(HOURS) for _ in range(share)]
TURNS_OF_SESSION = [turns for turns in range(1, 16) for _ in range(round(1_000 * 0.8**turns))]
LAG_DAYS = log_normal(4, 1.0)

COMPLETED, CANCELLED = ("completed", ""), ("completed", "cancelled")
ABANDONED = ("abandoned", "abandoned")
# Weights, of a thousand turns.
USUAL = [
    *[COMPLETED] * 958,
    *[CANCELLED] * 12,
    *[("failed", "upstream_error")] * 12,
    *[("failed", "upstream_timeout")] * 5,
    *[("failed", "cancelled")] * 6,
    *[("failed", "internal_error")] * 4,
    *[ABANDONED] * 3,
]
# What users say of replies. Most say nothing.
VERDICTS = [*[""] * 940, *["thumbs_up"] * 31, *["thumbs_down"] * 9, *["regenerated"] * 20]
# The same while the upstream is in trouble.
INCIDENT = [*[COMPLETED] * 860, *[("failed", "upstream_error")] * 110, *[("failed", "upstream_timeout")] * 30]
INCIDENT_DAYS = 0.05


@dataclass(frozen=True)
class Model:
    asked: str  # the name that clients send
    name: str  # the dated one that answers
    ms_per_token: int
    reasons: bool = False
    # Billionths of a dollar for one token.
    price: int = field(init=False)
    cached_price: int = field(init=False)
    completion_price: int = field(init=False)

    def __post_init__(self) -> None:
        for name, tokens in (("price", (1, 0, 0)), ("cached_price", (1, 1, 0)), ("completion_price", (0, 0, 1))):
            prompt, cached, completion = tokens
            nanos = cost_nanos(self.name, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
            assert nanos, f"no price is known for {self.name}"
            object.__setattr__(self, name, nanos)


MODELS = (
    Model("gpt-4o-mini", "gpt-4o-mini-2024-07-18", 11),
    Model("gpt-4o", "gpt-4o-2024-11-20", 16),
    Model("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", 10),
    # The only model that reasons. Few use it.
    Model("o4-mini", "o4-mini-2025-04-16", 8, reasons=True),
)


@dataclass(frozen=True)
class Habit:
    """How a kind of user comes back: mean days between visits, and the chance that a visit is the last."""

    pause: float
    leaves: float


# Of ten users, four come once or twice, three now and then, and three stay.
HABITS = (*[Habit(2, 0.65)] * 4, *[Habit(4, 0.12)] * 3, *[Habit(1.1, 0.04)] * 3)


@dataclass(frozen=True)
class User:
    id: str
    client: int
    weight: float  # how much the user talks; a few talk very much
    lag_days: int  # until a release has reached the user


@dataclass(frozen=True)
class Session:
    user: User
    client_id: int
    conversation_id: str
    model: Model
    app_version: str
    is_stream: bool


@dataclass(frozen=True)
class Past:
    """What to make up. `clients` are the ids of three client tokens."""

    turns: int
    days: int
    until: date
    clients: Sequence[int]
    seed: int = 1

    @property
    def first(self) -> date:
        return self.until - timedelta(days=self.days - 1)

    def plan(self) -> Iterator[tuple["Past", int, list[User], int]]:
        """Yield what `make_day` takes, for each day in order. All days together have the turns that were asked for."""
        active = self.active_users()
        total, before, begun = sum(map(len, active)), 0, 0
        for number, users in enumerate(active):
            before += len(users)
            ended = round(self.turns * before / total)
            yield self, number, users, ended - begun
            begun = ended

    def active_users(self) -> list[list[User]]:
        """Return who comes on each day. Users arrive until there are enough for all turns."""
        dice = random.Random(f"{self.seed} users")  # noqa: S311
        quiet = [is_quiet(self.first + timedelta(days=number)) for number in range(self.days)]
        arrivals = [GROWTH ** (n / self.days) * (QUIET_ARRIVALS if quiet[n] else 1) for n in range(self.days)]
        shares, numbers = list(accumulate(arrivals)), range(self.days)
        active: list[list[User]] = [[] for _ in numbers]
        missing = self.turns / TURNS_PER_ACTIVE_DAY
        while missing > 0:
            user, habit = new_user(dice), dice.choice(HABITS)
            (arrival,) = dice.choices(numbers, cum_weights=shares)
            for number in visits(dice, habit, arrival, quiet):
                active[number].append(user)
                missing -= 1
        return active


def is_quiet(day: date) -> bool:
    return day.weekday() >= 5 or (day.month, day.day) in HOLIDAYS


def new_user(dice: random.Random) -> User:
    return User(
        id=f"u_{dice.getrandbits(64):016x}",
        client=dice.choice(CLIENT_OF_USER),
        weight=min(dice.paretovariate(1.2), 80),
        lag_days=dice.choice(LAG_DAYS),
    )


def visits(dice: random.Random, habit: Habit, number: int, quiet: list[bool]) -> Iterator[int]:
    """Return the days on which a user comes who arrives on day `number`."""
    while number < len(quiet):
        yield number
        if dice.random() < habit.leaves:
            return
        number += 1 + int(dice.expovariate(1 / habit.pause))
        while number < len(quiet) and quiet[number] and dice.random() < QUIET_REST:
            number += 1 + int(dice.expovariate(1 / habit.pause))


def model_shares(progress: float) -> list[float]:
    """Return the weights of MODELS after a share of the time: the new small model takes over from the old one."""
    newer = 0.6 / (1 + exp(-12 * (progress - 0.55))) if progress > 0.3 else 0.0
    reasoning = 0.03 if progress > 0.6 else 0.0
    return list(accumulate((0.86 - newer - reasoning, 0.14, newer, reasoning)))


def make_day(past: Past, number: int, users: list[User], turns: int) -> "Day":
    day = Day(past, number)
    day.fill(users, turns)
    return day


class Day:
    """The rows of one day, in the column order of USAGE, EVENTS and CONVERSATIONS."""

    def __init__(self, past: Past, number: int) -> None:
        self.number = number
        self.clients = past.clients
        self.usage: list[Row] = []
        self.events: list[Row] = []
        self.conversations: list[Row] = []
        self.dice = random.Random(f"{past.seed} day {number}")  # noqa: S311
        today = past.first + timedelta(days=number)
        # A session may run past midnight.
        self.dates = (today.isoformat(), (today + timedelta(days=1)).isoformat())
        self.model_shares = model_shares(number / past.days)
        self.trouble = self.draw_trouble()

    def draw_trouble(self) -> range:
        """Return the hours of an incident at the upstream. Few days have any."""
        if self.dice.random() > INCIDENT_DAYS:
            return range(0)
        begins = self.dice.randrange(24)
        return range(begins, begins + self.dice.randint(1, 3))

    def fill(self, users: list[User], turns: int) -> None:
        """Deal the turns out: every user who came gets one first, as far as they reach."""
        came = users[:turns]
        weights = list(accumulate(user.weight for user in came))
        more = Counter(self.dice.choices(range(len(came)), cum_weights=weights, k=turns - len(came)) if came else ())
        for number, user in enumerate(came):
            self.add_user(user, 1 + more[number])
        self.usage.sort(key=itemgetter(USAGE.index("created_at")))
        self.events.sort(key=itemgetter(EVENTS.index("created_at")))
        self.conversations.sort(key=itemgetter(CONVERSATIONS.index("created_at")))

    def add_user(self, user: User, turns: int) -> None:
        while turns > 0:
            of_session = min(turns, self.pick(TURNS_OF_SESSION))
            self.add_session(user, of_session)
            turns -= of_session

    def add_session(self, user: User, turns: int) -> None:
        random = self.dice.random
        session = Session(
            user=user,
            client_id=self.clients[user.client],
            # Some clients keep the history themselves, and have no conversation here.
            conversation_id=self.new_id("c_") if random() < 0.85 else "",
            model=MODELS[bisect(self.model_shares, random())],
            app_version=f"1.{max(0, self.number - user.lag_days) // DAYS_PER_RELEASE}.0",
            is_stream=random() < 0.85,
        )
        at = began = int((self.pick(HOUR_OF_START) + random()) * 3_600 * SECOND)
        self.add_event("client.opened", session, at - 1 - int(random() * SECOND) if at > SECOND else at)
        context, ended = 150, at
        for _ in range(turns):
            ended, context = self.add_turn(session, at, context)
            at = ended + self.pick(THINK_US)
        if session.conversation_id:
            owner = (session.conversation_id, session.client_id, user.id)
            self.conversations.append((*owner, "{}", self.stamp(began), self.stamp(ended)))

    def add_turn(self, session: Session, at: int, context: int) -> tuple[int, int]:
        """Add one turn after `context` tokens of history. Returns when it ended, and the context that it leaves."""
        request_id = self.new_id("r_")
        status, code = self.pick(INCIDENT if at // (3_600 * SECOND) in self.trouble else USUAL)
        if status == "completed":
            if not session.is_stream:
                code = ""
            return self.add_completed(session, request_id, code, at, context)
        return self.add_broken(session, request_id, status, code, at), context

    def add_completed(self, session: Session, request_id: str, code: str, at: int, context: int) -> tuple[int, int]:
        model, pick = session.model, self.pick
        prompt = context + pick(MESSAGE_TOKENS) + 4
        cached = context // CACHE_BLOCK * CACHE_BLOCK if context >= CACHE_LEAST and self.dice.random() < 0.8 else 0
        reply = pick(REPLY_TOKENS) // (2 if code else 1) + 1
        reasoning = pick(REASONING_TOKENS) if model.reasons and not code else 0
        completion = reply + reasoning
        pace = model.ms_per_token * pick(PACE)
        first = pick(FIRST_TOKEN_MS) + reasoning * pace // 1_000
        latency = first + reply * pace // 1_000
        cost = (prompt - cached) * model.price + cached * model.cached_price + completion * model.completion_price
        ended = at + latency * MS + 900
        tokens = (prompt, cached, completion, reasoning, prompt + completion)
        times = (latency, first if session.is_stream else None)
        self.add_usage(session, request_id, model.name, ("completed", code), tokens, cost, times, at, ended)
        metadata = f'{{"model": "{model.name}", "latency_ms": {latency}, "total_tokens": {prompt + completion}}}'
        self.add_event("chat.completed", session, ended, request_id, model.asked, metadata)
        if session.is_stream:
            seen = first + 40
            metadata = f'{{"ms": "{seen}"}}'
            self.add_event("client.first_token_shown", session, at + seen * MS, request_id, model.asked, metadata)
        if verdict := self.pick(VERDICTS):
            self.add_event(f"client.{verdict}", session, ended + 5 * SECOND, request_id, model.asked)
        if self.dice.random() < 0.01:
            replayed = f'{{"original_request_id": "{request_id}"}}'
            self.add_event("chat.replayed", session, ended + 2 * SECOND, self.new_id("r_"), "", replayed)
        return ended, min(prompt + reply, CONTEXT_MOST)

    def add_broken(self, session: Session, request_id: str, status: str, code: str, at: int) -> int:
        """Add a turn that failed or was abandoned: no tokens, no price."""
        latency: int | None = TIMEOUT_MS if code == "upstream_timeout" else self.pick(ERROR_MS)
        metadata = f'{{"code": "{code}", "latency_ms": {latency}}}'
        ended = at + (latency or 0) * MS + 900
        if status == "abandoned":
            latency, metadata, ended = None, "{}", at + LEASE + int(self.dice.random() * 30 * SECOND)
        self.add_usage(session, request_id, "", (status, code), (0, 0, 0, 0, 0), None, (latency, None), at, ended)
        self.add_event(f"chat.{status}", session, ended, request_id, session.model.asked, metadata)
        return ended

    def add_usage(
        self,
        session: Session,
        request_id: str,
        served: str,
        outcome: tuple[str, str],
        tokens: tuple[int, int, int, int, int],
        cost: int | None,
        times: tuple[int | None, int | None],
        at: int,
        ended: int,
    ) -> None:
        is_cancelled = outcome[1] == "cancelled"
        subject = (request_id, session.client_id, session.user.id, session.conversation_id, session.model.asked)
        # The tokens of a reply that was cancelled are an estimate.
        bought = (*tokens, is_cancelled and cost is not None, cost)
        locked_until = self.stamp(max(at + LEASE, ended))
        flags = (session.is_stream or is_cancelled, is_cancelled, locked_until, None)
        named = (session.app_version, served)
        self.usage.append((*subject, *named, *outcome, *bought, *times, *flags, self.stamp(at), self.stamp(ended)))

    def add_event(
        self, name: str, session: Session, at: int, request_id: str = "", model: str = "", metadata: str = "{}"
    ) -> None:
        conversation_id = session.conversation_id if request_id else ""
        subject = (session.client_id, session.user.id, conversation_id, request_id, model, session.app_version)
        self.events.append((name, *subject, metadata, self.stamp(at)))

    def pick(self, table: Sequence[T]) -> T:
        return table[int(self.dice.random() * len(table))]

    def new_id(self, prefix: str) -> str:
        return f"{prefix}{self.dice.getrandbits(96):024x}"

    def stamp(self, micros: int) -> str:
        """Write a time, in microseconds after midnight, as both databases read it."""
        second = micros // SECOND
        return f"{self.dates[second // 86_400]} {CLOCK[second % 86_400]}.{micros % SECOND:06d}"


SUBJECTS = ("a cover letter", "this email", "a function that sorts dates", "the quarterly report", "a lease", "a poem")
ASKS = ("Shorten {}.", "What is wrong with {}?", "Write {} for me.", "Explain {} to a beginner.", "Translate {}.")
ANSWERS = ("Here is {}, step by step.", "I would begin {} with what the reader needs.", "Three things stand out in {}.")


def exchange(dice: random.Random) -> Iterator[dict[str, str]]:
    """Return the texts of a turn, for staff who browse."""
    subject = dice.choice(SUBJECTS)
    yield {"role": "user", "content": dice.choice(ASKS).format(subject)}
    yield {"role": "assistant", "content": " ".join(dice.sample(ANSWERS, k=2)).format(subject, subject)}
