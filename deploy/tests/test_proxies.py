"""nginx and Caddy in front of the server: JSON, streams piece by piece, the client's address, ports and paths."""

import contextlib
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.conf import settings

from analytics.models import UsageEvent
from bench.openai_double import Behaviour, OpenAIDouble
from chat.models import RateLimit
from conftest import Server
from deploy.tests.conftest import DEPLOY, HOST, Site, caddy, nginx
from llmapi.login import tries

pytestmark = pytest.mark.deploy
Serve = Callable[..., Server]
CERTIFICATE = Path(f"/etc/letsencrypt/live/{HOST}/fullchain.pem")
AUTHORITY = "caddy/pki/authorities/local/root.crt"
PATH = "/bot"


def inner_of(outer: str) -> str:
    """The second of two nginx: the same location, in a server without TLS, which believes the first about HTTPS."""
    location = outer[outer.rindex("    location / {") :].replace("$scheme;", "$http_x_forwarded_proto;")
    return "server { listen 127.0.0.1:8081; client_max_body_size 21m; " + location


@pytest.fixture(params=["nginx", "caddy", "another port", "two nginx", "nginx below a path", "caddy below a path"])
def site(request: pytest.FixtureRequest, serve_at_8080: Serve, tmp_path: Path) -> Iterator[Site]:
    below = PATH if "below" in request.param else ""
    with contextlib.ExitStack() as stack:
        if "caddy" in request.param:
            server = serve_at_8080("localhost", SCRIPT_NAME=below, METRICS_PUBLIC="false")
            docs = [("reverse_proxy llmapi", f"reverse_proxy {PATH}/* llmapi")] if below else []
            stack.enter_context(caddy(tmp_path, *docs))
            site = Site("localhost", tmp_path / AUTHORITY, server.token, below=below)
        else:
            server = serve_at_8080(proxies=2 if "two" in request.param else 1, SCRIPT_NAME=below)
            port, inner, changes = 443, "", []
            if "port" in request.param:
                port, changes = 8443, [(":443 ssl", ":8443 ssl"), ("listen 443 ssl", "listen 8443 ssl")]
            if "two" in request.param:
                inner = inner_of((DEPLOY / "nginx.conf").read_text())
                changes = [("proxy_pass http://llmapi;", "proxy_pass http://127.0.0.1:8081;")]
            if below:
                changes = [("location / {", f"location {PATH}/ {{")]
            stack.enter_context(nginx(*changes, port=port, inner=inner))
            site = Site(HOST, CERTIFICATE, server.token, port, below)
        with site.opened:
            yield site


def test_it_serves_through_the_proxy(site: Site, upstream: OpenAIDouble) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    answer = site.post("/v1/chat/completions", body)
    assert (answer.status, json.load(answer)["choices"][0]["message"]["content"]) == (200, "echo: Hi")

    most = settings.MAX_REQUEST_BYTES
    answer = site.post("/v1/chat/completions", body.ljust(most))
    assert answer.status == 200
    if site.host == HOST:
        # llmapi says what is too large, in its own words. Caddy hangs up on a client that still sends.
        answer = site.post("/v1/chat/completions", b" " * (most + 1))
        assert (answer.status, json.load(answer)["error"]["code"]) == (413, "request_too_large")

    page = site.send("GET", "/").read().decode()
    for link in re.findall(r'(?:href|src)="(/[^"]+)"', page):
        assert link.startswith(f"{site.below}/")
        assert site.send("GET", link.removeprefix(site.below)).status == 200

    # Each piece of a stream comes at once: the turn still runs when the first is here.
    upstream.plan(Behaviour(pieces=["one", " two"], pause=1))
    answer = site.post("/v1/chat/completions", body[:-1] + b', "stream": true}')
    while b'"one"' not in answer.readline():
        assert not answer.isclosed()
    assert UsageEvent.objects.pending().count() == 1
    assert answer.read().endswith(b"data: [DONE]\n\n")

    # The login takes a form that came by HTTPS, and counts the try for the address of the client, not one it invents.
    form = site.send("GET", "/admin/login/")
    assert "max-age=" in form.headers["Strict-Transport-Security"] if site.host == HOST else True
    csrf = SimpleCookie(form.headers["Set-Cookie"])["csrftoken"].value
    wrong = urlencode({"username": "ada", "password": "wrong", "csrfmiddlewaretoken": csrf}).encode()
    sent = {"Cookie": f"csrftoken={csrf}", "Origin": site.origin, "Content_Type": "application/x-www-form-urlencoded"}
    tried = site.send("POST", "/admin/login/", wrong, X_Forwarded_For="203.0.113.7", **sent)
    assert (tried.status, b"Please enter" in tried.read()) == (200, True)
    assert set(RateLimit.objects.filter(key__startswith="login:address").values_list("key", flat=True)) == {
        f"login:address:{tries.digest_of('127.0.0.9')}"
    }


SERVER = "server 127.0.0.1:8080 max_fails=0;"


def test_a_node_that_is_gone_is_passed_over(serve_at_8080: Serve) -> None:
    server = serve_at_8080()
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()

    with nginx((SERVER, f"server 127.0.0.1:8079 max_fails=0; {SERVER}")), contextlib.ExitStack() as opened:
        site = Site(HOST, CERTIFICATE, server.token, opened=opened)
        assert [site.post("/v1/chat/completions", body).status for _ in range(4)] == [200] * 4


def test_no_turn_is_sent_to_two_nodes() -> None:
    """A node that takes a request and dies: whether to send it again is the client's to say."""
    taken: list[bytes] = []

    class Dying(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            taken.append(self.rfile.readline())

    with contextlib.ExitStack() as stack:
        for port in (8078, 8079):
            node = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", port), Dying))
            threading.Thread(target=node.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(node.shutdown)
        both = SERVER.replace("8080", "8078") + SERVER.replace("8080", "8079")
        stack.enter_context(nginx((SERVER, both)))
        site = Site(HOST, CERTIFICATE, "none", opened=stack.enter_context(contextlib.ExitStack()))

        assert (site.post("/v1/chat/completions", b"{}").status, len(taken)) == (502, 1)
