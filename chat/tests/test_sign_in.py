"""People who sign in with a provider of the team's own, and what an anonymous person takes along."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from analytics.metrics.active_users import dau
from analytics.metrics.sources import Table
from analytics.models import MergedUser, Milestone, UsageEvent
from analytics.query import Query
from analytics.rollups.coverage import bring_up_to_date
from bench.openai_double import OpenAIDouble
from chat.identity import providers
from chat.models import Budget, ClientToken, Conversation, IdempotencyKey, IdentityProvider, Person, Plan
from chat.tests.test_sessions import ORIGIN, App, Someone, code_of

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


class Jwks:
    """The keys of a provider, over HTTP, as long as it stands."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked = 0
        self.is_away = False
        jwks = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                jwks.asked += 1
                body = json.dumps({"keys": [{**public(key), "kid": kid} for kid, key in jwks.keys.items()]}).encode()
                self.send_response(503 if jwks.is_away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks.json"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def public(key: Any) -> dict[str, Any]:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    algorithm = jwt.get_algorithm_by_name("RS256" if is_rsa else "ES256")
    named: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return {**named, "alg": "RS256" if is_rsa else "ES256", "use": "sig"}


RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def jwks() -> Iterator[Jwks]:
    providers._keys.clear()
    found = Jwks()
    found.keys["one"] = RSA[0]
    yield found
    found.server.shutdown()
    found.server.server_close()


class Provider:
    """An app whose people sign in, as staff have set it, and tokens of its provider."""

    def __init__(self, jwks: Jwks, **fields: Any) -> None:
        self.jwks, self.app = jwks, App(sessions_per_min=100_000)
        named = {"issuer": "https://id.example.com", "audience": "shop", "jwks_url": jwks.url, "plan_claim": "app.plan"}
        self.row = IdentityProvider.objects.create(client_token=self.app.row, **{**named, **fields})

    def token(
        self, subject: str = "ann", *, kid: str = "one", key: Any = RSA[0], algorithm: str = "RS256", **changed: Any
    ) -> str:
        now = int(time.time())
        claims = {"iss": self.row.issuer, "aud": self.row.audience, "sub": subject, "iat": now, "exp": now + 3600}
        claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else {})

    def sign_in(self, token: str, **more: Any) -> Any:
        body = {"subject_token": token, "subject_token_type": JWT_TYPE, **more}
        return self.app.call("/v1/sessions", body, REMOTE_ADDR=f"2001:db8:{uuid.uuid4().hex[:4]}::1")

    def known(self, subject: str = "ann", **more: Any) -> Someone:
        answer = self.sign_in(self.token(subject), **more)
        assert answer.status_code == 201, answer.content
        return Someone(self.app, answer.json())


@pytest.fixture
def provider(db: None, jwks: Jwks) -> Provider:
    return Provider(jwks)


def test_signs_in(provider: Provider, upstream: OpenAIDouble) -> None:
    ann = provider.known()
    assert ann.granted["user"] == {"id": ann.id, "is_anonymous": False, "plan": None}
    assert provider.known().id == ann.id
    assert provider.known("ben").id != ann.id
    assert ann.say("Hello").status_code == 200
    person = Person.objects.get(pk=ann.id)
    assert (person.issuer, person.subject) == ("https://id.example.com", "ann")
    assert person.signed_up_at


