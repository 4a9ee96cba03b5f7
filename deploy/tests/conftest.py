"""Real proxies in front of a real server, with their files as they stand: on their own ports and paths.

`make test-deploy` gives the tests a network of their own, and mounts that nobody else sees.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.openai_double import OpenAIDouble
from conftest import Server, running_server, wait_until

DEPLOY = Path(__file__).resolve().parent.parent
HOST = "chat.example.com"
# Folders that get what is written to them nowhere but in the tests' own mounts.
OWN = ["/etc", "/opt", "/run", "/var/log/nginx"]


@pytest.fixture(scope="session", autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A machine of the tests' own, as far as they change it."""
    assert os.environ.get("MOUNTS_OF_ALL") not in {None, os.readlink("/proc/self/ns/mnt")}, (
        "These tests mount over /etc; run them by make test-deploy."
    )
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    layers = tmp_path_factory.mktemp("layers")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(layers)], check=True)
    for folder in OWN:
        upper, work = (layers / part / folder.replace("/", "_") for part in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folder], check=True)
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost llmapi {HOST}\n")
    for name in ("sites-enabled", "conf.d"):
        shutil.rmtree(f"/etc/nginx/{name}")
        Path(f"/etc/nginx/{name}").mkdir()
    make_certificate(Path("/etc/letsencrypt/live") / HOST)


def make_certificate(folder: Path) -> None:
    folder.mkdir(parents=True)
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(["openssl", "req", "-x509", *key, *names, *files], check=True, capture_output=True)


@dataclass
class Site:
    """What a browser sees of the service."""

    host: str
    certificate: Path
    token: str
    port: int = 443
    below: str = ""
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def origin(self) -> str:
        return f"https://{self.host}" + ("" if self.port == 443 else f":{self.port}")

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        """Ask from an address of the client's own."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(
            self.host, self.port, context=context, timeout=60, source_address=("127.0.0.9", 0)
        )
        self.opened.callback(connection.close)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, self.below + path, body, named)
        return self.opened.enter_context(connection.getresponse())

    def post(self, path: str, body: bytes) -> http.client.HTTPResponse:
        return self.send("POST", path, body, Authorization=f"Bearer {self.token}", Content_Type="application/json")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def started(command: list[str], port: int, **env: str) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **env})
    try:
        wait_until(lambda: process.poll() is not None or accepts(port))
        assert process.poll() is None, "the proxy did not start"
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def nginx(*replacements: tuple[str, str], port: int = 443, inner: str = "") -> contextlib.AbstractContextManager[None]:
    """Start nginx with deploy/nginx.conf; `inner` is the text of a second proxy behind it."""
    files = Path("/etc/nginx/conf.d")
    for old in files.iterdir():
        old.unlink()
    text = (DEPLOY / "nginx.conf").read_text()
    for written, wanted in replacements:
        assert written in text
        text = text.replace(written, wanted)
    (files / "llmapi.conf").write_text(text)
    if inner:
        (files / "inner.conf").write_text(inner)
    subprocess.run(["nginx", "-t", "-q"], check=True)
    return started(["nginx", "-g", "daemon off;"], port)


@contextlib.contextmanager
def caddy(tmp: Path, *replacements: tuple[str, str]) -> Iterator[None]:
    """Start Caddy with deploy/Caddyfile and an authority of its own, which it has for localhost."""
    text = (DEPLOY / "Caddyfile").read_text()
    for written, wanted in replacements:
        assert written in text
        text = text.replace(written, wanted)
    file = tmp / "Caddyfile"
    file.write_text(text)
    home = {"XDG_DATA_HOME": str(tmp), "XDG_CONFIG_HOME": str(tmp), "HOME": str(tmp), "SITE": "localhost"}
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
    with started(command, 443, **home):
        # It listens before it has made its certificate.
        wait_until(lambda: any((tmp / "caddy/certificates").rglob("*.crt")))
        yield


@pytest.fixture
def serve_at_8080(transactional_db: None, upstream: OpenAIDouble) -> Iterator[Callable[..., Server]]:
    """Start the server where the files of the proxies look for it."""
    with contextlib.ExitStack() as stack:

        def serve(host: str = HOST, proxies: int = 1, **settings: str) -> Server:
            own = {
                "PORT": "8080",
                "ALLOWED_HOSTS": host,
                "TRUSTED_PROXIES": str(proxies),
                "WEB_CONCURRENCY": "1",
                **settings,
            }
            return stack.enter_context(running_server(upstream, **own))

        yield serve
