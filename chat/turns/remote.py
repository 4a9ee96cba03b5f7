"""A reply's log on its way to another process: bytes in frames, each with its offset, so that no gap goes unnoticed.

The bytes are lines: "c" and a chunk; at the end "u" and the usage, or "e" and the error. Our JSON has no line breaks.
"""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat.exceptions import ApiError, Unavailable
from chat.turns.chunks import rest_of_reply, usage_chunk
from chat.turns.idempotency import Idempotency
from chat.turns.reply_log import ReplyLog, dump

# PostgreSQL refuses a payload of 8000 bytes.
FRAME_BYTES = 7900
# How long a process stays a subscriber that says nothing, and how often it says that it still reads.
SUBSCRIPTION_SECONDS = 15
RENEW_SECONDS = 5
# Seconds between two frames of a silent reply: its readers learn from them that its process lives.
BEAT_SECONDS = 1
# How long an ended reply can still be asked for again.
KEEP_SECONDS = 10
# Seconds until the first repetition of a question without an answer. They double, up to BEAT_SECONDS.
ASK_AGAIN_SECONDS = 0.1
_attempts = itertools.count(1)


@dataclass
class Subscriber:
    """A process that follows a reply: what it was sent, when, and until when it wants more (monotonic seconds)."""

    attempt: int
    position: int
    sent_at: float = 0
    until: float = 0


class Publication:
    """A reply of this process that others follow. One thread uses it."""

    def __init__(self, request_id: str, log: ReplyLog) -> None:
        self.request_id = request_id
        self.subscribers: dict[str, Subscriber] = {}  # by channel
        self.ended_at: float | None = None
        self._log = log
        self._chunks = 0
        self._lines = bytearray()

    def subscribe(self, channel: str, attempt: int, position: int) -> None:
        """Send what follows `position` to the channel, and at once. The same attempt again only renews it."""
        self.gather()
        subscriber = self.subscribers.get(channel)
        if subscriber is None or subscriber.attempt != attempt:
            subscriber = self.subscribers[channel] = Subscriber(attempt, min(position, len(self._lines)))
        subscriber.until = time.monotonic() + SUBSCRIPTION_SECONDS

    def gather(self) -> None:
        """Take over what is new in the log."""
        if self.ended_at is not None:
            return
        chunks, is_closed = self._log.since(self._chunks)
        self._chunks += len(chunks)
        for chunk in chunks:
            self._lines += b"c%b\n" % chunk
        if is_closed:
            usage, error = self._log.ending()
            self._lines += b"e%b\n" % dump_error(error) if error else b"u%b\n" % (usage or b"")
            self.ended_at = time.monotonic()

    def frames(self) -> Iterator[tuple[str, str]]:
        """Yield what the subscribers have not been sent, each frame with its channel."""
        now = time.monotonic()
        for channel, subscriber in self.subscribers.items():
            position = subscriber.position
            is_beat = subscriber.sent_at <= now - BEAT_SECONDS
            while position < len(self._lines) or is_beat:
                head = f"{self.request_id} {position} "
                end = self._cut(position, FRAME_BYTES - len(head))
                yield channel, head + self._lines[position:end].decode()
                position, is_beat = end, False

    def mark_sent(self) -> None:
        now = time.monotonic()
        for subscriber in self.subscribers.values():
            if subscriber.position < len(self._lines) or subscriber.sent_at <= now - BEAT_SECONDS:
                subscriber.position, subscriber.sent_at = len(self._lines), now

    def is_wanted(self) -> bool:
        """Forget subscribers that say nothing any more, and tell whether any is left."""
        now = time.monotonic()
        self.subscribers = {channel: one for channel, one in self.subscribers.items() if one.until > now}
        return bool(self.subscribers) and (self.ended_at is None or self.ended_at > now - KEEP_SECONDS)

    def is_sent(self) -> bool:
        """Tell whether all subscribers have been sent the end."""
        is_over = self.ended_at is not None
        return is_over and all(one.position == len(self._lines) for one in list(self.subscribers.values()))

    def _cut(self, position: int, size: int) -> int:
        """Return the end of a frame that begins at `position`: between two characters, which are 1 to 4 bytes."""
        end = min(position + size, len(self._lines))
        while end < len(self._lines) and self._lines[end] & 0xC0 == 0x80:
            end -= 1
        return end


