"""Sessions of people: a publishable key starts them, and they stand for one person each."""

from typing import Any

from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers, status
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response

from chat.api import answers, openapi
from chat.api.addresses import address_of
from chat.api.base import ClientViewSet, client_of
from chat.api.scalars import Text
from chat.api.serializers import KnownFieldsSerializer, validated
from chat.api.sharing import credentials, token_of
from chat.exceptions import AttestationFailed, NotAllowed, SecretKey, SessionInvalid, SignInInvalid
from chat.identity import attestation, minting, origins, providers, sessions, tokens
from chat.identity.sessions import Granted
from chat.models import Attestation, ClientSession, ClientToken, IdentityProvider
from chat.turns.admission import Admission

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


class PublishableKeyAuthentication(BaseAuthentication):
    """Authenticates a publishable key, which can do nothing but start sessions."""

    def authenticate(self, request: Request) -> tuple[None, ClientToken] | None:
        minting.check_failures(address_of(request._request))
        key = token_of(request._request)
        if not key:
            return None
        digest = ClientToken.digest_of(key)
        client = ClientToken.objects.filter(digest=digest).first()
        if client and client.is_usable and client.is_publishable:
            request._request.admission = Admission(client)  # type: ignore[attr-defined]
            credentials.accept(digest, client.pk)
            return None, client
        credentials.refuse(digest)
        minting.note_failure(address_of(request._request))
        if client and client.is_usable:
            raise SecretKey
        raise AuthenticationFailed("The key is unknown, expired or revoked; a publishable key begins with pk_.")

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="llmapi"'


class AttestationIn(KnownFieldsSerializer):
    type = serializers.ChoiceField(choices=Attestation.Kind.values)
    token = Text(max_length=attestation.MAX_PROOF)


