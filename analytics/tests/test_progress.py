import io
import sys
from collections.abc import Callable

import pytest

from analytics.management.progress import advancing, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tracked() -> None:
    assert list(track([1, 2, 3], "Days")) == [1, 2, 3]


def advanced() -> None:
    with advancing("usage_events", 60) as advance:
        advance(15, 1200)


@pytest.mark.parametrize(("work", "told"), [(tracked, ["Days"]), (advanced, ["usage_events", "25%", "1,200 rows"])])
@pytest.mark.parametrize("stderr", [io.StringIO(), Terminal()])
def test_it_is_told_to_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stderr: io.StringIO,
    work: Callable[[], None],
    told: list[str],
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")

    work()

    for text in told:
        assert (text in stderr.getvalue()) == stderr.isatty()
    assert capsys.readouterr().out == ""
