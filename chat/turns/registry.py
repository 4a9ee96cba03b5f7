"""The turns that this process runs. One thread renews their leases, and learns which are to be cancelled."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import Error, connection
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from analytics import ledger
from analytics.causes import cause
from analytics.watch import Watch
from chat.database import CLIENT, waiting_as
from chat.models import IdempotencyKey
from chat.turns.reply_log import ReplyLog
from chat.upstream import client as upstream

logger = logging.getLogger(__name__)

# How long after the death of its process a turn may be taken over. The lease is renewed three times meanwhile, so that
# one missed renewal, or a database that is away for some seconds, loses nothing.
LEASE = timedelta(seconds=45)
RENEW_SECONDS = 15
CANCEL_POLL_SECONDS = 1
# What it takes to settle turns that were broken off.
SETTLE_SECONDS = 5


def lease() -> Combinable:
    """Return when a lease that is taken now ends, by the database's clock: nodes share it."""
    return Now() + LEASE


# By request id; the log is that of a streamed reply.
_running: dict[str, ReplyLog | None] = {}
_renewed_at = float("-inf")
_stop_at: float | None = None


def enter(request_id: str, log: ReplyLog | None = None) -> None:
    """Keep the turn's lease until it leaves."""
    _running[request_id] = log
    _keeper.wake()


def leave(request_id: str) -> None:
    _running.pop(request_id, None)


def count() -> int:
    """Return how many turns run in this process."""
    return len(_running)


def cancel(request_id: str) -> None:
    """Stop a stream of this process at once. Another process learns of it within a second."""
    if log := _running.get(request_id):
        log.cancellation.request()


def stream_of(request_id: str) -> ReplyLog | None:
    """Return the log of a turn that this process streams."""
    return _running.get(request_id)


def watch(is_serving: Callable[[], bool], seconds: float) -> None:
    """Wind down as soon as the server is told to stop."""
    while is_serving():
        time.sleep(0.5)
    wind_down(seconds)


def wind_down(seconds: float) -> None:
    """Let turns end for `seconds` after the stop was first seen; then break off the others, and let those settle."""
    global _stop_at
    _stop_at = _stop_at or time.monotonic() + seconds
    drain(_stop_at - time.monotonic())
    if _running:
        logger.warning("breaking off %d turns: the server stops", len(_running))
        upstream.hang_up()
        drain(SETTLE_SECONDS)


def drain(seconds: float) -> None:
    """Wait until no turn runs, at most `seconds`: streams whose clients have gone are settled too."""
    deadline = time.monotonic() + seconds
    while _running and time.monotonic() < deadline:
        time.sleep(0.1)


def _keep() -> None:
    """Look for cancellations, and renew leases every RENEW_SECONDS."""
    global _renewed_at
    try:
        # A lease ends while a silent database is waited for.
        with waiting_as(CLIENT):
            running = dict(_running)
            if streamed := [request_id for request_id, log in running.items() if log]:
                for request_id in ledger.cancel_requested(streamed):
                    cancel(request_id)
            if time.monotonic() - _renewed_at >= RENEW_SECONDS:
                ledger.renew_leases(list(running), lease())
                IdempotencyKey.objects.held().filter(request_id__in=list(running)).update(locked_until=lease())
                _renewed_at = time.monotonic()
    except Error as exc:
        logger.warning("leases could not be renewed: %s", cause(exc))
    finally:
        connection.close()


_keeper = Watch(_keep, lambda: _running, seconds=CANCEL_POLL_SECONDS)