class RemoteLog(ReplyLog):
    """The log of a reply that another process runs, as far as it has arrived here."""

    def __init__(self, idempotency: Idempotency, request_id: str) -> None:
        super().__init__(idempotency)
        self.idempotency: Idempotency = idempotency
        self.request_id = request_id
        self.heard_at = time.monotonic()
        self.looked_up_at = 0.0
        self._found = threading.Event()
        self._lock = threading.RLock()  # Several threads write.
        self._position = 0
        self._partial: list[bytes] = []  # the beginning of a line, which may come in many frames
        # To be told what follows the position. No earlier log of this process has asked by the same number.
        self._attempt = next(_attempts)
        self._lost_at: float | None = self.heard_at  # None: what arrives continues what has arrived.
        self._ask_at = 0.0
        self._pause = ASK_AGAIN_SECONDS

    @property
    def is_found(self) -> bool:
        """Tell whether the process that runs the reply has answered."""
        return self._found.is_set()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def wait_until_found(self, seconds: float) -> bool:
        return self._found.wait(seconds)

    def resume(self) -> None:
        """Ask for everything that has not arrived: frames may have been lost."""
        with self._lock:
            self._attempt, self._lost_at = next(_attempts), time.monotonic()
            self._ask_at, self._pause = 0, ASK_AGAIN_SECONDS

    def question(self) -> str | None:
        """Return what is to be asked or renewed now, or None: the number of the attempt, and the position.

        A question that is only late is not answered twice, because its number is the same.
        """
        now = time.monotonic()
        with self._lock:
            if self._is_closed or now < self._ask_at:
                return None
            if self._lost_at is None:
                self._pause = RENEW_SECONDS
            elif now > self._lost_at + RENEW_SECONDS:
                self.resume()
            self._ask_at, self._pause = now + self._pause, min(2 * self._pause, BEAT_SECONDS)
            return f"{self._attempt} {self._position}"

    def receive(self, offset: int, data: bytes) -> None:
        """Take a frame. What has arrived before is skipped, and a frame beyond a gap is asked for again."""
        with self._lock:
            if self._is_closed:
                return
            if offset > self._position:
                if self._lost_at is None:
                    self.resume()
                return
            self.heard_at = time.monotonic()
            if self._lost_at is not None:
                self._lost_at, self._ask_at = None, self.heard_at + RENEW_SECONDS
            self._found.set()
            fresh = data[self._position - offset :]
            self._position += len(fresh)
            *lines, last = fresh.split(b"\n")
            for line in lines:
                line = b"".join([*self._partial, line])
                self._partial.clear()
                self._take(line[:1], line[1:])
            self._partial.append(last)
            if lines:  # A reader that wakes up without any takes it for a silence.
                self._wake()

    def finish(self, answer: dict[str, Any]) -> None:
        """End the log with what of the stored answer has not arrived; by an error where that cannot be told exactly."""
        with self._lock:
            rest = rest_of_reply(answer, self._chunks)
            if rest is None:
                self.break_off()
            if not self._is_closed:
                self._chunks += map(dump, rest or [])
                self.close(usage=usage_chunk(answer))

    def break_off(self) -> None:
        """End the log by an error, unless it has ended."""
        with self._lock:
            if not self._is_closed:
                self.close(error=Unavailable("The reply broke off; send the same request again."))

    def _take(self, kind: bytes, content: bytes) -> None:
        if kind == b"c":
            self._chunks.append(content)
        elif kind == b"e":
            self.close(error=load_error(content))
        else:
            self._end(content or None, None)


def dump_error(error: ApiError) -> bytes:
    names = ("status_code", "default_code", "param", "retry_after", "should_retry")
    return dump({"message": str(error.detail), **{name: getattr(error, name) for name in names}})


def load_error(dumped: bytes) -> ApiError:
    fields = json.loads(dumped)
    error = ApiError(fields.pop("message"))
    for name, value in fields.items():
        setattr(error, name, value)
    return error
