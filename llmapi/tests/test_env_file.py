"""`.env` is read to the letter, and nothing of it is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmapi.env_file import UnreadableFile, load, parse
from llmapi.launch import ROOT

SECRET = "s3cret-of-the-file"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=$5 coupons", "$5 coupons"),
        ("A=$ecret", "$ecret"),
        ("A=q$q#q", "q$q#q"),
        ("A=Write # as a heading", "Write # as a heading"),
        ("A=${HOME}", "${HOME}"),
        ("A=a=b==", "a=b=="),
        ("A=one\\ntwo", "one\\ntwo"),
        ('A="one\\ntwo\\\\n"', "one\ntwo\\n"),
        ('A=" spaces "', " spaces "),
        ("A=' one\\ntwo '", " one\\ntwo "),
        ('A="say \\"hi\\""', 'say "hi"'),
        ('A="a#b" # a comment', "a#b"),
        ("A='$a'", "$a"),
        ("export A=1", "1"),
        ("  A = 1  ", "1"),
        ("A=", ""),
        ('A=""', ""),
        ("A=it's", "it's"),
        ("A=“curly”", "“curly”"),
        ("A=a\x0bb\u2028c\x85d", "a\x0bb\u2028c\x85d"),
        ("\n\n# A=2\nA=1\n#", "1"),
        ("A=\nA=1", "1"),
        ("A=1\nA=", "1"),
        ("A=1\nA=1", "1"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_value_is_read_to_the_letter(line: str, value: str, end: str, mark: bytes) -> None:
    assert parse(mark + (line.replace("\n", end or "\n") + end).encode()) == {"A": value}


@given(st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8")))
def test_what_stands_in_double_quotes_is_the_value(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')

    assert parse(f'BEFORE=1\nA="{quoted}"\nAFTER=2\n'.encode()) == {"BEFORE": "1", "A": value, "AFTER": "2"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"A=1\n{SECRET}\n".encode(), "Line 2 of .env is not NAME=value"),
        (f"A=1\n\n- A: {SECRET}\n".encode(), "Line 3 of .env is not NAME=value"),
        (f"1A={SECRET}\n".encode(), "Line 1 of .env is not NAME=value"),
        (f'A="{SECRET}\n'.encode(), "Line 1 of .env begins with a quote that does not end the value"),
        (f"A='{SECRET}' and more\n".encode(), "Line 1 of .env begins with a quote that does not end the value"),
        (f"A=1\nB={SECRET}é\n".encode("latin-1"), "Line 2 of .env is not in UTF-8"),
        (f"A={SECRET}\n".encode("utf-16"), ".env is in UTF-16"),
        (f"A={SECRET}\n".encode("utf-16-le"), ".env is in UTF-16"),
        (f"A={SECRET}\nB=1\nA=2".encode(), "Lines 1 and 3 of .env both set A"),
    ],
)
def test_what_cannot_be_read_is_named_and_not_printed(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile) as raised:
        parse(content)
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [["manage.py", "check"], ["-m", "gunicorn", "-c", "gunicorn.conf.py", "--check-config"], ["-m", "llmapi.launch"]],
)
def test_all_commands_refuse_the_same_line(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"SECRET_KEY=1\nOPENAI_API_KEY: {SECRET}\n")
    env = {"PATH": os.environ["PATH"], "ENV_FILE": str(file)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == "llmapi: Line 2 of .env is not NAME=value; correct it, or begin it with #.\n"
    assert done.stdout == ""


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LLMAPI_TEST_A=file\nLLMAPI_TEST_B=file\n")
    monkeypatch.setenv("ENV_FILE", str(tmp_path / ".env"))
    monkeypatch.setenv("LLMAPI_TEST_A", "environment")
    monkeypatch.delenv("LLMAPI_TEST_B", raising=False)

    load()

    assert os.environ["LLMAPI_TEST_A"] == "environment"
    assert os.environ.pop("LLMAPI_TEST_B") == "file"
