"""A database that is away: a 503, and no reply that was paid for is lost."""

from typing import Any

import pytest
from django.db import OperationalError

from bench.openai_double import OpenAIDouble
from chat.models import Message
from chat.turns import lifecycle
from chat.turns.settling import settlements
from conftest import ApiClient


def test_a_database_that_is_away_is_a_503(alice: ApiClient) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fail(*args: object) -> None:
            raise OperationalError("could not connect")

        patch.setattr("chat.api.authentication.ClientTokenAuthentication.find", fail)
        answer = alice.send("/v1/conversations", {})

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer["Retry-After"] == "1"


@pytest.mark.django_db(transaction=True)
def test_a_paid_reply_outlives_a_short_outage(alice: ApiClient, upstream: OpenAIDouble) -> None:
    cid = alice.conversation()
    original = settlements.work
    failures = iter([OperationalError("gone"), OperationalError("gone")])

    def flaky(*args: Any) -> Any:
        for failure in failures:
            raise failure
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settlements, "work", flaky)
        patch.setattr(lifecycle, "RETRY_DELAYS", (0.01, 0.01, 0.01))
        answer = alice.say(cid, "Hi")

    assert answer.status_code == 200
    assert Message.objects.count() == 2
