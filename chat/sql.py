"""Statements that take many rows at once, in the dialects of SQLite and PostgreSQL.

The rows come as one JSON parameter, which both databases read as a table. So a statement has one text for one row and
for a hundred, and costs PostgreSQL one round trip.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import orjson
from django.db import OperationalError, connection
from django.db.models.functions import Now

T = TypeVar("T")
Row = Mapping[str, Any]
Found = list[tuple[Any, ...]]

# What the dialects call differently. An instant that is `seconds` from now is written as {later}.
DIALECT = {
    "sqlite": {
        "greatest": "max",
        "least": "min",
        # Seconds since 1970, of days since 4714 BC: before version 3.42 nothing else has milliseconds.
        "epoch": "((julianday('now') - 2440587.5) * 86400.0)",
        "later": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {now}, '{seconds:+} seconds')",
        "json": "text",
        "false": "0",
        "utc": "",
        # Bytes of a text: {octets}(CAST(… AS {raw})). Before version 3.43 there is no octet_length.
        "octets": "length",
        "raw": "blob",
    },
    "postgresql": {
        "greatest": "greatest",
        "least": "least",
        "epoch": "extract(epoch FROM statement_timestamp())::float8",
        "later": "({now} + interval '{seconds} seconds')",
        "json": "jsonb",
        "false": "false",
        "utc": "AT TIME ZONE 'UTC'",
        "octets": "octet_length",
        "raw": "text",
    },
}
# Bytes that the text of a message takes.
MESSAGE_BYTES = "({octets}(CAST(messages.content AS {raw})) + COALESCE({octets}(CAST(messages.extra AS {raw})), 0))"
# Condition of a partial index. Both databases match it only if the query repeats it literally.
IS_LARGE = f"{MESSAGE_BYTES} > 16384"


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement, and the columns of the rows that it takes, with PostgreSQL's types.

    In its text `{new}` stands for the rows, as a table of that name, `{now}` for the database's clock, and each name of
    `instants` for a time so far from now.
    """

    name: str
    text: str
    columns: Mapping[str, str]
    instants: Mapping[str, timedelta] = field(default_factory=dict)

    def sql(self, vendor: str, now: str) -> str:
        """Write it for a database: with one parameter in Python's format style, which is JSON."""
        dialect = DIALECT[vendor]
        seconds = {name: round(span.total_seconds()) for name, span in self.instants.items()}
        later = {name: dialect["later"].format(now=now, seconds=number) for name, number in seconds.items()}
        return self.text.format(new=self._rows(vendor), now=now, **dialect, **later)

    def _rows(self, vendor: str) -> str:
        if vendor == "postgresql":
            columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
            return f"json_to_recordset(%s) AS new ({columns})"
        values = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in self.columns)
        return f"(SELECT {values} FROM json_each(%s)) AS new"  # noqa: S608 names of our own


Step = tuple[Statement, Sequence[Row]]


class Session(Protocol):
    """Where statements run: inside one transaction of its owner."""

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        """Run each statement with its rows, and return what each has found. One without rows is left out.

        `is_last`: nothing that is found can change what follows, which is the commit.
        """


class DjangoSession:
    """Runs statements on Django's connection of this thread."""

    def run(self, *steps: Step, is_last: bool = False) -> list[Found]:
        found: list[Found] = []
        with connection.cursor() as cursor:
            for statement, rows in steps:
                if rows:
                    cursor.execute(written(statement, connection.vendor, clock()), [dumped(rows)])
                found.append(cursor.fetchall() if rows and cursor.description else [])
        return found


@lru_cache(maxsize=200)
def written(statement: Statement, vendor: str, now: str) -> str:
    return statement.sql(vendor, now)


def clock() -> str:
    """Return what Django writes for the time of the database's clock."""
    sql, _ = getattr(Now(), f"as_{connection.vendor}")(None, connection)
    return str(sql)


# PostgreSQL ended the transaction because it and another waited for each other, or wrote the same.
ENDED_FOR_ANOTHER = {"40P01", "40001"}
MAX_TRIES = 3


def retry_deadlocks(transact: Callable[[], T]) -> T:
    """Run a whole transaction, and again where the database has ended it for the sake of another."""
    for _ in range(MAX_TRIES - 1):
        try:
            return transact()
        except OperationalError as exc:
            if connection.in_atomic_block or getattr(exc.__cause__, "sqlstate", None) not in ENDED_FOR_ANOTHER:
                raise
    return transact()


def dumped(rows: Sequence[Row]) -> str:
    return orjson.dumps(rows).decode()
