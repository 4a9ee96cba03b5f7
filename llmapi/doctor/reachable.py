"""Whether the database, its replica and the model's provider answer."""

from collections.abc import Iterator
from datetime import timedelta

from django.db import Error, connection
from django.utils import timezone

from analytics import replica
from analytics.causes import cause
from chat.upstream import contact
from llmapi import health
from llmapi.doctor.findings import Finding

# A replica that is further behind shows figures of another day.
MAX_LAG = timedelta(minutes=5)


def database_version() -> str:
    if connection.vendor == "sqlite":
        from sqlite3 import sqlite_version

        return f"SQLite {sqlite_version}"
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return f"PostgreSQL {cursor.fetchone()[0].split()[0]}"


def examine_database() -> Iterator[Finding]:
    try:
        version = database_version()
        missing = health.missing_migrations()
    except Error as exc:
        hint = "Check DATABASE_URL, and that its server runs and lets this machine in."
        yield Finding("database", f"it cannot be read ({cause(exc)})", hint)
        return
    if missing:
        yield Finding("database", f"it lacks migrations ({health.describe(missing)})", "Run manage.py migrate.")
        return
    try:
        health.check_written()
    except Error as exc:
        hint = "Free its disk, or name the primary in DATABASE_URL."
        yield Finding("database", f"it cannot be written ({cause(exc)})", hint)
        return
    yield Finding("database", f"{version} can be read and written, and has all migrations")


def examine_replica() -> Iterator[Finding]:
    try:
        lag = timezone.now() - replica.replayed_to()
    except Error as exc:
        hint = "Check REPLICA_DATABASE_URL, or unset it: dashboards and /metrics read the primary then."
        yield Finding("replica", f"it cannot be read ({cause(exc)})", hint)
        return
    if lag > MAX_LAG:
        yield Finding("replica", f"it is {lag.total_seconds() / 60:.0f} minutes behind", "Check its replication.")
        return
    yield Finding("replica", "it can be read")


def examine_provider() -> Iterator[Finding]:
    is_well = contact.ask()
    hint = "" if is_well else "Check OPENAI_BASE_URL, OPENAI_API_KEY, and that this machine may connect to it."
    yield Finding("model's provider", f"it {contact.words()}", hint)