def public_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return RSA[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs_with_public_key(provider: Provider) -> str:
    """PyJWT refuses to make it, so it is made by hand."""
    import hashlib
    import hmac

    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"one"}').rstrip(b"=")
    body = provider.token().split(".")[1].encode()
    mac = hmac.new(public_pem(), header + b"." + body, hashlib.sha256).digest()
    return b".".join([header, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: p.token(kid="one", key="", algorithm="none"),
        hs_with_public_key,
        lambda p: p.token(iss="https://evil.example.org"),
        lambda p: p.token(aud="other"),
        lambda p: p.token(aud=None),
        lambda p: p.token(exp=int(time.time()) - 61),
        lambda p: p.token(exp=None),
        lambda p: p.token(nbf=int(time.time()) + 100),
        lambda p: p.token(key=RSA[1]),
        lambda p: p.token(kid="stale", key=RSA[1]),
        lambda p: p.token(kid=""),
        lambda p: p.token(subject=""),
        lambda p: p.token(sub="x" * 256),
        lambda p: p.token(sub=None),
        lambda p: "no.jwt.here",
        lambda p: base64.urlsafe_b64encode(b"[" * 4000).decode() + ".e30.AA",
        lambda p: p.token().rpartition(".")[0] + ".",
    ],
)
def test_refuses_a_token(provider: Provider, make: Any) -> None:
    provider.jwks.keys["two"] = EC
    answer = provider.sign_in(make(provider))
    assert code_of(answer) == (401, "invalid_subject_token"), answer.content
    assert answer.json()["error"]["param"] == "subject_token"
    assert not Person.objects.exists()


def test_refuses_a_long_token(provider: Provider) -> None:
    answer = provider.sign_in(provider.token(extra="x" * 9000))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "subject_token"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"install_id": "no uuid"},
        {"install_id": str(uuid.uuid4()), "subject_token": "x"},
        {"subject_token": "x"},
        {"subject_token": "x", "subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        {"install_id": str(uuid.uuid4()), "refresh_token": "x"},
        {"install_id": str(uuid.uuid4()), "user": "me"},
    ],
)
def test_refuses_a_body_that_is_none(provider: Provider, body: dict[str, Any]) -> None:
    assert code_of(provider.app.call("/v1/sessions", body)) == (400, "invalid_request")


def test_an_app_without_a_provider_has_no_sign_in(db: None) -> None:
    answer = App().call("/v1/sessions", {"subject_token": "x", "subject_token_type": JWT_TYPE})
    assert code_of(answer) == (403, "not_allowed")


def test_elliptic_curves(db: None, jwks: Jwks) -> None:
    jwks.keys = {"curve": EC}
    provider = Provider(jwks, algorithm="ES256")
    assert provider.sign_in(provider.token(kid="curve", key=EC, algorithm="ES256")).status_code == 201
    jwks.keys = {"curve": RSA[0]}
    providers._keys.clear()
    assert provider.sign_in(provider.token(kid="curve")).status_code == 401


def test_a_shared_secret(db: None, jwks: Jwks) -> None:
    secret = "s" * 40
    provider = Provider(jwks, algorithm="HS256", shared_secret=secret, jwks_url="")
    assert provider.sign_in(provider.token(kid="", key=secret, algorithm="HS256")).status_code == 201
    assert provider.sign_in(provider.token(kid="", key="t" * 40, algorithm="HS256")).status_code == 401
    assert provider.sign_in(provider.token()).status_code == 401
    assert not jwks.asked


def test_the_party_is_the_origin(db: None, jwks: Jwks) -> None:
    """Clerk names in azp the page that asked for the token."""
    provider = Provider(jwks, party_claim="azp")
    assert provider.sign_in(provider.token(azp=ORIGIN)).status_code == 201
    assert provider.sign_in(provider.token(azp="https://evil.example.org")).status_code == 401
    assert provider.sign_in(provider.token()).status_code == 401


def test_firebase_and_supabase(db: None, jwks: Jwks) -> None:
    """Tokens as both make them (https://firebase.google.com/docs/auth/admin/verify-id-tokens)."""
    firebase = Provider(jwks, issuer="https://securetoken.google.com/shop-1", audience="shop-1", plan_claim="plan")
    own: dict[str, Any] = {
        "auth_time": 1,
        "user_id": "f1",
        "firebase": {"sign_in_provider": "google.com", "identities": {}},
    }
    assert firebase.sign_in(firebase.token("f1", **own)).status_code == 201
    url = "https://abc.supabase.co/auth/v1"
    supabase = Provider(jwks, issuer=url, audience="authenticated", plan_claim="app_metadata.plan")
    Plan.objects.create(name="pro")
    own = {"role": "authenticated", "aal": "aal1", "is_anonymous": False, "app_metadata": {"plan": "pro"}}
    answer = supabase.sign_in(supabase.token(str(uuid.uuid4()), **own))
    assert answer.json()["user"]["plan"] == "pro"


