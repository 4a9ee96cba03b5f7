"""Background jobs of the server processes. Each job runs now and then, in one process at a time."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from analytics.causes import cause
from analytics.fairness import close_connection
from chat import deletion, retention
from chat.models import Chore
from chat.turns.recovery import settle_all_abandoned

logger = logging.getLogger(__name__)

# Between two ticks. A tick that finds nothing due costs one indexed read of a tiny table.
TICK_SECONDS = 10


@dataclass(frozen=True)
class Job:
    every: timedelta
    run: Callable[[datetime], object]


JOBS = {
    # What others have left: turns whose process died, the keys that they hold, and large conversations half deleted.
    "settle_abandoned": Job(timedelta(seconds=15), lambda _: (settle_all_abandoned(), deletion.purge_deleted())),
    "purge_expired": Job(timedelta(hours=1), retention.purge_expired),
}

# What every process does at each tick, for itself.
PER_PROCESS: list[Callable[[], object]] = []


def start() -> None:
    threading.Thread(target=_keep_ticking, name="background", daemon=True).start()


def _keep_ticking() -> None:
    while True:
        tick()
        # Spread, so that not all processes tick at once.
        time.sleep(TICK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311


def tick() -> None:
    """Run what is due. A job that fails runs again when it is next due; jobs after it, at the next tick."""
    try:
        for work in PER_PROCESS:
            work()
        run_due()
    except Error as exc:
        logger.warning("background jobs have to wait: %s", cause(exc))
    except Exception:
        # A bug in one job must not end the recovery of turns.
        logger.exception("a background job failed")
    finally:
        connection.close()


def run_due() -> list[str]:
    """Run the jobs that are due and that no other process has taken, and return their names.

    They are due by the database's clock, so that a node whose clock is wrong does not change when they run.
    """
    waiting = set(Chore.objects.filter(due_at__gt=Now()).values_list("name", flat=True))
    return [name for name, job in JOBS.items() if name not in waiting and _run(name, job)]


def _run(name: str, job: Job) -> bool:
    """Run the job; False where another process has just taken it."""
    Chore.objects.bulk_create([Chore(name=name, due_at=Now())], ignore_conflicts=True)
    if not Chore.objects.filter(name=name, due_at__lte=Now()).update(due_at=Now() + job.every):
        return False
    # The job is told the time by the database's clock, so that a node whose clock is wrong closes no day too early.
    now = Chore.objects.annotate(now=Now()).values_list("now", flat=True).get(name=name)
    # A job may ask the provider first.
    close_connection()
    result = job.run(now)
    logger.debug("background job %s: %s", name, result)
    return True
