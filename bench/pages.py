"""Time the pages of the staff, and /metrics: they take as long in a large database as in a small one.

    python -m bench.pages postgres://127.0.0.1:5432/history_10k postgres://127.0.0.1:5432/history_10m

The databases are those of bench/history.py, rolled up; each is read by a process of its own, by the server's code
without a socket. A figure is the median of several readings after a first, in milliseconds; beside it, the queries.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

READINGS = 5
DAYS = (7, 30, 90, 365)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="+", metavar="DATABASE_URL")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        json.dump(read(), sys.stdout)
        return
    columns = {url: of_database(url) for url in args.databases}
    print("| page | " + " | ".join(url.rsplit("/", 1)[-1] for url in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        print(f"| {name} | " + " | ".join(str(column.get(name, "–")) for column in columns.values()) + " |")


def of_database(url: str) -> dict[str, str]:
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "x" * 50,
        "METRICS_PUBLIC": "true",
        "RATE_LIMIT_PER_MIN": "0",
    }
    command = [sys.executable, "-m", "bench.pages", "--read", url]
    found: dict[str, str] = json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)
    return found


def read() -> dict[str, str]:
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client
    from django.utils import timezone

    from analytics.rollups import schedule as rollups

    # A running server does this every minute.
    rollups.run_due(timezone.now())
    staff, _ = User.objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(staff)
    logging.disable()
    return {name: timed(client, path) for name, path in pages()}


def timed(client: Any, path: str) -> str:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        answer = client.get(path)
        count = len(queries)
    if answer.status_code != 200:
        raise SystemExit(f"{path}: {answer.status_code}")
    spent = []
    for _ in range(READINGS):
        start = time.perf_counter()
        client.get(path)
        spent.append(time.perf_counter() - start)
    return f"{statistics.median(spent) * 1000:.0f} ({count})"


def pages() -> Iterator[tuple[str, str]]:
    yield from of_metrics()
    yield from of_admin()


def of_metrics() -> Iterator[tuple[str, str]]:
    from analytics.metrics.registry import METRICS
    from analytics.models import UsageEvent
    from analytics.query import Period

    newest = UsageEvent.objects.exclude(app_version="").latest("created_at")
    since = {days: Period.last_days(days).first.isoformat() for days in DAYS}
    for days, first in since.items():
        yield f"/metrics, {days} days", f"/metrics?from={first}"
    yield "/metrics, 30 days of a client", f"/metrics?client={newest.client_token_id}"
    yield "/metrics, 30 days of a model", f"/metrics?model={newest.model}"
    several = f"client={newest.client_token_id}&model={newest.model}&app_version={newest.app_version}"
    yield "/metrics, 30 days of a client, model and version", f"/metrics?{several}"
    yield "/metrics for Prometheus", "/metrics?format=prometheus"
    for name in METRICS:
        yield f"/metrics/{name}, 30 days", f"/metrics/{name}"
    for days, first in since.items():
        yield f"dashboard, {days} days", f"/admin/?from={first}"
    yield "dashboard, 30 days of a client", f"/admin/?client={newest.client_token_id}"
    yield "dashboard, 30 days of a client, model and version", f"/admin/?{several}"


def of_admin() -> Iterator[tuple[str, str]]:
    from django.contrib import admin
    from django.urls import reverse

    for model in admin.site._registry:
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        yield f"list of {model._meta.verbose_name_plural}", reverse(f"admin:{name}_changelist")
        if (newest := model._default_manager.order_by("-pk").first()) is not None:
            yield f"one of {model._meta.verbose_name_plural}", reverse(f"admin:{name}_change", args=[quoted(newest.pk)])


def quoted(pk: Any) -> str:
    from django.contrib.admin.utils import quote

    return quote(pk)


if __name__ == "__main__":
    main()