def test_keys_rotate_while_sessions_run(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = provider.known()
    provider.jwks.keys = {"two": RSA[1]}
    token = provider.token(kid="two", key=RSA[1])
    # Keys were asked for a moment ago, and are not asked for again in the same minute.
    assert provider.sign_in(token).status_code == 401
    assert provider.jwks.asked == 1
    monkeypatch.setattr(providers, "AGAIN_SECONDS", 0)
    assert provider.sign_in(token).status_code == 201
    assert provider.jwks.asked == 2
    assert ann.get("/v1/sessions/current").status_code == 200


def test_invented_keys_cost_one_request_a_minute(provider: Provider) -> None:
    for number in range(15):
        provider.sign_in(provider.token(kid=f"k{number}"))
    assert provider.jwks.asked == 1


def test_a_provider_that_is_away(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.jwks.is_away = True
    answer = provider.sign_in(provider.token())
    assert code_of(answer) == (503, "unavailable")
    # Nobody else waits for it at once, and nobody is told that the token is wrong.
    assert code_of(provider.sign_in(provider.token())) == (503, "unavailable")
    assert provider.jwks.asked == 1
    provider.jwks.is_away = False
    monkeypatch.setattr(providers, "AGAIN_SECONDS", 0)
    assert provider.sign_in(provider.token()).status_code == 201
    # Keys that are known are believed, whoever is away.
    provider.jwks.is_away = True
    monkeypatch.setattr(providers, "FRESH_SECONDS", -1)
    monkeypatch.setattr(providers, "AGAIN_SECONDS", -1)
    assert provider.sign_in(provider.token()).status_code == 201


def test_plans_come_from_the_claim_else_from_the_app(provider: Provider) -> None:
    free, pro = Plan.objects.create(name="free"), Plan.objects.create(name="pro")
    ClientToken.objects.update(default_plan=free)

    def plan_with(**claims: Any) -> Any:
        return provider.sign_in(provider.token(**claims)).json()["user"]["plan"]

    assert plan_with() == "free"
    assert plan_with(app={"plan": "pro"}) == "pro"
    assert plan_with(app={"plan": "unheard-of"}) == "free"
    assert plan_with(app={"plan": ["pro"]}) == "free"
    # What staff have set holds over both.
    Person.objects.update(plan=pro)
    assert plan_with(app={"plan": "free"}) == "pro"


def test_a_blocked_person_does_not_sign_in(provider: Provider) -> None:
    provider.known()
    Person.objects.update(is_blocked=True)
    assert code_of(provider.sign_in(provider.token())) == (403, "person_blocked")


# --- an anonymous person signs in ---


def test_takes_along_what_is_theirs(provider: Provider, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(user_day_tokens=10**6)
    anonymous = provider.app.person()
    conversation = anonymous.conversation()
    said = anonymous.say("Hello", conversation, key="k1")
    spent = said.json()["usage"]["total_tokens"]
    ann = provider.known(refresh_token=anonymous.granted["refresh_token"])
    assert ann.id != anonymous.id
    assert ann.get(f"/v1/conversations/{conversation}/items").status_code == 200
    # The same message is not bought again.
    assert ann.say("Hello", conversation, key="k1").headers["Idempotent-Replayed"] == "true"
    assert (
        ann.post("/v1/events", {"events": [{"name": "thumbs_up", "request_id": said.json()["id"]}]}).status_code == 201
    )
    (limit,) = [one for one in ann.get("/v1/usage").json()["limits"] if one["name"] == "user_day_tokens"]
    assert limit["left"] == 10**6 - spent
    # Whoever had the device before may have copied the tokens: they are not the known person's.
    assert code_of(anonymous.get("/v1/sessions/current")) == (401, "invalid_token")
    assert code_of(provider.app.refresh(anonymous.granted["refresh_token"])) == (401, "invalid_token")
    assert Conversation.objects.get(pk=conversation).user_id == ann.id


def test_a_merge_is_done_once(provider: Provider, upstream: OpenAIDouble) -> None:
    ClientToken.objects.update(user_day_tokens=10**6)
    anonymous = provider.app.person()
    anonymous.say("Hello")
    for _ in range(3):
        ann = provider.known(refresh_token=anonymous.granted["refresh_token"])
    (used,) = Budget.objects.filter(user_id=ann.id, unit="tokens").values_list("used", flat=True)
    assert used == Budget.objects.get(user_id=anonymous.id, unit="tokens").used
    # Nobody else gets it.
    ben = provider.known("ben", refresh_token=anonymous.granted["refresh_token"])
    assert not Budget.objects.filter(user_id=ben.id).exists()
    assert Person.objects.get(pk=anonymous.id).merged_into_id == ann.id


def test_a_token_that_was_used_before_merges_nobody(provider: Provider) -> None:
    """Else whoever has an old copy could take the conversations along."""
    anonymous = provider.app.person()
    conversation = anonymous.conversation()
    old = anonymous.granted["refresh_token"]
    renewed = provider.app.refresh(provider.app.refresh(old).json()["refresh_token"]).json()
    eve = provider.sign_in(provider.token("eve"), refresh_token=old)
    assert code_of(eve) == (401, "invalid_token")
    assert Conversation.objects.get(pk=conversation).user_id == anonymous.id
    assert provider.sign_in(provider.token("ann"), refresh_token=renewed["refresh_token"]).status_code == 201


def test_a_key_that_both_have_used_stays_each_ones(provider: Provider, upstream: OpenAIDouble) -> None:
    ann = provider.known()
    mine = ann.conversation()
    said = ann.say("Hello", mine, key="same")
    anonymous = provider.app.person()
    anonymous.say("Other", key="same")
    anonymous.say("Other", key="mine")
    again = provider.known(refresh_token=anonymous.granted["refresh_token"])
    assert again.say("Hello", mine, key="same").json()["id"] == said.json()["id"]
    keys = set(IdempotencyKey.objects.values_list("idempotency_key", flat=True))
    assert keys == {f"{ann.id}:same", f"{ann.id}:mine", f"{anonymous.id}:same"}


def test_a_known_person_is_never_merged(provider: Provider) -> None:
    ann = provider.known()
    conversation = ann.conversation()
    ben = provider.known("ben", refresh_token=ann.granted["refresh_token"])
    assert Conversation.objects.get(pk=conversation).user_id == ann.id
    assert ann.get("/v1/sessions/current").json()["user"]["id"] == ann.id
    assert ben.get(f"/v1/conversations/{conversation}").status_code == 404


def test_over_the_limit_means_refused_and_never_forgiven(provider: Provider, upstream: OpenAIDouble) -> None:
    anonymous = provider.app.person()
    ClientToken.objects.update(user_day_tokens=6000)
    while anonymous.say("Hello").status_code == 200:
        pass
    ann = provider.known(refresh_token=anonymous.granted["refresh_token"])
    assert code_of(ann.say("Hello")) == (429, "budget_exceeded")


def test_one_person_is_counted_once(provider: Provider, upstream: OpenAIDouble) -> None:
    anonymous = provider.app.person()
    anonymous.say("Hello")
    Milestone.objects.create(user_id=anonymous.id, first_day="2026-01-01")
    ann = provider.known(refresh_token=anonymous.granted["refresh_token"])
    ann.say("Hello again")
    bring_up_to_date()
    assert [row["users"] for row in dau(Table(Query.last_days(1)))] == [1]
    assert set(UsageEvent.objects.values_list("user_id", flat=True)) == {ann.id}
    assert MergedUser.objects.get().merged_into == ann.id
    assert str(Milestone.objects.get(pk=ann.id).first_day) == "2026-01-01"
