"""Turns whose reply is passed on as it comes.

The upstream is read in a thread of its own into a log, and clients read the log: one that goes away does
not stop the turn, and one that sends the same request again joins it. The end of the reply is passed on only
after it is settled.
"""

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

from chat.exceptions import ApiError, Cancelled, InternalError, UpstreamError
from chat.turns import registry as running
from chat.turns.lifecycle import Ask, Turn, close_failed, forbid_retry, open_or_replay, release_connection, settle
from chat.upstream import client as upstream
from chat.upstream.replies import Assembler, Completion

logger = logging.getLogger(__name__)

# Proxies close a connection on which nothing moves for long, some after 30 seconds.
HEARTBEAT_SECONDS = 10


class ReplyLog:
    """The chunks of one reply, each as JSON: written by one thread, read from the beginning by any number."""

    def __init__(self) -> None:
        self.usage: bytes | None = None  # the chunk for those who asked for it
        self.cancellation = upstream.Cancellation()
        self._chunks: list[bytes] = []
        self._is_closed = False
        self._error: ApiError | None = None
        self._changed = threading.Condition()

    def append(self, chunk: dict[str, Any]) -> None:
        with self._changed:
            self._chunks.append(dump(chunk))
            self._changed.notify_all()

    def close(self, *, usage: dict[str, Any] | None = None, error: ApiError | None = None) -> None:
        with self._changed:
            self.usage = dump(usage) if usage else None
            self._error = error
            self._is_closed = True
            self._changed.notify_all()

    def read(self) -> Iterator[list[bytes]]:
        """What is new, as soon as it is; an empty list after HEARTBEAT_SECONDS of silence.

        Raises ApiError where the turn failed.
        """
        seen = 0
        while True:
            with self._changed:
                if seen == len(self._chunks) and not self._is_closed:
                    self._changed.wait(HEARTBEAT_SECONDS)
                fresh = self._chunks[seen:]
                is_over = self._is_closed
            seen += len(fresh)
            if fresh or not is_over:
                yield fresh
            elif self._error:
                raise self._error
            else:
                return


def dump(chunk: dict[str, Any]) -> bytes:
    return json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()


def begin(ask: Ask) -> tuple[ReplyLog, bool]:
    """The log of the reply, and whether it is another request's: one that has ended, or one that still runs."""
    running.take_place()
    try:
        opened = open_or_replay(ask, join=running.log_of)
        release_connection()
        if isinstance(opened, Turn):
            return start(opened), False
    except BaseException:
        running.give_place()
        raise
    running.give_place()
    if isinstance(opened, ReplyLog):
        return opened, True
    log = ReplyLog()
    replay(opened.answer, log)
    return log, True


def start(turn: Turn) -> ReplyLog:
    """Read the upstream in a thread, which has the place of the request from now on."""
    log = ReplyLog()
    try:
        # Entered before the thread starts, so that a twin finds it at once.
        running.enter(turn, log)
        threading.Thread(target=_run, args=(turn, log), name=turn.ask.request_id, daemon=True).start()
    except BaseException:
        running.leave(turn)
        close_failed(turn, InternalError.default_code)
        raise
    return log


def _run(turn: Turn, log: ReplyLog) -> None:
    try:
        _produce(turn, log)
    except ApiError as exc:
        forbid_retry(exc, turn.ask)
        log.close(error=exc)
    except BaseException:
        logger.exception("stream %s failed", turn.ask.request_id)
        # Not raised again: it ends here, and the interpreter would print what the log keeps out.
        log.close(error=InternalError())
    finally:
        running.leave(turn)
        running.give_place()
        release_connection()


def _produce(turn: Turn, log: ReplyLog) -> None:
    assembler = Assembler()
    last: list[dict[str, Any]] = []  # what says that the reply is over, kept back until it is settled
    first_token_ms: int | None = None
    code = ""
    try:
        for raw in upstream.stream(turn.upstream_body, turn.ask.request_id, log.cancellation):
            assembler.add(raw)
            if raw["choices"]:
                chunk = client_chunk(turn, raw, is_first=first_token_ms is None)
                if first_token_ms is None:
                    first_token_ms = turn.latency_ms
                if last or chunk["choices"][0].get("finish_reason"):
                    last.append(chunk)
                else:
                    log.append(chunk)
        completion = assembler.completion(turn.upstream_body)
    except Cancelled:
        if not assembler.has_reply:
            close_failed(turn, Cancelled.default_code, bought=partial(assembler, turn), is_billed=True)
            raise
        code = Cancelled.default_code
        completion = assembler.completion(turn.upstream_body, finish_reason="stop")
        completion.body["cancelled"] = True
        last = [{**chunk_head(completion.body, turn.ask.request_id), "choices": [ending("stop")], "cancelled": True}]
    except BaseException as exc:
        code = exc.default_code if isinstance(exc, ApiError) else "internal_error"
        is_billed = not isinstance(exc, ApiError) or (isinstance(exc, UpstreamError) and exc.billed)
        close_failed(turn, code, bought=partial(assembler, turn), is_billed=is_billed)
        raise
    answer = settle(turn, completion, first_token_ms=first_token_ms, code=code)
    for chunk in last:
        log.append(chunk)
    log.close(usage=usage_chunk(answer))


def partial(assembler: Assembler, turn: Turn) -> Completion | None:
    """What was bought of a reply that broke off."""
    return assembler.completion(turn.upstream_body) if assembler.body else None


def client_chunk(turn: Turn, raw: dict[str, Any], *, is_first: bool) -> dict[str, Any]:
    """The upstream's chunk under our id; the first one says where it belongs."""
    chunk = {**raw, "id": turn.ask.request_id, "object": "chat.completion.chunk"}
    chunk.pop("usage", None)
    if is_first:
        chunk |= identity(turn.ask.request_id, turn.ask.conversation_id or None, turn.history_truncated)
    return chunk


def identity(request_id: str, conversation_id: str | None, history_truncated: bool) -> dict[str, Any]:
    return {"request_id": request_id, "conversation_id": conversation_id, "history_truncated": history_truncated}


def chunk_head(body: dict[str, Any], request_id: str) -> dict[str, Any]:
    return {"id": request_id, "object": "chat.completion.chunk", "created": body["created"], "model": body["model"]}


def ending(finish_reason: str) -> dict[str, Any]:
    return {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}


def usage_chunk(answer: dict[str, Any]) -> dict[str, Any]:
    return {**chunk_head(answer, answer["id"]), "choices": [], "usage": answer["usage"]}


def replay(answer: dict[str, Any], log: ReplyLog) -> None:
    """A stored answer as the stream that it was, or might have been: the whole reply in one chunk."""
    head = chunk_head(answer, answer["id"])
    choice = answer["choices"][0]
    delta = {name: value for name, value in choice["message"].items() if value is not None}
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
    whole = {"index": 0, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}
    first = identity(answer["id"], answer["conversation_id"], answer["history_truncated"])
    log.append({**head, **first, "choices": [whole]})
    log.append({**head, "choices": [ending(choice["finish_reason"])]})
    log.close(usage=usage_chunk(answer))


def cancel(request_id: str) -> None:
    """Stop a stream of this process at once; another process hears of it within a second."""
    found = running.find(request_id)
    if found and found.log:
        found.log.cancellation.ask()
