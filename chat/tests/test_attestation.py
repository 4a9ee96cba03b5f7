"""Apps that demand a proof: of a person from Cloudflare Turnstile, of the real app from Firebase App Check."""

import json
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest

from chat.identity import attestation
from chat.models import Attestation, Person
from chat.tests.test_sessions import App, code_of
from chat.tests.test_sign_in import JWT_TYPE, RSA, Jwks, jwks

__all__ = ["jwks"]


class Turnstile:
    """Cloudflare's siteverify: each proof is good once."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.good = {"proof"}
        self.is_away = False
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fields = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                own.asked.append(fields)
                proof = fields["response"][0]
                is_good = proof in own.good and fields["secret"] == ["key-of-the-widget"]
                own.good.discard(proof)
                body = json.dumps({"success": is_good, "hostname": "app.example.com", "error-codes": []}).encode()
                self.send_response(503 if own.is_away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(b"<html>" if own.is_away else body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/siteverify"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def turnstile(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turnstile]:
    found = Turnstile()
    monkeypatch.setattr(attestation, "SITEVERIFY", found.url)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def app(db: None) -> App:
    return App()


def start(app: App, proof: Any) -> Any:
    body = {"install_id": str(uuid.uuid4()), **({"attestation": proof} if proof else {})}
    return app.call("/v1/sessions", body)


def of(kind: str, proof: str = "proof") -> dict[str, str]:
    return {"type": kind, "token": proof}


def test_turnstile(app: App, turnstile: Turnstile) -> None:
    Attestation.objects.create(client_token=app.row, kind="turnstile", secret="key-of-the-widget")
    refused = start(app, None)
    assert code_of(refused) == (403, "attestation_failed")
    assert '"type": "turnstile"' in refused.json()["error"]["message"]
    assert code_of(start(app, of("app_check"))) == (403, "attestation_failed")
    assert code_of(start(app, of("turnstile", "made up"))) == (403, "attestation_failed")
    assert start(app, of("turnstile")).status_code == 201
    # Once.
    assert code_of(start(app, of("turnstile"))) == (403, "attestation_failed")
    assert Person.objects.count() == 1
    assert turnstile.asked[0]["remoteip"] == ["127.0.0.1"]


def test_turnstile_of_another_page(app: App, turnstile: Turnstile) -> None:
    row = Attestation.objects.create(
        client_token=app.row, kind="turnstile", secret="key-of-the-widget", hostnames="b.example.com"
    )
    assert code_of(start(app, of("turnstile"))) == (403, "attestation_failed")
    turnstile.good.add("second")
    row.hostnames = "b.example.com app.example.com"
    row.save()
    assert start(app, of("turnstile", "second")).status_code == 201


def test_turnstile_that_is_away_lets_nobody_in(app: App, turnstile: Turnstile) -> None:
    Attestation.objects.create(client_token=app.row, kind="turnstile", secret="key-of-the-widget")
    turnstile.is_away = True
    assert code_of(start(app, of("turnstile"))) == (403, "attestation_failed")
    turnstile.server.shutdown()
    turnstile.server.server_close()
    assert code_of(start(app, of("turnstile"))) == (403, "attestation_failed")


def test_made_up_proofs_of_an_address_are_limited(app: App, turnstile: Turnstile) -> None:
    """Else each would have Cloudflare asked."""
    Attestation.objects.create(client_token=app.row, kind="turnstile", secret="key-of-the-widget")
    body = {"subject_token": "x", "subject_token_type": JWT_TYPE, "attestation": of("turnstile", "made up")}
    codes = [code_of(app.call("/v1/sessions", body)) for _ in range(22)]
    assert codes == [(403, "attestation_failed")] * 20 + [(429, "session_limit_exceeded")] * 2
    assert len(turnstile.asked) == 20


def proof_of_app(key: Any = RSA[0], **changed: Any) -> dict[str, str]:
    now = int(time.time())
    claims = {
        "iss": "https://firebaseappcheck.googleapis.com/123",
        "aud": ["projects/123", "projects/shop"],
        "sub": "1:123:web:abc",
        "iat": now,
        "exp": now + 600,
    }
    return of("app_check", jwt.encode({**claims, **changed}, key, "RS256", headers={"kid": "one", "typ": "JWT"}))


def test_app_check(app: App, jwks: Jwks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestation, "APP_CHECK_KEYS", jwks.url)
    Attestation.objects.create(client_token=app.row, kind="app_check", project="123")
    assert start(app, proof_of_app()).status_code == 201
    for refused in (
        proof_of_app(RSA[1]),
        proof_of_app(aud=["projects/999"]),
        proof_of_app(iss="https://evil.example.org/123"),
        proof_of_app(exp=int(time.time()) - 100),
        of("app_check", "no.jwt.here"),
    ):
        assert code_of(start(app, refused)) == (403, "attestation_failed")
