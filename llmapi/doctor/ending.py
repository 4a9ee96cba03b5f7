"""What will soon end, or be full."""

import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import django
from django.conf import settings
from django.db import connection
from django.db.models import F
from django.utils import timezone
from rich.filesize import decimal

from analytics.ledger import partitions
from analytics.reports.csv import printable
from chat.limits.status import describe_used
from chat.models import Budget, ClientToken
from llmapi.doctor.findings import NOTICE, Finding
from llmapi.env_file import ROOT

# Of one kind, so many are named.
MAX_NAMED = 5
# The share of a budget, and of a disk, that is nearly all.
NEARLY = 0.9
# The last day with security fixes, as their makers have announced it.
SUPPORTED_TO = {
    ("Python", "3.11"): date(2027, 10, 31),
    ("Python", "3.12"): date(2028, 10, 31),
    ("Python", "3.13"): date(2029, 10, 31),
    ("Python", "3.14"): date(2030, 10, 31),
    ("Django", "5.2"): date(2028, 4, 30),
    ("Django", "6.0"): date(2027, 4, 30),
    ("PostgreSQL", "13"): date(2025, 11, 13),
    ("PostgreSQL", "14"): date(2026, 11, 12),
    ("PostgreSQL", "15"): date(2027, 11, 11),
    ("PostgreSQL", "16"): date(2028, 11, 9),
    ("PostgreSQL", "17"): date(2029, 11, 8),
    ("PostgreSQL", "18"): date(2030, 11, 14),
}


def examine_versions() -> Iterator[Finding]:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    yield from unsupported({"Python": python, "Django": django.__version__.rpartition(".")[0]})


def examine_database_version() -> Iterator[Finding]:
    if connection.vendor == "postgresql":
        major = connection.pg_version // 10000  # type: ignore[attr-defined]
        yield from unsupported({"PostgreSQL": str(major)})


def unsupported(versions: dict[str, str]) -> Iterator[Finding]:
    for name, version in versions.items():
        last = SUPPORTED_TO.get((name, version))
        if last and last - timezone.now().date() < NOTICE:
            yield Finding(f"{name} {version}", f"it gets security fixes until {last}", f"Install a later {name}.")


def examine_tokens() -> Iterator[Finding]:
    now = timezone.now()
    ending = ClientToken.objects.filter(is_active=True, expires_at__range=(now, now + NOTICE)).order_by("expires_at")
    for client in ending[:MAX_NAMED]:
        hint = f"Give {printable(client.name)} a new one in the admin, or a later end."
        yield Finding(f"client token {printable(client.name)}", f"it ends on {client.expires_at:%Y-%m-%d}", hint)


def examine_budgets() -> Iterator[Finding]:
    """Find budgets of this day and month that are nearly used. The count of turns at once is none."""
    full = Budget.objects.filter(resets_at__gt=timezone.now(), used__gte=NEARLY * F("most")).order_by("-used")
    for budget in full.select_related("client_token")[:MAX_NAMED]:
        who = printable(budget.client_token.name) + (f", user {printable(budget.user_id)}" if budget.user_id else "")
        used = describe_used(budget.unit, budget.used, budget.most)
        hint = f"Raise it in the admin, or let it refuse turns until {budget.resets_at:%Y-%m-%d}."
        yield Finding(f"budget of {who}", f"{used} are used for {budget.period}", hint)


def examine_disk() -> Iterator[Finding]:
    places = {"this folder": ROOT}
    if connection.vendor == "sqlite":
        places["the database"] = Path(str(settings.DATABASES["default"]["NAME"])).parent
    for what, folder in places.items():
        disk = shutil.disk_usage(folder)
        if disk.used >= NEARLY * (disk.used + disk.free):
            why = f"{decimal(disk.free)} of {decimal(disk.total)} are free"
            yield Finding(f"disk of {what}", why, "Free some, or move to a larger one: a full disk refuses all turns.")


def examine_partitions() -> Iterator[Finding]:
    next_month = partitions.first_of_month(timezone.now().date(), 1)
    for table in partitions.TABLES:
        names = partitions.partitions(table)
        if names and not partitions.has_month(table, next_month, names):
            hint = "Start the server, which adds months, or run manage.py partition_ledger."
            yield Finding(f"partitions of {table}", "next month is missing, and turns would fail then", hint)
