"""The locks, the licences, known vulnerabilities, and an environment whose making is cut off."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmapi.supply_chain import LICENCES, ROOT, audit, check, lock_problems, verdict

LISTS = ["requirements.txt", "pyproject.toml"]
LOCKS = ["requirements.lock", "requirements-otel.lock", "requirements-dev.lock", "requirements-trial.lock"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the checks read."""
    for name in [*LISTS, *LOCKS, LICENCES]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_locks_and_the_licences_fit() -> None:
    check(ROOT)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("requirements.txt", "\nrich==", "\nrich==99.", "requirements.lock has rich 15.0.0, wanted is 99.15.0.0"),
        ("requirements.txt", "\nrich==15.0.0", "", "requirements.lock has rich 15.0.0, wanted is none"),
        ("requirements.txt", "\nrich==", "\nricher==1\nrich==", "requirements.lock has richer not, wanted is 1"),
        ("pyproject.toml", '"ruff==', '"ruff==99.', "requirements-dev.lock has ruff"),
        ("pyproject.toml", '"xllamacpp==', '"xllamacpp==99.', "requirements-trial.lock has xllamacpp"),
        ("requirements.lock", "\nsqlparse==", "\nsqlparse==99.", "requirements-dev.lock has another sqlparse"),
    ],
)
def test_a_lock_that_does_not_fit(tree: Path, name: str, old: str, new: str, said: str) -> None:
    change(tree / name, old, new)
    problems = lock_problems(tree)

    assert any(problem.startswith(said) for problem in problems), problems
    with pytest.raises(SystemExit, match=r"Run make lock\."):
        check(tree)


def test_every_package_has_a_hash(tree: Path) -> None:
    lock = tree / "requirements-trial.lock"
    lock.write_text(
        "\n".join(line for line in lock.read_text().splitlines() if "--hash" not in line).replace(" \\", "")
    )

    assert "requirements-trial.lock has no hash of xllamacpp" in lock_problems(tree)


def test_no_lock_names_an_index() -> None:
    for name in LOCKS:
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert "index-url" not in text


def test_a_licence_that_is_not_allowed(tree: Path) -> None:
    change(tree / "pyproject.toml", "ZPL-2.1; ", "")

    with pytest.raises(SystemExit, match=r"license ZPL-2\.1 not in allow-only .*; allow it in pyproject\.toml"):
        check(tree)


def test_a_licence_that_is_not_listed(tree: Path) -> None:
    change(tree / LICENCES, "| Django ", "| Djingo ")

    with pytest.raises(SystemExit, match=r"docs/licences\.md is not what is installed"):
        check(tree)


KNOWN = {"name": "rich", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2", "3"]}]}
CLEAN = {"name": "h11", "version": "1", "vulns": []}
SKIPPED = {"name": "gevent", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("report", "found", "unchecked"),
    [
        ([KNOWN, CLEAN], ["rich 1: CVE-1, mended in 2, 3"], ""),
        ([CLEAN], [], ""),
        ([CLEAN, SKIPPED], [], "1 of 2 packages (not found)"),
        (None, [], "all packages (ConnectionError: no such host)"),
    ],
)
def test_what_is_made_of_a_report(report: object, found: list[str], unchecked: str) -> None:
    text = json.dumps({"dependencies": report}) if report else ""

    assert verdict(text, "Traceback\nConnectionError: no such host\n") == (found, unchecked)


def test_an_audit_without_a_service_is_no_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    for strict in (False, True):
        with pytest.raises(SystemExit) as exit_:
            audit(ROOT, strict=strict)
        assert exit_.value.code == strict
        assert "NOT CHECKED for known vulnerabilities: all packages (" in capsys.readouterr().out


# Plays Python: `-m venv` makes an environment of itself, and pip ends as PIP says.
PYTHON = """#!/bin/sh
case "$*" in
  *"-m venv --clear .venv")
    rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo venv >>log
    [ "$CUT" != venv ] || kill -9 $PPID ;;
  *"-m pip install"*)
    echo pip >>log
    [ "$CUT" != pip ] || kill -9 $PPID
    [ "$CUT" != failure ] || exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("cut", "again"),
    [
        ("", []),
        ("venv", ["venv", "pip"]),
        ("pip", ["venv", "pip"]),
        ("failure", ["pip"]),
        ("python", ["venv", "pip"]),
        ("made", ["venv", "pip"]),
    ],
)
def test_an_environment_that_is_not_whole_is_made_anew(tmp_path: Path, cut: str, again: list[str]) -> None:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["make", "-s", f"PYTHON={python}", ".venv/run"]

    def make(cut: str) -> int:
        env = {**os.environ, "CUT": cut}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).returncode

    assert (make(cut) == 0) == (cut in {"", "python", "made"})
    log = folder / "log"
    log.write_text("")
    if cut == "python":
        (folder / ".venv/bin/python").unlink()
    if cut == "made":  # Another target was cut off in pip, after this one.
        (folder / ".venv/made").unlink()

    assert make("") == 0
    assert log.read_text().split() == again
    assert make("") == 0
    assert log.read_text().split() == again


def test_it_is_run_by_its_three_words() -> None:
    command = [sys.executable, "-m", "llmapi.supply_chain", "chek"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "check|audit|licences" in done.stderr
