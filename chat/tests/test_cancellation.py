"""POST /v1/chat/completions/{request_id}/cancel stops a stream, and keeps what has come of it."""

import time

import pytest

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import Message
from chat.tests.streaming import URL
from conftest import ApiClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_turn_is_left")]


@pytest.mark.usefixtures("dialect")
def test_a_stream_is_cancelled_for_real(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cancel_a_stream(alice, upstream, asked_elsewhere=False)


def test_a_stream_is_cancelled_by_another_process(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cancel_a_stream(alice, upstream, asked_elsewhere=True)


def cancel_a_stream(alice: ApiClient, upstream: OpenAIDouble, *, asked_elsewhere: bool) -> None:
    cid = alice.conversation()
    upstream.plan(Behaviour(text="one two three", stop_after=2, ending="hang"))
    answer = alice.say(cid, "Hi", stream=True, key="k")
    pieces = iter(answer.streaming_content)
    read = b""
    while b"two" not in read:
        read += next(pieces)
    request_id = answer["x-request-id"]

    if asked_elsewhere:  # another process notes it in the database alone
        UsageEvent.objects.update(is_cancel_asked=True)
    else:
        cancelled = alice.post(f"{URL}/{request_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelling")
    began = time.monotonic()
    rest = b"".join(pieces)

    assert time.monotonic() - began < 4  # the upstream would have been waited for longer
    assert b'"finish_reason":"stop"' in rest
    assert b'"cancelled":true' in rest
    usage = UsageEvent.objects.get()
    assert (usage.status, usage.error_code) == ("completed", "cancelled")
    assert usage.is_estimated or upstream.dialect.says_usage == "with each chunk"
    assert usage.completion_tokens > 0
    assert Message.objects.get(role="assistant").content == "one two"
    assert upstream.hung_up == ["hang"]
    assert alice.post(f"{URL}/{request_id}/cancel").json()["status"] == "completed"
    assert alice.say(cid, "Hi", key="k").json()["cancelled"] is True


def test_what_cannot_be_cancelled(alice: ApiClient, bob: ApiClient, upstream: OpenAIDouble) -> None:
    request_id = alice.send(URL, {"messages": [{"role": "user", "content": "Hi"}]}).json()["id"]
    cancel = f"{URL}/{request_id}/cancel"

    assert bob.post(cancel).json()["error"]["code"] == "completion_not_found"
    assert alice.post(f"{URL}/r_nothing/cancel").status_code == 404
    assert alice.post(cancel).json()["status"] == "completed"
    UsageEvent.objects.update(status="pending", finished_at=None)
    assert alice.post(cancel).json()["error"]["code"] == "not_cancellable"
