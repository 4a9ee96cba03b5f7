"""What must be done now and then, without an operator: by the server processes, by one at a time."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from chat import retention
from chat.models import Chore
from chat.turns import lifecycle as turns

logger = logging.getLogger(__name__)

# Between two looks for what is due: one indexed read of a tiny table.
LOOK_SECONDS = 10


@dataclass(frozen=True)
class Task:
    every: timedelta
    run: Callable[[datetime], object]


TASKS = {
    # Turns of dead processes, and the keys they hold.
    "settle_abandoned": Task(timedelta(seconds=15), lambda _: turns.settle_all_abandoned()),
    "purge_expired": Task(timedelta(hours=1), retention.purge_expired),
}


# What every process does at each look, for itself.
OWN: list[Callable[[], object]] = []


def start() -> None:
    threading.Thread(target=_keep_looking, name="chores", daemon=True).start()


def _keep_looking() -> None:
    while True:
        look()
        # Not all processes at once.
        time.sleep(LOOK_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311


def look() -> None:
    """Do what there is to do. A task that fails is tried again when it is next due, and stops no other."""
    try:
        for task in OWN:
            task()
        run_due()
    except Error as exc:
        logger.warning("chores have to wait: %s", type(exc).__name__)
    except Exception:
        # A bug in one chore must not end the recovery of turns.
        logger.exception("a chore failed")
    finally:
        connection.close()


def run_due() -> list[str]:
    """Do what is due and what no other process has taken; the names of it.

    By the database's clock: a node whose own is wrong neither hurries the others nor holds them up.
    """
    waiting = set(Chore.objects.filter(due_at__gt=Now()).values_list("name", flat=True))
    return [name for name, task in TASKS.items() if name not in waiting and _take(name, task)]


def _take(name: str, task: Task) -> bool:
    Chore.objects.bulk_create([Chore(name=name, due_at=Now())], ignore_conflicts=True)
    if not Chore.objects.filter(name=name, due_at__lte=Now()).update(due_at=Now() + task.every):
        return False
    # By the database's clock, too: whose node's is wrong must not close a day that goes on.
    now = Chore.objects.annotate(now=Now()).values_list("now", flat=True).get(name=name)
    result = task.run(now)
    logger.debug("chore %s: %s", name, result)
    return True
