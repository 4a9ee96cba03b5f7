"""Against gunicorn on a real socket: what holds across processes, and what a client program sees."""

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from django.db import connection

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from bench.stack import children_of
from chat.models import ClientToken, IdempotencyKey, Message
from conftest import Server, wait_until
from llmapi.launch import ROOT

Serve = Callable[..., Server]
COMPLETIONS = "/v1/chat/completions"


def test_fifty_equal_requests_at_once_are_one_turn(server: Server, upstream: OpenAIDouble) -> None:
    ask = {"conversation_id": server.conversation(), "message": "Hi"}
    upstream.default = Behaviour(delay=1)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: server.post(COMPLETIONS, ask, key="k"), range(50)))

    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1
    assert sum("Idempotent-Replayed" not in headers for _, headers, _ in answers) == 1
    assert len(upstream.requests) == 1
    assert Message.objects.count() == 2
    assert UsageEvent.objects.count() == 1


def test_equal_streams_at_once_are_one_turn(server: Server, upstream: OpenAIDouble) -> None:
    """Those in the process of the first follow it; the others wait for its end."""
    ask = {"conversation_id": server.conversation(), "message": "Hi", "stream": True}
    upstream.default = Behaviour(text=" ".join("word" for _ in range(20)), pause=0.05)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.post(COMPLETIONS, ask, key="k"), range(20)))

    assert {status for status, _, _ in answers} == {200}
    for _, _, body in answers:
        events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
        deltas = (choice["delta"] for event in events for choice in event["choices"])
        assert "".join(delta.get("content", "") for delta in deltas) == upstream.default.text
        assert body.endswith(b"data: [DONE]\n\n")
    assert sum("Idempotent-Replayed" not in headers for _, headers, _ in answers) == 1
    assert len(upstream.requests) == 1
    assert Message.objects.count() == 2


def test_the_limit_is_exact_across_processes(server: Server, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(rate_limit_per_min=5)
    ask = {"messages": [{"role": "user", "content": "Hi"}]}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post(COMPLETIONS, ask), range(40)))

    assert Counter(status for status, _, _ in answers) == {200: 5, 429: 35}
    refused = [headers for status, headers, _ in answers if status == 429]
    assert {headers["x-ratelimit-remaining-requests"] for headers in refused} == {"0"}
    assert all(0 < int(headers["Retry-After"]) <= 12 for headers in refused)
    assert len(upstream.requests) == 5


def test_turns_at_once_in_one_conversation_are_each_whole(server: Server, upstream: OpenAIDouble) -> None:
    cid = server.conversation()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: server.post(COMPLETIONS, {"conversation_id": cid, "message": str(n)}), range(30)))

    texts = list(Message.objects.order_by("id").values_list("content", flat=True))
    assert len(texts) == 60
    assert texts[1::2] == [f"echo: {text}" for text in texts[::2]]


def test_the_official_sdk(server: Server, upstream: OpenAIDouble) -> None:
    with openai.OpenAI(api_key=server.token, base_url=f"{server.url}/v1", max_retries=2) as client:
        reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
        assert reply.choices[0].message.content == "echo: Hi"
        assert reply._request_id == reply.id

        conversation = client.conversations.create()
        remembered = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hi"}],
            extra_body={"conversation_id": conversation.id},
            extra_headers={"Idempotency-Key": "k"},
        )
        assert remembered.to_dict()["conversation_id"] == conversation.id

        calls = len(upstream.requests)
        with pytest.raises(openai.ConflictError) as conflict:
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Ho"}],
                extra_headers={"Idempotency-Key": "k"},
            )
        assert conflict.value.code == "idempotency_key_reused"
        with pytest.raises(openai.NotFoundError) as bad:
            client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
        assert bad.value.param == "model"
        assert len(upstream.requests) == calls
        assert next(model.id for model in client.models.list()) == "gpt-4o-mini"


def send_chunks(server: Server, path: str, chunks: Iterable[bytes], **headers: str) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json", **headers}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request("POST", path, iter(chunks), headers, encode_chunked=True)
    with connection.getresponse() as answer:
        status, body = answer.status, json.loads(answer.read())
    connection.close()
    return status, body


def test_a_body_in_chunks(server: Server, upstream: OpenAIDouble) -> None:
    status, made = send_chunks(server, "/v1/conversations", [b'{"metadata"', b': {"a": "b"}}'])
    assert (status, made["metadata"]) == (201, {"a": "b"})
    items = f"/v1/conversations/{made['id']}/items"
    assert send_chunks(server, items, [b'{"items": [{"role": "user", ', b'"content": "Hi"}]}'])[0] == 200

    turn = json.dumps({"conversation_id": made["id"], "message": "x" * 300_000}).encode()
    status, answer = send_chunks(server, COMPLETIONS, [turn[n : n + 1000] for n in range(0, len(turn), 1000)])

    assert (status, answer["reply"]) == (200, "echo: " + "x" * 300_000)


def test_a_body_in_no_chunk_at_all(server: Server) -> None:
    assert send_chunks(server, "/v1/conversations", [])[0] == 201


def send_raw_chunks(server: Server, chunks: bytes, *, is_end: bool = False) -> tuple[int, bytes]:
    head = f"POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + chunks)
        if is_end:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def test_a_long_body_in_chunks_is_not_read_to_its_end(serve: Serve, upstream: OpenAIDouble) -> None:
    status, answer = send_raw_chunks(serve(MAX_REQUEST_BYTES="1024"), b"401\r\n" + b"x" * 1025)

    assert status == 413
    assert b"1,024 bytes" in answer


