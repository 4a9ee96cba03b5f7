"""Sign-in with a real OpenID provider: discovery, the code flow, its keys over HTTP, and their rotation."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import oidc_provider_mock
import pytest

from chat.identity import providers
from chat.models import IdentityProvider
from chat.tests.test_sessions import App, Someone
from chat.tests.test_sign_in import JWT_TYPE

# The provider uses what a later version of its own library drops.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REDIRECT = "https://app.example.com/callback"


@contextmanager
def running(port: int) -> Iterator[str]:
    """Run a provider. Each one that starts has keys of its own."""
    with oidc_provider_mock.run_server_in_thread(port=port) as server:
        yield f"http://localhost:{server.server_port}"


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Let the caller see where it leads."""


def fetch(url: str, form: dict[str, str] | None = None) -> Any:
    """Return what JSON is there, or else where it leads."""
    data = urllib.parse.urlencode(form).encode() if form is not None else None
    try:
        with urllib.request.build_opener(NoRedirect).open(url, data, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.headers["Location"]


def id_token_of(issuer: str, person: str) -> str:
    """Sign a person in as a browser does, and return the id token."""
    found = fetch(f"{issuer}/.well-known/openid-configuration")
    asked = {"client_id": "shop", "redirect_uri": REDIRECT, "response_type": "code", "scope": "openid", "state": "s"}
    back = fetch(f"{found['authorization_endpoint']}?{urllib.parse.urlencode(asked)}", {"sub": person})
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    form |= {"client_id": "shop", "client_secret": "any"}
    token: str = fetch(found["token_endpoint"], form)["id_token"]
    return token


def test_signs_in_with_a_provider_whose_keys_rotate(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    providers._keys.clear()
    app = App()
    with running(0) as issuer:
        port = urllib.parse.urlsplit(issuer).port or 0
        keys = fetch(f"{issuer}/.well-known/openid-configuration")["jwks_uri"]
        IdentityProvider.objects.create(client_token=app.row, issuer=issuer, audience="shop", jwks_url=keys)

        def sign_in(token: str) -> Any:
            return app.call("/v1/sessions", {"subject_token": token, "subject_token_type": JWT_TYPE})

        old = id_token_of(issuer, "ann@example.com")
        answer = sign_in(old)
        assert answer.status_code == 201, answer.content
        ann = Someone(app, answer.json())
        assert not ann.granted["user"]["is_anonymous"]

    with running(port) as issuer:
        monkeypatch.setattr(providers, "AGAIN_SECONDS", 0)
        again = sign_in(id_token_of(issuer, "ann@example.com"))
        assert again.status_code == 201, again.content
        assert again.json()["user"]["id"] == ann.id
        # What the old keys have signed is taken no more, and the session of before goes on.
        assert sign_in(old).status_code == 401
        assert ann.get("/v1/sessions/current").status_code == 200
        assert app.refresh(ann.granted["refresh_token"]).status_code == 200
