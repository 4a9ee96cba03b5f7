"""The files that deploy the server fit each other, and the settings that they are made for."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.try_image import RELEASE, instructions, is_ignored
from llmapi.launch import ROOT


def read(name: str) -> str:
    return (ROOT / name).read_text()


COMPOSE: dict[str, Any] = yaml.safe_load(read("compose.yaml"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = list(instructions(read("Dockerfile")))
UNIT = dict(re.findall(r"^(\w+)=(.*)$", read("deploy/llmapi.service"), re.MULTILINE))


def constant(file: str, name: str) -> Any:
    """Return what a file of Python assigns to a name at its top."""
    for node in ast.parse(read(file)).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} does not set {name}")


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


GRACE = constant("gunicorn.conf.py", "graceful_timeout")
KEPT = constant("gunicorn.conf.py", "keepalive")
NGINX = read("deploy/nginx.conf")
CADDY = read("deploy/Caddyfile")


def found(pattern: str, text: str) -> str:
    (only,) = re.findall(pattern, text)
    return str(only)


def test_all_wait_until_turns_have_ended() -> None:
    assert int(UNIT["TimeoutStopSec"]) >= GRACE + 5
    assert seconds(SERVICES["llmapi"]["stop_grace_period"]) >= GRACE + 5
    assert GRACE <= seconds(found(r"grace_period (\d+s)", CADDY)) < seconds(SERVICES["caddy"]["stop_grace_period"])


def test_no_proxy_uses_a_connection_that_the_server_closes() -> None:
    assert seconds(found(r"keepalive_timeout (\d+s)", NGINX)) < KEPT
    assert seconds(found(r"keepalive (\d+s)", CADDY)) < KEPT


def test_proxies_wait_as_long_as_a_turn_may_take() -> None:
    longest = int(found(r"UPSTREAM_TIMEOUT_SECONDS=(\d+)", read(".env.example")))
    longest += int(found(r"IDEMPOTENCY_WAIT_SECONDS=(\d+)", read(".env.example")))
    assert seconds(found(r"proxy_read_timeout (\d+s)", NGINX)) > longest
    assert seconds(found(r"response_header_timeout (\d+s)", CADDY)) > longest


def test_nginx_takes_the_largest_body() -> None:
    most = int(found(r"MAX_REQUEST_BYTES=(\d+)", read(".env.example")))
    megabytes = int(found(r"client_max_body_size (\d+)m", NGINX))
    assert most < megabytes * 1024**2 < 1.1 * most


def test_both_stages_have_one_python_that_the_project_takes() -> None:
    base, *others = [rest.split()[0] for name, rest in DOCKERFILE if name == "FROM"]
    version = found(rf"^python:(\d+\.\d+)\.\d+-slim-{RELEASE}$", base)

    assert others == [base]
    assert f"py{version.replace('.', '')}" == found(r'target-version = "(\w+)"', read("pyproject.toml"))


def test_every_port_is_the_default() -> None:
    port = found(r"(?m)^PORT=(\d+)$", read(".env.example"))

    assert dict(DOCKERFILE)["EXPOSE"] == port == SERVICES["llmapi"]["environment"]["PORT"]
    assert f"PORT={port}" in dict(DOCKERFILE)["ENV"]
    assert f"server 127.0.0.1:{port} max_fails=0;" in NGINX
    assert f"reverse_proxy llmapi:{port} " in CADDY


def test_the_server_of_compose_has_no_rights() -> None:
    server = SERVICES["llmapi"]

    assert (server["read_only"], server["tmpfs"], server["cap_drop"]) == (True, "/tmp", ["ALL"])
    assert server["security_opt"] == ["no-new-privileges:true"]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["caddy"]
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert SERVICES["database"]["networks"] == ["back"]
    assert dict(DOCKERFILE)["USER"] == "10001:10001"


@pytest.mark.parametrize(
    ("path", "is_kept"),
    [
        ("llmapi/settings.py", True),
        ("llmapi/static/llmapi/lists.css", True),
        ("clients/web/static/web/chat.js", True),
        ("deploy/start.py", True),
        ("requirements.lock", True),
        (".env", False),
        ("db.sqlite3", False),
        (".git/config", False),
        ("chat/tests/test_store.py", False),
        ("llmapi/__pycache__/settings.cpython-311.pyc", False),
        ("deploy/nginx.conf", False),
    ],
)
def test_no_secret_and_no_test_is_copied_into_the_image(path: str, *, is_kept: bool) -> None:
    patterns = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]

    assert is_ignored(Path(path), patterns) is not is_kept


def test_all_that_the_image_copies_is_there() -> None:
    copied = [
        name for word, rest in DOCKERFILE if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    ]

    assert [name for name in copied if not (ROOT / name).exists()] == []
    # Each part of the project is in it.
    assert {"analytics", "chat", "clients", "llmapi", "protos"} <= set(copied)
