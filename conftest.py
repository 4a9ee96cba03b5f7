"""What every test has: an upstream double, and two clients."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from bench.openai_double import OpenAIDouble


@pytest.fixture
def upstream(settings: Settings) -> Iterator[OpenAIDouble]:
    from chat.upstream import client

    with OpenAIDouble() as double:
        settings.OPENAI_BASE_URL = double.url
        client.cache_clear()
        yield double
        client().close()
        client.cache_clear()


class ApiClient(Client):
    """Django's test client, speaking JSON with a client token."""

    def __init__(self, name: str) -> None:
        from chat.models import ClientToken

        self.token_row = ClientToken(name=name)
        self.token = self.token_row.renew()
        self.token_row.save()
        # Tests see the 500 that a client would see.
        super().__init__(headers={"authorization": f"Bearer {self.token}"}, raise_request_exception=False)

    def send(self, path: str, body: Any, key: str | None = None, **headers: str) -> Any:
        if key is not None:
            headers["Idempotency-Key"] = key
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        return self.post(path, data, content_type="application/json", headers=headers)

    def conversation(self) -> str:
        answer = self.send("/v1/conversations", {})
        assert answer.status_code == 201, answer.content
        conversation_id: str = answer.json()["id"]
        return conversation_id

    def say(self, conversation_id: str, message: str, key: str | None = None, **fields: Any) -> Any:
        body = {"conversation_id": conversation_id, "message": message, **fields}
        return self.send("/v1/chat/completions", body, key)


@pytest.fixture
def alice(db: None) -> ApiClient:
    return ApiClient("alice")


@pytest.fixture
def bob(db: None) -> ApiClient:
    return ApiClient("bob")
