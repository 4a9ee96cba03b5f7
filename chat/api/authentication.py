import hmac
from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from chat.api.sharing import credentials, token_of
from chat.exceptions import PersonBlocked, PublishableKey, SessionInvalid
from chat.identity import origins, tokens
from chat.models import ClientToken
from chat.turns.admission import SETTING, Admission, admissions


class ClientTokenAuthentication(BaseAuthentication):
    """Authenticates `Authorization: Bearer <token>` (RFC 6750) by the table of tokens, or by CLIENT_API_TOKEN.

    Without that header it looks for the token in those of Azure's and Anthropic's SDKs. With the client it learns
    whether the client's requests per minute admit the request; `ClientThrottle` refuses it.

    The access token of a session is taken wherever a client token is; the client is then that of its person alone.
    """

    def authenticate(self, request: Request) -> tuple[None, ClientToken] | None:
        token = token_of(request._request)
        if not token:
            if not request.META.get("HTTP_AUTHORIZATION"):
                return None
            raise AuthenticationFailed("Send the token as `Authorization: Bearer <token>`.")
        digest = ClientToken.digest_of(token)
        is_session = tokens.is_access_token(token)
        admission = admissions.run(tokens.read(token)) if is_session else self.find(digest)
        if admission is None:
            credentials.refuse(digest)
            if is_session:
                raise SessionInvalid
            raise AuthenticationFailed("The token is unknown, expired or revoked; ask the operator for a new one.")
        client = admission.client
        request._request.admission = admission  # type: ignore[attr-defined]
        credentials.accept(digest, client.holder)
        check_use(client, request)
        return None, client

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="llmapi"'

    def find(self, digest: str) -> Admission | None:
        if is_setting(digest):
            found = admissions.run(SETTING)
            if found is None:
                # One of the first requests, unless the token is revoked.
                client, _ = ClientToken.objects.get_or_create(is_setting=True, defaults={"name": "CLIENT_API_TOKEN"})
                found = admissions.run(SETTING) if client.is_usable else None
            return found
        found = admissions.run(digest)
        return found if found and hmac.compare_digest(digest, found.client.digest or "") else None


def check_use(client: ClientToken, request: Request) -> None:
    """Refuse a publishable token itself, a session from elsewhere, and a person who is blocked."""
    if not client.is_publishable:
        return
    if client.session is None or client.person is None:
        raise PublishableKey
    if client.person.is_blocked:
        raise PersonBlocked
    origins.check(client, request, client.session.origin)


def is_setting(digest: str) -> bool:
    """Tell whether the token is CLIENT_API_TOKEN, or one of those that are taken while it is changed."""
    tokens = [settings.CLIENT_API_TOKEN, *settings.CLIENT_API_TOKEN_FALLBACKS]
    return any(hmac.compare_digest(digest, ClientToken.digest_of(token)) for token in tokens if token)


class IsClient(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.auth, ClientToken)
