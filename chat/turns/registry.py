"""The turns that run in this process: their leases are renewed, and it is heard when one is to be cancelled."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import Error, connection
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from analytics.ledger import turns as recording
from chat.exceptions import Unavailable
from chat.models import IdempotencyKey
from chat.turns.idempotency import Idempotency
from chat.upstream import client as upstream

if TYPE_CHECKING:
    from chat.turns.lifecycle import Turn
    from chat.turns.stream import ReplyLog

logger = logging.getLogger(__name__)

# How long after its process has died a turn may be taken over. Renewed three times in between,
# so that one missed renewal, or a database away for some seconds, loses nothing.
LEASE = timedelta(seconds=45)
RENEW_SECONDS = 15
CANCEL_POLL_SECONDS = 1
# What it takes to settle turns that were broken off.
SETTLE_SECONDS = 5


def lease() -> Combinable:
    """When a lease that is taken now ends, by the database's clock: all nodes share it, whatever their own say."""
    return Now() + LEASE


@dataclass(frozen=True)
class Running:
    turn: "Turn"
    log: "ReplyLog | None"  # of a turn that is streamed


_running: dict[str, Running] = {}
_lock = threading.Lock()
_keeper: threading.Thread | None = None
_places = 0
_stop_at: float | None = None


@contextlib.contextmanager
def registered(turn: "Turn", log: "ReplyLog | None" = None) -> Iterator[None]:
    """Keep the turn's lease while the block runs."""
    try:
        enter(turn, log)
        yield
    finally:
        leave(turn)


def enter(turn: "Turn", log: "ReplyLog | None" = None) -> None:
    global _keeper
    with _lock:
        _running[turn.ask.request_id] = Running(turn, log)
        if _keeper is None or not _keeper.is_alive():
            _keeper = threading.Thread(target=_keep, name="keeper", daemon=True)
            _keeper.start()


def leave(turn: "Turn") -> None:
    with _lock:
        _running.pop(turn.ask.request_id, None)


def find(request_id: str) -> Running | None:
    return _running.get(request_id)


def log_of(idempotency: Idempotency) -> "ReplyLog | None":
    """The reply that is being streamed in this process to the same request under the same key."""
    for running in list(_running.values()):
        if running.log and running.turn.ask.idempotency and running.turn.ask.idempotency.equals(idempotency):
            return running.log
    return None


def take_place() -> None:
    """Past what the process can hold a client is told to come back, at once: waiting would only pile up."""
    global _places
    with _lock:
        if _places >= settings.MAX_RUNNING_TURNS:
            raise Unavailable("The server runs as many turns as it can; send the request again in a moment.")
        _places += 1


def give_place() -> None:
    global _places
    with _lock:
        _places -= 1


def watch(is_serving: Callable[[], bool], seconds: float) -> None:
    """Wind down as soon as the server is told to stop."""
    while is_serving():
        time.sleep(0.5)
    wind_down(seconds)


def wind_down(seconds: float) -> None:
    """Let turns end, until so long after the stop was first seen; then break off what is left, and let that settle."""
    global _stop_at
    _stop_at = _stop_at or time.monotonic() + seconds
    drain(_stop_at - time.monotonic())
    if _running:
        logger.warning("breaking off %d turns: the server stops", len(_running))
        upstream.hang_up()
        drain(SETTLE_SECONDS)


def drain(seconds: float) -> None:
    """Wait until no turn runs, for so long at most: replies whose clients have gone are settled too."""
    deadline = time.monotonic() + seconds
    while _running and time.monotonic() < deadline:
        time.sleep(0.1)


def _keep() -> None:
    """While any turn runs: look for cancellations each second, renew leases now and then."""
    renewed = time.monotonic()
    while True:
        time.sleep(CANCEL_POLL_SECONDS)
        with _lock:
            request_ids = list(_running)
            if not request_ids:
                global _keeper
                _keeper = None
                return
        try:
            _hear_cancellations(request_ids)
            if time.monotonic() - renewed >= RENEW_SECONDS:
                _renew(request_ids)
                renewed = time.monotonic()
        except Error as exc:
            logger.warning("leases could not be renewed: %s", type(exc).__name__)
        finally:
            connection.close()


def _hear_cancellations(request_ids: list[str]) -> None:
    streamed = [request_id for request_id in request_ids if (r := find(request_id)) and r.log]
    if not streamed:
        return
    for request_id in recording.asked_to_cancel(streamed):
        if (running := find(request_id)) and running.log:
            running.log.cancellation.ask()


def _renew(request_ids: list[str]) -> None:
    until = lease()
    recording.renew(request_ids, until)
    IdempotencyKey.objects.held().filter(request_id__in=request_ids).update(locked_until=until)
