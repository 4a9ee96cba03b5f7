"""Load a made-up past into an empty database: all of it, or nothing if it is interrupted."""

import random
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date
from multiprocessing import get_context

import django
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from analytics.models import AnalyticsEvent, UsageEvent
from bench import past
from chat.models import ClientToken, Conversation, Message

# Called with what is being done, and how many turns are written.
Progress = Callable[[str, int], None]

LEDGERS = ("usage_events", "analytics_events")
CONVERSATIONS_KEPT = 200_000
CONVERSATIONS_WITH_MESSAGES = 20_000
PROCESSES = 2


class NotEmpty(Exception):
    """The database is not empty: its rows might be real."""


def check_empty() -> None:
    for model in (UsageEvent, AnalyticsEvent, Conversation):
        if model.objects.exists():
            raise NotEmpty(f"{model._meta.db_table} has rows; made-up history goes into an empty database alone.")


def load(*, turns: int, days: int, until: date, seed: int = 1, progress: Progress = lambda *_: None) -> None:
    check_empty()
    with transaction.atomic(), connection.cursor() as cursor:
        enlarge_memory(cursor)
        clients = [create_client(name).pk for name in past.CLIENTS]
        with without_indexes(cursor, lambda what: progress(what, turns)):
            conversations = write_days(cursor, past.Past(turns, days, until, clients, seed), progress)
        progress("conversations", turns)
        # Without statistics PostgreSQL reads the whole ledger for each batch of messages.
        cursor.execute("ANALYZE usage_events")
        put(cursor, "conversations", past.CONVERSATIONS, list(conversations))
        write_messages([row[0] for row in conversations][-CONVERSATIONS_WITH_MESSAGES:], seed)
    progress("statistics", turns)
    with connection.cursor() as cursor:
        # Autovacuum does this in a year of service.
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def create_client(name: str) -> ClientToken:
    """Make a client token that nobody can use: its digest is random, so the seed does not tell the token."""
    return ClientToken.objects.create(name=name, prefix="llm_-----", digest=secrets.token_hex(32))


def enlarge_memory(cursor: CursorWrapper) -> None:
    """Give the database memory to sort the indexes of 10 M rows in."""
    cursor.execute(
        "PRAGMA cache_size = -500000" if connection.vendor == "sqlite" else "SET LOCAL maintenance_work_mem = '512MB'"
    )


def write_days(cursor: CursorWrapper, made_up: past.Past, progress: Progress) -> deque[past.Row]:
    """Write the ledgers, and return the newest conversations."""
    conversations: deque[past.Row] = deque(maxlen=CONVERSATIONS_KEPT)
    written = 0
    for day in days_ahead(made_up):
        put(cursor, "usage_events", past.USAGE, day.usage)
        put(cursor, "analytics_events", past.EVENTS, day.events)
        conversations.extend(day.conversations)
        written += len(day.usage)
        progress("turns", written)
    return conversations


def days_ahead(made_up: past.Past) -> Iterator[past.Day]:
    """Yield the days in order. Other processes make them up while the database takes in the days before."""
    # Not forked: a child would share the database connection.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), initializer=django.setup) as pool:
        ahead: deque[Future[past.Day]] = deque()
        for arguments in made_up.plan():
            ahead.append(pool.submit(past.make_day, *arguments))
            if len(ahead) > 2 * PROCESSES:
                yield ahead.popleft().result()
        yield from (day.result() for day in ahead)


def put(cursor: CursorWrapper, table: str, columns: Sequence[str], rows: list[past.Row]) -> None:
    names = ", ".join(columns)
    if connection.vendor == "sqlite":
        marks = ", ".join(["%s"] * len(columns))
        cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608
        return
    line = "\t".join(["%s"] * len(columns)) + "\n"
    # PostgreSQL reads Python's True and False, and can be told what stands for NULL.
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN (NULL 'None')") as copy:
        copy.write("".join([line % row for row in rows]))


@contextmanager
def without_indexes(cursor: CursorWrapper, progress: Callable[[str], None]) -> Iterator[None]:
    """Drop the secondary indexes while the block runs, and build each from all rows afterwards."""
    indexes = [index for table in LEDGERS for index in secondary_indexes(cursor, table)]
    for _, drop, _ in indexes:
        cursor.execute(drop)
    yield
    for name, _, create in indexes:
        progress(f"index {name}")
        cursor.execute(create)


def secondary_indexes(cursor: CursorWrapper, table: str) -> list[tuple[str, str, str]]:
    """Return the indexes that can be dropped, with the statements that drop and create each."""
    if connection.vendor == "sqlite":
        cursor.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = %s AND sql > ''", [table]
        )
        return [(name, f'DROP INDEX "{name}"', sql) for name, sql in cursor.fetchall()]
    cursor.execute(
        """
        SELECT relname, conname IS NOT NULL, coalesce(pg_get_constraintdef(c.oid), pg_get_indexdef(indexrelid))
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid LEFT JOIN pg_constraint c ON conindid = indexrelid
        WHERE indrelid = %s::regclass AND NOT indisprimary ORDER BY relname
        """,
        [table],
    )
    return [
        (name, f'ALTER TABLE {table} DROP CONSTRAINT "{name}"', f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {sql}')
        if is_constraint
        else (name, f'DROP INDEX "{name}"', sql)
        for name, is_constraint, sql in cursor.fetchall()
    ]


def write_messages(conversation_ids: list[str], seed: int) -> None:
    """Write the messages of the completed turns of these conversations."""
    dice = random.Random(f"{seed} messages")  # noqa: S311
    for start in range(0, len(conversation_ids), 500):
        of_these = UsageEvent.objects.filter(conversation_id__in=conversation_ids[start : start + 500])
        completed = of_these.filter(status=UsageEvent.Status.COMPLETED).order_by("id")
        Message.objects.bulk_create(
            Message(conversation_id=turn.conversation_id, request_id=turn.request_id, created_at=at, **said)
            for turn in completed.only("conversation_id", "request_id", "finished_at")
            if (at := turn.finished_at)
            for said in past.exchange(dice)
        )
