"""Partitions of the ledger by month, on PostgreSQL, where `manage.py partition_ledger` has made them.

The table that was there is the first partition, named `…_before_YYYY_MM`; months named `…_YYYY_MM` follow it. An id is
unique in its partition only, because PostgreSQL's unique indexes must name the column that rows are parted by.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

TABLES = ("usage_events", "analytics_events")
# Months that are made ahead. A turn without a month would fail.
AHEAD = 3
# Turns wait while a table is locked, and so do they behind a lock that is waited for.
LOCK = "SET LOCAL lock_timeout = '2s'"
PARTITIONS = """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = to_regclass(%s) ORDER BY inhrelid
"""
# One table: it is renamed, and becomes the first partition of a new one. Its sequence goes on, and the new table's
# indexes have the names that migrations know. The first partition's own indexes are attached, not built.
CONVERT = """
DO $$
DECLARE
    parent text := '{table}';
    first text := '{first}';
    newest bigint;
    index record;
BEGIN
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', parent, first);
    EXECUTE format('SELECT coalesce(max(id), 0) FROM %I', first) INTO newest;
    EXECUTE format('ALTER TABLE %I ALTER id DROP IDENTITY', first);
    EXECUTE format('CREATE SEQUENCE %I START %s', parent || '_id_seq', newest + 1);
    EXECUTE format('ALTER TABLE %I ALTER id SET DEFAULT nextval(%L)', first, parent || '_id_seq');
    EXECUTE format(
        'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (created_at)',
        parent, first
    );
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', parent, parent || '_is_before');
    EXECUTE format('ALTER SEQUENCE %I OWNED BY %I.id', parent || '_id_seq', parent);
    FOR index IN
        SELECT relname, pg_get_indexdef(indexrelid) AS definition FROM pg_index JOIN pg_class ON oid = indexrelid
        WHERE indrelid = first::regclass AND NOT indisunique
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', index.relname, left(index.relname, 55) || '_before');
        EXECUTE regexp_replace(index.definition, ' ON (\\S+)\\.\\S+ ', format(' ON \\1.%I ', parent));
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', parent, first, '{bound}');
END $$
"""


def partitions(table: str) -> list[str]:
    """Return the partitions of a table in the order in which they were made; none where it is not partitioned."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(PARTITIONS, [table])
        return [name for (name,) in cursor.fetchall()]


def is_partitioned() -> bool:
    return bool(partitions(TABLES[0]))


def partition(now: datetime) -> None:
    """Convert both tables. They are read once, while others write; then each is locked for some milliseconds.

    Raises OperationalError where the lock is not there in two seconds: then it may be called again.
    """
    bound = first_of_month((now + timedelta(days=2)).astimezone(UTC).date(), 1)
    with connection.cursor() as cursor:
        for table in TABLES:
            add_bound(cursor, table, bound)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK)
        for table in TABLES:
            first = f"{table}_before_{bound:%Y_%m}"
            cursor.execute(CONVERT.format(table=table, first=first, bound=instant(bound)))
        add_months(now)


def add_bound(cursor: CursorWrapper, table: str, bound: date) -> None:
    """Let the table say what it holds, so that it can be attached without being read under a lock."""
    name = f"{table}_is_before"
    with transaction.atomic():
        cursor.execute(LOCK)
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK (created_at < '{instant(bound)}') NOT VALID")
    cursor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def add_months(now: datetime, since: date | None = None) -> int:
    """Add the months that are missing, from that of `since`, or from this one, to AHEAD. Returns how many."""
    added = 0
    today = now.astimezone(UTC).date()
    with transaction.atomic(), connection.cursor() as cursor:
        for table in TABLES:
            siblings = partitions(table)
            for month in months(since or today, first_of_month(today, AHEAD)) if siblings else ():
                if has_month(table, month, siblings):
                    continue
                name = f"{table}_{month:%Y_%m}"
                # With the unique indexes of its sibling: the parent has none.
                cursor.execute(f"CREATE TABLE {name} (LIKE {siblings[-1]} INCLUDING ALL)")
                cursor.execute(f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {table}_is_before")
                limits = f"FROM ('{instant(month)}') TO ('{instant(first_of_month(month, 1))}')"
                cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {limits}")
                added += 1
    return added


def has_month(table: str, month: date, names: list[str]) -> bool:
    """Tell whether one of the table's partitions, of these names, takes the rows of a month."""
    return f"{table}_{month:%Y_%m}" in names or any(name > f"{table}_before_{month:%Y_%m}" for name in befores(names))


def month_of(table: str, day: date) -> str | None:
    """Return the partition that is the month of a day; None where the day's rows are in no such."""
    name = f"{table}_{day:%Y_%m}"
    return name if name in partitions(table) else None


def drop(name: str) -> int:
    """Drop a partition, and return how many rows it had. Raises OperationalError where it is not free for a lock."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(LOCK)
        cursor.execute(f"SELECT count(*) FROM {name}")  # noqa: S608 (a name that the database gave)
        (rows,) = cursor.fetchone()
        cursor.execute(f"DROP TABLE {name}")
    return int(rows)


def befores(names: list[str]) -> list[str]:
    return [name for name in names if "_before_" in name]


def months(first: date, last: date) -> Iterator[date]:
    """Yield the first day of each month from that of `first` to that of `last`."""
    month = first.replace(day=1)
    while month <= last:
        yield month
        month = first_of_month(month, 1)


def first_of_month(day: date, after: int) -> date:
    """Return the first day of the month that is so many months after that of `day`."""
    years, month = divmod(day.month - 1 + after, 12)
    return date(day.year + years, month + 1, 1)


def instant(day: date) -> str:
    return f"{day.isoformat()} 00:00:00+00"