def test_a_stranger_with_a_body_in_chunks(server: Server) -> None:
    assert send_chunks(server, COMPLETIONS, [b"{}"], Authorization="Bearer nobody")[0] == 401


@pytest.mark.parametrize("broken", [b"zz\r\n{}\r\n", b"2\r\n{}", b"2\r\n{}\r\n0\r\nbad trailer\r\n\r\n"])
def test_chunks_that_are_none(server: Server, broken: bytes) -> None:
    assert send_raw_chunks(server, broken, is_end=True)[0] == 400


def test_a_form_of_the_admin_in_chunks(server: Server) -> None:
    """Django reads it: what is missing is the token against forged requests, which is in the form."""
    with urllib.request.urlopen(f"{server.url}/admin/login/") as page:
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert token
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    form = f"csrfmiddlewaretoken={token[1]}&username=nobody&password=x".encode()
    connection.request("POST", "/admin/login/", iter([form[:20], form[20:]]), headers, encode_chunked=True)
    with connection.getresponse() as answer:
        assert answer.status == 200
        assert b"Please enter the correct" in answer.read()
    connection.close()


def test_two_hundred_streams_cut_at_random_are_all_whole(server: Server, upstream: OpenAIDouble) -> None:
    cid = server.conversation()
    upstream.default = Behaviour(text=" ".join(f"word{n}" for n in range(30)), pause=0.01)
    dice = random.Random(7)  # noqa: S311

    def cut(events: int) -> None:
        body = {"conversation_id": cid, "message": "Hi", "stream": True}
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request("POST", COMPLETIONS, json.dumps(body), headers)
        if events:
            answer = connection.getresponse()
            for _ in range(events):
                answer.readline()
                answer.readline()
        connection.close()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(cut, (dice.randint(0, 30) for _ in range(200))))
    wait_until(lambda: UsageEvent.objects.filter(status="completed").count() == 200)

    replies = Message.objects.filter(role="assistant").values_list("content", flat=True)
    assert list(replies) == [upstream.default.text] * 200
    figures = UsageEvent.objects.filter(status="completed", is_estimated=False).values_list("total_tokens", flat=True)
    assert sorted(figures) == sorted(usage["total_tokens"] for usage in upstream.sold)
    assert len(figures) == 200


def test_send_pb(server: Server, upstream: OpenAIDouble) -> None:
    env = {**os.environ, "TOKEN": server.token, "URL": server.url, "CID": server.conversation()}

    def send_pb(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "clients/send_pb.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env={**env, **more}, capture_output=True, text=True, check=False)

    assert 'reply: "echo: Hi"' in send_pb("Hi").stdout
    assert 'code: "conversation_not_found"' in send_pb("Hi", CID="c_nobody").stderr
    assert "invalid_token" in send_pb("Hi", TOKEN="wrong").stderr
    assert "TOKEN" in send_pb("--help").stdout


def connections_of(pool: str) -> list[tuple[str, bool]]:
    """State, and whether it is of the pool, of each connection of a server and of its lanes; PostgreSQL only."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, application_name = %(pool)s FROM pg_stat_activity "
            "WHERE datname = current_database() "
            "AND application_name IN (%(pool)s, 'llmapi-look', 'llmapi-open', 'llmapi-settle')",
            {"pool": pool},
        )
        found: list[tuple[str, bool]] = cursor.fetchall()
        return found


def test_no_connection_is_held_while_the_upstream_works(serve: Serve, upstream: OpenAIDouble) -> None:
    """Twenty turns wait on the upstream, with a pool of two and one for background jobs."""
    server = serve(WEB_CONCURRENCY="1", DATABASE_POOL_SIZE="2", PGAPPNAME="held")
    gate = threading.Event()
    upstream.default = Behaviour(gate=gate)
    ask = {"messages": [{"role": "user", "content": "Hi"}]}

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(server.post, COMPLETIONS, ask) for _ in range(20)]
        wait_until(lambda: len(upstream.requests) == 20)
        if connection.vendor == "postgresql":
            # A job in the background may be in a transaction as we look; what a turn held would stay.
            wait_until(lambda: {state for state, _ in connections_of("held")} == {"idle"})
            assert sum(is_of_the_pool for _, is_of_the_pool in connections_of("held")) <= 3
        assert UsageEvent.objects.filter(status="pending").count() == 20
        gate.set()
        assert {answer.result()[0] for answer in answers} == {200}


def test_a_retry_takes_over_from_a_killed_process(serve: Serve, upstream: OpenAIDouble) -> None:
    server = serve(WEB_CONCURRENCY="1")
    ask = {"conversation_id": server.conversation(), "message": "Hi"}
    upstream.plan(Behaviour(delay=30))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(server.post, COMPLETIONS, ask, "k")
        wait_until(lambda: bool(upstream.requests))
        (worker,) = children_of(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(OSError, match=r"closed|reset|refused"):
            lost.result()
    assert UsageEvent.objects.get().status == "pending"
    # Its lease ends, as it does by itself after UPSTREAM_TIMEOUT_SECONDS and a margin.
    IdempotencyKey.objects.update(locked_until="2020-01-01T00:00:00Z")

    status, _, _ = server.post(COMPLETIONS, ask, key="k")

    assert status == 200
    assert list(UsageEvent.objects.order_by("id").values_list("status", flat=True)) == ["abandoned", "completed"]
    assert Message.objects.count() == 2
