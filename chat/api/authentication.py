import hmac
from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from chat.models import ClientToken


class ClientTokenAuthentication(BaseAuthentication):
    """Authenticates `Authorization: Bearer <token>` (RFC 6750) by the table of tokens, or by CLIENT_API_TOKEN.

    Without that header it looks for the token in those of Azure's and Anthropic's SDKs.
    """

    def authenticate(self, request: Request) -> tuple[None, ClientToken] | None:
        scheme, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        token = token.strip()
        if not scheme:
            token = (request.headers.get("api-key") or request.headers.get("x-api-key") or "").strip()
            if not token:
                return None
        elif scheme.lower() != "bearer" or not token:
            raise AuthenticationFailed("Send the token as `Authorization: Bearer <token>`.")
        client = self.find(token)
        if client is None:
            raise AuthenticationFailed("The token is unknown, expired or revoked; ask the operator for a new one.")
        return None, client

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="llmapi"'

    def find(self, token: str) -> ClientToken | None:
        digest = ClientToken.digest_of(token)
        if settings.CLIENT_API_TOKEN and hmac.compare_digest(digest, ClientToken.digest_of(settings.CLIENT_API_TOKEN)):
            client, _ = ClientToken.objects.get_or_create(is_setting=True, defaults={"name": "CLIENT_API_TOKEN"})
            return client if client.is_usable else None
        found = ClientToken.objects.filter(digest=digest).first()
        if found is None or not hmac.compare_digest(digest, found.digest or "") or not found.is_usable:
            return None
        return found


class IsClient(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.auth, ClientToken)
