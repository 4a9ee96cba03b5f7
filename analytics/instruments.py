"""What each process counts and measures for Prometheus, in memory that the processes of one service share.

Counters and histograms are added up over all processes, those that have ended included; gauges over those that run.
gunicorn.conf.py names a folder for it (PROMETHEUS_MULTIPROC_DIR) before this module is imported; without one, as in
tests and commands, a process counts for itself. Nothing here asks the database.

Labels hold only words of this code and of the settings, so no client can make their number grow.
"""

import os
from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from django.conf import settings
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.multiprocess import MultiProcessCollector

REGISTRY = CollectorRegistry()
# The model of a turn that the settings do not name, for example because it began before they changed.
OTHER = "other"
# Seconds.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TURN_BUCKETS = (0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 300)
FIRST_TOKEN_BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 13, 20, 30, 60)

REQUESTS = Histogram(
    "llmapi_request_seconds",
    "From the head of a request to its answer; of a stream, to its first chunk.",
    ["route", "method", "status"],
    registry=REGISTRY,
    buckets=REQUEST_BUCKETS,
)
ERRORS = Counter("llmapi_errors", "Errors that clients were told, by code.", ["code"], registry=REGISTRY)
TURNS = Histogram(
    "llmapi_turn_seconds",
    "From the opening of a turn until its reply is settled, or it fails.",
    ["model", "status"],
    registry=REGISTRY,
    buckets=TURN_BUCKETS,
)
FIRST_TOKENS = Histogram(
    "llmapi_first_token_seconds",
    "From the opening of a streamed turn to the first piece of its reply.",
    ["model"],
    registry=REGISTRY,
    buckets=FIRST_TOKEN_BUCKETS,
)
FAILED_TURNS = Counter("llmapi_failed_turns", "Turns without a reply, by code.", ["model", "code"], registry=REGISTRY)
ABANDONED_TURNS = Counter(
    "llmapi_abandoned_turns", "Turns of dead processes that this service has closed.", registry=REGISTRY
)
TURN_TOKENS = Counter(
    "llmapi_turn_tokens",
    "Tokens bought; cached are part of prompt, reasoning of completion.",
    ["model", "kind"],
    registry=REGISTRY,
)
TURN_COST = Counter(
    "llmapi_turn_cost_usd", "Cost where the price is known, in US dollars.", ["model"], registry=REGISTRY
)
RUNNING_TURNS = Gauge("llmapi_running_turns", "Turns under way.", registry=REGISTRY, multiprocess_mode="livesum")
MAX_RUNNING_TURNS = Gauge(
    "llmapi_max_running_turns", "MAX_RUNNING_TURNS of all processes.", registry=REGISTRY, multiprocess_mode="livesum"
)
QUEUED = Gauge(
    "llmapi_queued_requests",
    "Requests that wait, by queue: for the processor, for each lane, for a connection to the database.",
    ["queue"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
CONNECTIONS = Gauge(
    "llmapi_database_connections",
    "Connections of the pools to PostgreSQL: in_use, free, and max, which there may be.",
    ["state"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
POOL_ERRORS = Counter(
    "llmapi_database_pool_errors", "Requests that got no connection of the pool in time.", registry=REGISTRY
)
OVERDUE_TURN = Gauge(
    "llmapi_overdue_turn_seconds",
    "For how long the oldest turn whose process died has waited to be closed; 0 where there is none.",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
DISK = Gauge(
    "llmapi_disk_bytes",
    "The disk of the SQLite database, or of temporary files with PostgreSQL: free, and size.",
    ["state"],
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
PROCESSES = Gauge(
    "llmapi_processes", "Server processes that answer requests.", registry=REGISTRY, multiprocess_mode="livesum"
)
PROCESS_STARTED = Gauge(
    "llmapi_process_started_timestamp_seconds",
    "When the newest server process began, in seconds since 1970.",
    registry=REGISTRY,
    multiprocess_mode="max",
)

QUEUES = ("processor", "admit", "look", "open", "settle", "database")
# Failures of a turn that alerts ask about: a series that begins at 1 has no increase.
KNOWN_FAILURES = ("upstream_error", "upstream_timeout", "upstream_rate_limited", "internal_error", "unavailable")
KNOWN_ERRORS = (*KNOWN_FAILURES, "rate_limit_exceeded", "budget_exceeded", "invalid_request", "invalid_token")

Labelled = TypeVar("Labelled", Counter, Gauge, Histogram)


@cache
def of(metric: Labelled, *labels: str) -> Labelled:
    """Return what counts under these labels: the library's own look takes as long as the counting."""
    return metric.labels(*labels)


def prepare() -> None:
    """Let series that are known beforehand begin at zero."""
    for code in KNOWN_ERRORS:
        of(ERRORS, code)
    for model in settings.OPENAI_MODELS:
        for status in ("completed", "failed"):
            of(TURNS, model, status)
        for code in KNOWN_FAILURES:
            of(FAILED_TURNS, model, code)
        of(FIRST_TOKENS, model)
        of(TURN_COST, model)
        for kind in ("prompt", "cached", "completion", "reasoning"):
            of(TURN_TOKENS, model, kind)


def model_label(model: str) -> str:
    """Return the model where the settings name it: clients may name any, and a series lives as long as the server."""
    return model if model in settings.OPENAI_MODELS else OTHER


def families() -> list[Metric]:
    """Return what all processes of this service have counted, sorted by name."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    found: Iterable[Metric] = MultiProcessCollector(None, folder).collect() if folder else REGISTRY.collect()  # type: ignore[no-untyped-call]
    return sorted(found, key=lambda family: family.name)
