"""Every command on the pages for operators runs against a real server, or stands in a short list that says why not.

A page has each command in a fence: `sh`, where every line is one, `console`, where those that begin with $ are, or
`crontab`.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands

from bench.openai_double import OpenAIDouble
from conftest import running_server
from llmapi.env_file import parse
from llmapi.launch import ROOT

PAGES = [
    *(
        "README.md",
        "SECURITY.md",
        "docs/backup.md",
        "docs/clients.md",
        "docs/configure.md",
        "docs/deploy.md",
        "docs/observe.md",
    ),
    *("docs/scale.md", "docs/secure.md", "docs/upgrade.md"),
]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What holds no command.
OTHERS = {"caddyfile", "http", "ini", "javascript", "nginx", "python", "text"}
# cron's five fields, and its command, of which a % ends the line unless it is escaped.
CRON = re.compile(r"(?:\S+ +){5}((?:[^%\\\n]|\\.)+)")
# Where a server of systemd stands, and what it reads.
INSTALLED = "cd /opt/llmapi && ENV_FILE=/etc/llmapi/env "
# A line, with those that it goes on in: after a backslash, or up to the end of a here-document.
COMMAND = re.compile(r"(?:[^\n]*<<(\w+)\n.*?^\1|(?:[^\n]*\\\n)*[^\n]*)(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# What may run here, after what it sets: it changes nothing outside of the scratch folder.
RUN = re.compile(
    r"([A-Z_]+=\S+ )*"
    r"(curl |command curl |manage\.py |\.venv/bin/python |python -m bench\.capacity |"
    r"[A-Z]+=\S*\$\((grep|curl|echo|\.venv/bin/python manage\.py) |cd /opt/llmapi && ENV_FILE=\S+ \.venv/bin/python |"
    r"cp \.env\.example \.env && chmod 600 \.env$|cat >> \.env <<END)"
)
# What does not, by how it begins: the reason. What it names is looked for.
HELD = {
    "make ": "installs packages or runs this suite; CI and its other tests run the targets",
    "docker compose ": "needs a container engine; make try-image executes the image's steps",
    "useradd ": "makes a user of the system",
    "git clone ": "needs the repository's address",
    "python3 -m venv ": "installs packages; CI and make try-image do the same",
    "install -D ": "writes to /etc",
    "cp deploy/": "writes to /etc; make test-deploy tries the file",
    "nginx ": "needs nginx; make test-deploy runs it",
    "cd /opt/llmapi && sudo ": "needs the user of the unit",
    "psql ": "changes the primary; python -m bench.replica does the same",
    "echo ": "writes to pg_hba.conf; python -m bench.replica does the same",
    "pg_basebackup ": "copies the primary; python -m bench.replica does the same",
    "REPLICA_DATABASE_URL=": "names the replica; python -m bench.replica does the same",
}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SERVICES = set(yaml.safe_load((ROOT / "compose.yaml").read_text())["services"])
FILES = re.compile(r"(?<![\w/.])(?:deploy|docs|bench|clients|llmapi)/[\w./-]+|[\w-]+\.(?:lock|py)\b|\.env\.example")
# curl tells of an error, and manage.py is short for what README says.
SHELL = """
set -eu -o pipefail
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
curl() { command curl --fail-with-body --max-time 30 "$@"; }
manage.py() { .venv/bin/python manage.py "$@"; }
cd "$SCRATCH"
"""


def commands(page: str) -> list[str]:
    """Return the commands of a page, each as it stands, but for a comment at its end."""
    found = []
    for language, text in FENCE.findall((ROOT / page).read_text()):
        assert language in {"sh", "console", "crontab"} | OTHERS, f"{page}: a fence of the unknown kind {language!r}"
        if language == "crontab":
            found += [command.replace("\\%", "%") for command in CRON.findall(text)]
        for match in COMMAND.finditer(text) if language in {"sh", "console"} else ():
            line = match[0].strip("\n")
            if language == "console":
                is_command, line = line.startswith("$ "), line.removeprefix("$ ")
            else:
                is_command = bool(line) and not line.startswith("#")
            if is_command:
                found.append(re.sub(r" +# .*$", "", line))
    return found


def is_held(command: str) -> bool:
    return command.startswith(tuple(HELD))


def test_each_command_is_run_or_held() -> None:
    found = [command for page in PAGES for command in commands(page)]

    assert [command for command in found if not is_held(command) and not RUN.match(command)] == []
    assert [start for start in HELD if not any(command.startswith(start) for command in found)] == []


def missing(command: str) -> list[str]:
    """Return what a command names, of this repository, that is not there."""
    names = [name for name in FILES.findall(command) if not (ROOT / name).exists()]
    words = command.split()
    for place, word in enumerate(words[:-1]):
        following = words[place + 1]
        if word == "make" and following.split("=")[0] not in TARGETS | {"PYTHON"}:
            names.append(following)
        if word == "exec" and following not in SERVICES:
            names.append(following)
        if word == "manage.py" and following not in {*get_commands(), "help"}:
            names.append(following)
        if word == "-m" and words[place - 1].startswith("python") and not importlib.util.find_spec(following):
            names.append(following)
        if word == "--now" and not (ROOT / "deploy" / f"{following}.service").exists():
            names.append(following)
    return names


def test_what_commands_name_is_there() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        inline = re.findall(r"`((?:make|manage\.py|python -m|docker compose) [^`\n]*)`", FENCE.sub("", text))
        assert {command: missing(command) for command in commands(page) + inline if missing(command)} == {}


def test_what_is_missing_is_found() -> None:
    assert missing("make nothing") == ["nothing"]
    assert missing("docker compose exec web python manage.py nothing") == ["web", "nothing"]
    assert missing("cp deploy/nothing.conf /etc && systemctl enable --now nothing") == [
        "deploy/nothing.conf",
        "nothing",
    ]
    assert missing("python -m bench.nothing && pip install -r nothing.lock") == ["nothing.lock", "bench.nothing"]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder like a clone, where commands may write."""
    # Nothing that is written to: a link to the log of a database would be that of another.
    for name in ("manage.py", "clients", "bench", ".env.example"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "backups" / "llmapi").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def session(scratch: Path, double: OpenAIDouble) -> Iterator[dict[str, str]]:
    """The environment of an operator's shell, with a real server on a database of its own."""
    settings = {
        "ENV_FILE": str(scratch / ".env"),
        "DATABASE_URL": f"sqlite:///{scratch}/db.sqlite3",
        "OPENAI_BASE_URL": double.url,
        "OPENAI_API_KEY": "sk-of-a-test",
        "CLIENT_API_TOKEN": "llm_a-token-of-the-pages-that-is-long-enough",
        "SECRET_KEY": "of-the-pages" * 5,
        "METRICS_PUBLIC": "",
    }
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(scratch), "SCRATCH": str(scratch), "ENV_FILE": settings["ENV_FILE"]}
    (scratch / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    migrate = [sys.executable, "manage.py", "migrate", "-v0"]
    subprocess.run(migrate, cwd=ROOT, env=env, check=True)
    with running_server(double, **settings) as server:
        with (scratch / ".env").open("a") as file:
            file.write(f"PORT={server.url.rpartition(':')[2]}\n")
        yield env


def run(page: str, env: dict[str, str]) -> str:
    """Run the commands of a page in one shell. Return what went wrong."""
    lines = [command for command in commands(page) if not is_held(command)]
    scratch = env["SCRATCH"]
    if page == "docs/deploy.md":
        # It writes a `.env` of its own.
        (folder := Path(scratch, "deployed")).mkdir()
        (folder / ".env.example").symlink_to(ROOT / ".env.example")
        scratch = str(folder)
    elif page != "README.md":
        # As it is set there.
        lines = [*[line for line in commands("README.md") if line.startswith(("TOKEN=$(grep", "API="))], *lines]
    script = SHELL + "\n".join(lines)
    # A restore is into another database, which no server uses.
    script = script.replace(
        "\nmanage.py restore", f"\nDATABASE_URL=sqlite:///{scratch}/restored.sqlite3 manage.py restore"
    )
    script = (
        script.replace(INSTALLED, "")
        .replace("/var/backups/", f"{scratch}/backups/")
        .replace("/tmp/trial", f"{scratch}/trial")
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**env, "SCRATCH": scratch},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return "" if done.returncode == 0 else f"{done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_the_commands_of_the_pages_run(session: dict[str, str], scratch: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        said = pool.map(lambda page: run(page, session), PAGES)

    assert {page: words for page, words in zip(PAGES, said, strict=True) if words} == {}
    # What they have made.
    assert len(list((scratch / "backups" / "llmapi").glob("20??-??-??"))) == 1
    assert (scratch / "week.html").read_text().startswith("<!doctype html>")
    settings = parse((scratch / "deployed" / ".env").read_bytes())
    assert (len(settings["SECRET_KEY"]), settings["SITE"]) == (64, "chat.example.com")
