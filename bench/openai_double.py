"""A double of OpenAI's chat completions: a real HTTP server that answers as it is told, and keeps its own ledger.

It refuses what OpenAI refuses (`bench/openai_rules.py`), and speaks the dialects of other providers where it is told to
(`bench/dialects.py`).

In a test: `with OpenAIDouble() as upstream: upstream.plan(Behaviour(status=429))`. By hand:
`python -m bench.openai_double --port 9000`, then OPENAI_BASE_URL=http://127.0.0.1:9000/v1.
"""

import argparse
import itertools
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from bench.dialects import BY_NAME, Dialect


@dataclass
class Behaviour:
    """How one request is answered. All times are in seconds."""

    text: str | None = None  # None: an echo of the last message
    status: int = 200
    error: dict[str, Any] = field(default_factory=lambda: {"message": "told to fail", "code": None, "param": None})
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # sent in place of a completion
    message: dict[str, Any] | None = None  # in place of a plain text reply
    model: str | None = None  # None: the name that was asked for
    usage: bool = True
    cached: int = 0  # of the prompt's tokens, read from a cache
    cache_write: int = 0  # of the prompt's tokens, written to it
    reasoning: int = 0  # tokens that the model thinks, where it is not told not to
    service_tier: str = "default"
    delay: float = 0  # before the first byte
    dribble: float = 0  # between the bytes of the answer
    cut: bool = False  # close the connection in the middle of the answer
    pieces: list[str] | None = None  # the deltas of a stream; None: the words of the text
    stamp: bool = False  # each delta of a stream begins with the time it is sent, in nanoseconds (CLOCK_MONOTONIC)
    pause: float = 0  # before each chunk of a stream but the first
    stop_after: int | None = None  # chunks of text; then, as `ending` says:
    ending: str = "cut"  # "cut", "hang", "error" (told in the stream), "quiet" (a clean end without [DONE])
    refuse: bool = False  # close it before any answer
    gate: threading.Event | None = None  # wait for this before the first byte


class OpenAIDouble:
    """The double, and the requests that it got. With `after` it takes over the address of an earlier double."""

    def __init__(self, port: int = 0, *, after: "OpenAIDouble | None" = None) -> None:
        self.requests: list[dict[str, Any]] = []  # what came in and was taken: path, headers, body
        self.refused: list[dict[str, Any]] = []  # what came in and broke a rule of the provider
        self.sold: list[dict[str, int]] = []  # usage of each completion that was made
        self.sold_to: dict[str, dict[str, int]] = {}  # the same, by the caller's request id
        self.hung_up: list[str] = []  # streams that the other side closed
        self.default = Behaviour()
        self.dialect = Dialect()
        # Looks at the body of a request, and may say how to answer it: for what a plan cannot foresee.
        self.choose: Callable[[dict[str, Any]], Behaviour | None] = lambda _: None
        self._planned: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self.server: _Server = after.server if after else _Server(("127.0.0.1", port), _Handler)
        self.server.double = self

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def plan(self, *behaviours: Behaviour) -> None:
        """Answer the next requests by these behaviours, one each, and all later ones by `default`."""
        self._planned.extend(behaviours)

    def take(self, request: dict[str, Any]) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            if self._planned:
                return self._planned.popleft()
        return self.choose(request["body"]) or self.default

    def completion(self, body: dict[str, Any], behaviour: Behaviour, request_id: str = "") -> dict[str, Any]:
        if behaviour.pieces is not None:
            behaviour.text = "".join(behaviour.pieces)
        text = behaviour.text if behaviour.text is not None else f"echo: {_text_of(body['messages'][-1])}"
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": [],
            **(behaviour.message or {}),
        }
        reasoning = behaviour.reasoning if body.get("reasoning_effort") != "none" else 0
        finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
        most = body.get("max_completion_tokens")
        if reasoning and most and reasoning >= most:
            # It thinks until its tokens are gone, and says nothing.
            reasoning, finish_reason, message["content"], text = most, "length", "", ""
        sold = {
            "prompt_tokens": sum(len(_text_of(message).split()) + 4 for message in body["messages"]),
            "completion_tokens": reasoning + (len(text.split()) + 1 if finish_reason != "length" else 0),
        }
        sold["total_tokens"] = sum(sold.values())
        with self._lock:
            self.sold.append(sold)
            self.sold_to[request_id] = sold
        completion = {
            "id": f"chatcmpl-{next(self._ids)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": behaviour.model or body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
            "service_tier": behaviour.service_tier,
            "system_fingerprint": "fp_44709d6fcb",
        }
        if behaviour.usage:
            details = {"cached_tokens": behaviour.cached, "cache_write_tokens": behaviour.cache_write}
            completion["usage"] = {
                **sold,
                "prompt_tokens_details": {"audio_tokens": 0, **details},
                "completion_tokens_details": {
                    "reasoning_tokens": reasoning,
                    **dict.fromkeys(("audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"), 0),
                },
            }
        return completion


