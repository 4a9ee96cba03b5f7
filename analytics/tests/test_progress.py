import io
import sys

import pytest

from analytics.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stderr", "is_shown"), [(io.StringIO(), False), (Terminal(), True)])
def test_it_is_told_to_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stderr: io.StringIO, is_shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")

    assert list(track([1, 2, 3], "Days")) == [1, 2, 3]

    assert ("Days" in stderr.getvalue()) == is_shown
    assert capsys.readouterr().out == ""
