"""Turns whose reply is passed on as it comes.

A thread of its own reads the upstream into a log, and clients read the log: a client that goes away does not stop the
turn, and a client that sends the same request again joins it, in this process or in another one. The end of the reply
is passed on only after the turn is settled.
"""

import contextvars
import functools
import logging
import threading
from typing import Any

from analytics.fairness import close_connection, outside
from analytics.processor import processor
from chat.exceptions import ApiError, Cancelled, InternalError
from chat.turns import broadcast, registry
from chat.turns.capacity import acquire_slot, release_slot
from chat.turns.chunks import ChunkEncoder, chunk_of, last_chunk, replay, usage_chunk
from chat.turns.lifecycle import fail, open_or_replay, settle
from chat.turns.reply_log import ReplyLog
from chat.turns.request import Turn, TurnRequest
from chat.upstream import client as upstream
from chat.upstream.replies import Completion, Reply, choice_of

logger = logging.getLogger(__name__)


def begin(request: TurnRequest) -> tuple[ReplyLog, bool]:
    """Return the log of the reply, and whether it is that of another request, which has ended or still runs."""
    with acquire_slot(request.client) as slot:
        opened = open_or_replay(request, join=broadcast.Search(request.idempotency))
        close_connection()
        if isinstance(opened, Turn):
            log = start(opened)
            slot.pop_all()  # The thread frees the slot.
            return log, False
    return (opened if isinstance(opened, ReplyLog) else replay(opened.answer)), True


def start(turn: Turn) -> ReplyLog:
    """Start the thread that reads the upstream. It has the request's slot from now on."""
    log, request_id = ReplyLog(turn.request.idempotency), turn.call.request_id
    try:
        # Registered before the thread starts, so that a duplicate finds the log at once.
        registry.enter(request_id, log)
        # With the request's context, so that its log lines have the request's id.
        run = functools.partial(contextvars.copy_context().run, _run, turn, log)
        with outside():  # It waits until the thread has begun.
            threading.Thread(target=run, name=request_id, daemon=True).start()
    except BaseException as exc:
        registry.leave(request_id)
        logger.exception("stream %s could not be started", request_id)
        error = InternalError()
        error.is_billed = False  # The upstream was not called.
        error.__cause__ = exc
        fail(turn, error)
    return log


def _run(turn: Turn, log: ReplyLog) -> None:
    try:
        reading = Reading(turn, log)
        completion = reading.read()
        answer = settle(turn, completion, first_token_ms=reading.first_token_ms, code=reading.code)
        if reading.first_token_ms is None:
            reading.begin()
        log.append(last_chunk(answer))
        log.close(usage=usage_chunk(answer))
    except ApiError as exc:
        log.close(error=exc)
    except BaseException:
        logger.exception("stream %s failed", turn.call.request_id)
        # Not raised again: the thread ends here, and the interpreter would print what the log keeps out.
        log.close(error=InternalError())
    finally:
        release_slot(turn.request.client)
        registry.leave(turn.call.request_id)
        close_connection()


# What the server works for a chunk: it is read here, and sent by the thread of each client that reads along.
CHUNK_SECONDS = 0.0001


class Reading:
    """Reads one reply from the upstream, and passes it on up to its end, which is held back until it is settled."""

    def __init__(self, turn: Turn, log: ReplyLog) -> None:
        self.turn = turn
        self.log = log
        self.reply = Reply(turn.call)
        self._encoder = ChunkEncoder(turn.call.request_id)
        self.first_token_ms: int | None = None
        self.code = ""  # "cancelled", where the client stopped the reply

    def read(self) -> Completion:
        """Read to the end, or to where the client cancels. Where the upstream fails, the turn is closed."""
        try:
            for choice in upstream.stream(self.reply, self.log.cancellation):
                self._pass_on(choice)
                processor.spend(self.turn.request.client.holder, CHUNK_SECONDS)
            return self.reply.completion()
        except BaseException as exc:
            if isinstance(exc, Cancelled) and self.reply.has_text:
                self.code = Cancelled.default_code
                self.reply.finish_reason = "stop"
                completion = self.reply.completion()
                completion.body["cancelled"] = True
                return completion
            fail(self.turn, exc, self.reply.bought)

    def _pass_on(self, choice: dict[str, Any]) -> None:
        """Write a piece of the reply to the log."""
        if self.first_token_ms is None:
            self.first_token_ms = self.turn.latency_ms
            self.begin("" if "content" in choice["delta"] else None)
        self.log.write(self._encoder.encode(self.reply.head(), choice))

    def begin(self, content: str | None = "") -> None:
        """Write the first chunk: it says who speaks, and where the reply belongs."""
        request_id, subject = self.turn.call.request_id, self.turn.request.subject
        where = {"request_id": request_id, "conversation_id": subject.conversation_id or None}
        role = choice_of({"role": "assistant", "content": content})
        self.log.append(
            chunk_of(self.reply.head(), request_id, role, **where, history_truncated=self.turn.cut.is_truncated)
        )