class SessionIn(KnownFieldsSerializer):
    """Either `install_id`, for somebody who has not signed in, or `subject_token`."""

    install_id = serializers.UUIDField(
        required=False,
        help_text="A random UUID that this installation keeps. It proves nothing, and limits by it hold.",
    )
    subject_token = Text(required=False, max_length=tokens.MAX_TOKEN, help_text="The JWT of your own sign-in.")
    subject_token_type = serializers.ChoiceField(choices=[JWT_TYPE], required=False)
    refresh_token = Text(
        required=False,
        max_length=200,
        help_text="Of an anonymous session: what it has becomes the person's who signs in.",
    )
    attestation = AttestationIn(required=False, help_text="Where the app demands one.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("install_id" in attrs) == ("subject_token" in attrs):
            raise serializers.ValidationError("Send either install_id or subject_token.")
        if "refresh_token" in attrs and "subject_token" not in attrs:
            raise serializers.ValidationError(
                {"refresh_token": ["Only with subject_token; POST /v1/sessions/refresh renews it."]}
            )
        if "subject_token" in attrs and "subject_token_type" not in attrs:
            raise serializers.ValidationError({"subject_token_type": [f"Send {JWT_TYPE}."]})
        return attrs


class RefreshIn(KnownFieldsSerializer):
    refresh_token = Text(max_length=200)


PersonOut = answers.shape(
    "PersonOut",
    id=str,
    is_anonymous=bool,
    plan=serializers.CharField(allow_null=True, help_text="Null: the app has no plans."),
)
SessionOut = answers.shape(
    "SessionOut",
    object="session",
    id=str,
    access_token=serializers.CharField(
        help_text="Send it as `Authorization: Bearer …`, wherever a client token is taken."
    ),
    token_type="Bearer",  # noqa: S106 the name of a scheme
    expires_in=serializers.IntegerField(help_text="Seconds."),
    refresh_token=serializers.CharField(help_text="Taken once. Keep it where no other site can read it."),
    user=PersonOut(),
)
CurrentSessionOut = answers.shape("CurrentSessionOut", object="session", id=str, user=PersonOut())
SessionDeletedOut = answers.shape("SessionDeletedOut", id=str, object="session.deleted", deleted=bool)


class SessionViewSet(ClientViewSet):
    @openapi.operation(
        "Sessions",
        SessionOut,
        *(400, 403, 411, 413, 415),
        status=201,
        request=SessionIn,
        examples=[
            OpenApiExample("Somebody", {"install_id": "0e984725-c51c-4bf4-9960-e1c80e27aba0"}, request_only=True),
            OpenApiExample(
                "Somebody who has signed in",
                {"subject_token": "eyJ…", "subject_token_type": JWT_TYPE},
                description="Put in the JWT that your own sign-in gave you.",
                request_only=True,
            ),
        ],
    )
    def create(self, request: Request) -> Response:
        """Start a session, with a publishable key.

        `install_id` starts one of an anonymous person, `subject_token` one of a person who has signed in.
        """
        client, origin, address = client_of(request), request.headers.get("Origin", ""), address_of(request._request)
        origins.check(client, request)
        asked = validated(SessionIn(data=request.data))
        if "install_id" in asked:
            minting.admit(client, address, str(asked["install_id"]))
            attestation.check(client, asked.get("attestation"), address)
            return granted(sessions.start_anonymous(client, origin))
        attestation.check(client, asked.get("attestation"), address)
        identity = providers.verify(provider_of(client), asked["subject_token"], origin)
        minting.admit_known(client, identity)
        anonymous = sessions.find_anonymous(client, asked["refresh_token"]) if "refresh_token" in asked else None
        return granted(sessions.sign_in(client, identity, origin, anonymous))

    @openapi.operation(
        "Sessions",
        SessionOut,
        *(400, 403, 411, 413, 415),
        request=RefreshIn,
        examples=[OpenApiExample("Renew", {"refresh_token": "rt_…"}, request_only=True)],
    )
    def refresh(self, request: Request) -> Response:
        """Renew both tokens of a session, with a publishable key.

        The token that is sent is taken once, and again for 10 seconds: for tabs, and for answers that got lost.
        """
        client = client_of(request)
        origins.check(client, request)
        asked = validated(RefreshIn(data=request.data))
        renewed = sessions.refresh(client, asked["refresh_token"], request.headers.get("Origin", ""))
        return granted(renewed, status.HTTP_200_OK)

    @openapi.operation("Sessions", CurrentSessionOut, 403)
    def retrieve(self, request: Request) -> Response:
        """Return the session that is asked with."""
        session = session_of(request)
        return Response({"object": "session", "id": session.pk, "user": person_object(client_of(request))})

    @openapi.operation("Sessions", SessionDeletedOut, 403)
    def destroy(self, request: Request) -> Response:
        """Sign out: the tokens of this session are not taken any more."""
        session = session_of(request)
        sessions.revoke(session.pk)
        return Response({"id": session.pk, "object": "session.deleted", "deleted": True})

    def handle_exception(self, exc: Exception) -> Response:
        """Count a proof, a sign-in or a refresh that was made up as a failed try of its address."""
        if isinstance(exc, SessionInvalid | SignInInvalid | AttestationFailed):
            minting.note_failure(address_of(self.request._request))
        return super().handle_exception(exc)


def provider_of(client: ClientToken) -> IdentityProvider:
    found = IdentityProvider.objects.filter(client_token=client).first()
    if found is None:
        raise NotAllowed("This app has no sign-in; send install_id.", param="subject_token")
    return found


def session_of(request: Request) -> ClientSession:
    session = client_of(request).session
    if session is None:
        raise NotAllowed("A client token is no session; sessions are started with a publishable key.")
    return session


def granted(session: Granted, status_code: int = status.HTTP_201_CREATED) -> Response:
    answer = {
        "object": "session",
        "id": session.session.pk,
        "access_token": session.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.ACCESS_SECONDS,
        "refresh_token": session.refresh_token,
        "user": person_object(session.client),
    }
    return Response(answer, status=status_code)


def person_object(client: ClientToken) -> dict[str, Any]:
    assert client.person is not None
    plan = client.plan.name if client.plan else None
    return {"id": client.person.pk, "is_anonymous": client.person.is_anonymous, "plan": plan}
