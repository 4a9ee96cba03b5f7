"""What tests of turns share."""

from collections.abc import Iterator

import pytest

from chat.turns import registry


@pytest.fixture
def no_turn_is_left() -> Iterator[None]:
    """Fail a test that leaves a turn running."""
    yield
    registry.drain(10)
    assert not registry._running