def deltas_of(completion: dict[str, Any], behaviour: Behaviour) -> list[tuple[dict[str, Any], str | None]]:
    """Yield the deltas that make up the completion, each with its finish_reason."""
    message = completion["choices"][0]["message"]
    content = "" if message["content"] is not None else None
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": content, "refusal": None}]
    pieces = behaviour.pieces or re.findall(r"\s*\S+|\s+$", message["content"] or "")
    deltas += [{"content": piece} for piece in pieces]
    for index, call in enumerate(message.get("tool_calls", [])):
        arguments = call["function"]["arguments"]
        head = {**call, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **head}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": arguments[n : n + 4]}}]}
            for n in range(0, len(arguments), 4)
        ]
    if message.get("refusal"):
        deltas.append({"refusal": message["refusal"]})
    return [*((delta, None) for delta in deltas), ({}, completion["choices"][0]["finish_reason"])]


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


class _Server(ThreadingHTTPServer):
    double: OpenAIDouble
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback for a client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    double: OpenAIDouble  # that answers this request

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: tests read `requests`."""

    def do_GET(self) -> None:
        """List no models, for who asks whether the provider answers. It is not among the `requests`."""
        self.double = self.server.double
        self.answer(b'{"object": "list", "data": []}', Behaviour())

    def do_POST(self) -> None:
        self.double = self.server.double
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = {"path": self.path, "headers": headers, "body": body}
        if refused := self.double.dialect.refuse(body):
            status, error = refused
            self.double.refused.append(request)
            return self.answer(json.dumps(error).encode(), Behaviour(status=status))
        return self.follow(self.double.take(request), body)

    def follow(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        if behaviour.gate:
            behaviour.gate.wait(30)
        time.sleep(behaviour.delay)
        if behaviour.refuse:
            self.hang_up()
        elif behaviour.status != 200 and behaviour.raw is None:
            error = self.double.dialect.error(behaviour.status, behaviour.error)
            self.answer(json.dumps(error).encode(), behaviour)
        elif behaviour.raw is not None:
            self.answer(behaviour.raw, behaviour)
        elif body.get("stream"):
            self.stream(self.completion(body, behaviour), behaviour, body)
        else:
            completion = self.double.dialect.whole(self.completion(body, behaviour))
            self.answer(json.dumps(completion).encode(), behaviour)

    def completion(self, body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
        return self.double.completion(body, behaviour, self.headers.get("X-Client-Request-Id", ""))

    def stream(self, completion: dict[str, Any], behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        dialect = self.double.dialect
        try:
            self.send(dialect.head(completion))
            for index, (delta, finish_reason) in enumerate(deltas_of(completion, behaviour)):
                if index:
                    time.sleep(behaviour.pause)
                if behaviour.stop_after is not None and index == behaviour.stop_after + 1:
                    return self.break_off(behaviour)
                if behaviour.stamp and "content" in delta:
                    delta["content"] = f"{time.monotonic_ns()} "
                self.send(dialect.delta(completion, delta, finish_reason))
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            self.send(dialect.tail(completion, include_usage=include_usage))
            self.send([b"data: [DONE]\n\n"] if dialect.has_done else [])
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.double.hung_up.append(completion["id"])
            self.close_connection = True

    def break_off(self, behaviour: Behaviour) -> None:
        if behaviour.ending == "hang":
            # Until the client hangs up.
            self.connection.recv(1)
            self.double.hung_up.append("hang")
        elif behaviour.ending == "error":
            error = self.double.dialect.error(503, {"message": "overloaded"})
            self.send([b"data: " + json.dumps(error).encode() + b"\n\n"])
        if behaviour.ending in {"error", "quiet"}:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.hang_up()

    def send(self, events: list[bytes]) -> None:
        for data in events:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def answer(self, data: bytes, behaviour: Behaviour) -> None:
        self.send_response(behaviour.status)
        for name, value in {"Content-Type": "application/json", **behaviour.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if behaviour.cut:
            self.wfile.write(data[: len(data) // 2])
            self.hang_up()
        elif behaviour.dribble:
            for index in range(len(data)):
                self.wfile.write(data[index : index + 1])
                time.sleep(behaviour.dribble)
        else:
            self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--dialect", choices=list(BY_NAME), default="openai", help="whose protocol it speaks")
    parser.add_argument("--chunks", type=int, default=20, help="of each stream")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between them")
    args = parser.parse_args()
    double = OpenAIDouble(args.port)
    double.dialect = BY_NAME[args.dialect]
    double.default = Behaviour(pieces=["word "] * args.chunks, pause=args.pause, stamp=True)
    print(f"OPENAI_BASE_URL={double.url}", flush=True)
    double.server.serve_forever()


if __name__ == "__main__":
    main()
