"""What tests of turns share."""

from collections.abc import Iterator

import pytest

from bench.dialects import DIALECTS, Dialect
from bench.openai_double import OpenAIDouble
from chat.turns import registry


@pytest.fixture
def no_turn_is_left() -> Iterator[None]:
    """Fail a test that leaves a turn running."""
    yield
    registry.drain(10)
    assert not registry._running


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest, upstream: OpenAIDouble) -> Dialect:
    """Run the test once with each provider's way to speak OpenAI's protocol."""
    upstream.dialect = request.param
    return upstream.dialect
