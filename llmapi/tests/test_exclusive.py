"""Two starts at once on one database: the second waits for the first, and says so."""

import subprocess
import sys

from bench.openai_double import OpenAIDouble
from conftest import environment
from llmapi.exclusive import WAITING, exclusive
from llmapi.launch import ROOT


def test_a_second_start_waits_for_the_first(transactional_db: None, upstream: OpenAIDouble) -> None:
    with exclusive():
        second = subprocess.Popen(
            [sys.executable, "-m", "llmapi.prepare"],
            cwd=ROOT,
            env=environment(upstream),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert second.stderr
        assert second.stderr.readline() == f"{WAITING}\n"
        assert second.poll() is None

    password, said = second.communicate(timeout=60)

    assert (second.returncode, said) == (0, "")
    assert len(password.strip()) == 16
