"""What this server measures of itself for Prometheus: each request, and now and then what is in use and what waits."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models.functions import Now
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from analytics import instruments
from analytics.models import UsageEvent
from analytics.processor import processor
from chat.turns import admission, opening, registry, settling

# Between two looks at what is in use.
SAMPLE_SECONDS = 5
LANES = (admission.admissions, opening.looks, opening.openings, settling.settlements)
# Whatever else a client calls its method.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# The pools' errors that are counted already, by the pool.
_pool_errors: tuple[object, int] = (None, 0)


class ObserveMiddleware:
    """Measure how long each request takes until its answer, or the first chunk of it, is made."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        response = self.get_response(request)
        method = request.method if request.method in METHODS else "other"
        labels = (route_of(request), method, STATUSES[response.status_code // 100 - 1])
        instruments.of(instruments.REQUESTS, *labels).observe(time.perf_counter() - started)
        return response


def route_of(request: HttpRequest) -> str:
    """Return the template of the path, of which there are few; all pages of the admin are one."""
    match = request.resolver_match
    if match is None:
        # Static files, and what no route matches or was refused before.
        return "none"
    return "/admin/" if match.route.startswith("admin/") else f"/{match.route}"


def start() -> None:
    """Begin to look, in a process that has just been forked."""
    instruments.PROCESSES.set(1)
    instruments.PROCESS_STARTED.set(time.time())
    threading.Thread(target=_keep_sampling, name="observe", daemon=True).start()


def _keep_sampling() -> None:
    while True:
        sample()
        time.sleep(SAMPLE_SECONDS)


def sample() -> None:
    """Note what is in use and what waits in this process. This asks nobody and takes no lock for long."""
    instruments.RUNNING_TURNS.set(registry.count())
    instruments.MAX_RUNNING_TURNS.set(settings.MAX_RUNNING_TURNS)
    instruments.of(instruments.QUEUED, "processor").set(processor.waiting)
    for lane in LANES:
        instruments.of(instruments.QUEUED, lane.name).set(lane.waiting)
    sample_pool()
    folder = tempfile.gettempdir()
    if (default := settings.DATABASES[DEFAULT_DB_ALIAS])["ENGINE"].endswith("sqlite3"):
        folder = str(Path(default["NAME"]).parent)
    disk = shutil.disk_usage(folder)
    instruments.of(instruments.DISK, "free").set(disk.free)
    instruments.of(instruments.DISK, "size").set(disk.total)


def sample_pool() -> None:
    """Note the state of the pool of connections; zeros where there is none, as on SQLite."""
    global _pool_errors
    pools: dict[str, Any] = getattr(connections[DEFAULT_DB_ALIAS], "_connection_pools", {})
    pool = pools.get(DEFAULT_DB_ALIAS)
    stats: dict[str, int] = pool.get_stats() if pool else {}
    free, size = stats.get("pool_available", 0), stats.get("pool_size", 0)
    instruments.of(instruments.CONNECTIONS, "free").set(free)
    instruments.of(instruments.CONNECTIONS, "in_use").set(size - free)
    instruments.of(instruments.CONNECTIONS, "max").set(stats.get("pool_max", 0))
    instruments.of(instruments.QUEUED, "database").set(stats.get("requests_waiting", 0))
    # A new pool counts from zero.
    known = _pool_errors[1] if _pool_errors[0] is pool else 0
    errors = stats.get("requests_errors", 0)
    instruments.POOL_ERRORS.inc(max(errors - known, 0))
    _pool_errors = (pool, errors)


def sample_ledger() -> None:
    """Note for how long turns wait whose process died: one look at the index of pending rows."""
    pending = UsageEvent.objects.pending().annotate(now=Now()).order_by("locked_until")
    oldest = pending.values_list("locked_until", "now").first()
    overdue = (oldest[1] - oldest[0]).total_seconds() if oldest else 0
    instruments.OVERDUE_TURN.set(max(overdue, 0))
