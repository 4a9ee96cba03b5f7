"""What every answer carries, and middleware of Django that does no work for clients of the API, below `/v1/`."""

from collections.abc import Callable
from typing import Any

from csp.constants import HEADER
from csp.utils import build_policy
from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware import common
from django.utils.deprecation import MiddlewareMixin

from chat.api.sharing import PROBES, read_body
from chat.exceptions import ApiError, error_body

NO_STORE = "no-store"
# Pages that are the same for everybody. Static files have a Cache-Control of their own.
PUBLIC_PAGES = frozenset({"/", "/docs", "/schema"})


class PrivateAnswersMiddleware:
    """Let nobody store an answer, unless it is the same for everybody; and send no body with the answer to a HEAD."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        asked = response.headers.get("Cache-Control")
        if asked is None:
            if response.status_code >= 300 or request.path_info not in PUBLIC_PAGES:
                response.headers["Cache-Control"] = NO_STORE
        elif NO_STORE not in asked and not (response.status_code < 400 and is_static(request)):
            response.headers["Cache-Control"] = f"{asked}, {NO_STORE}"
        if request.method == "HEAD" and isinstance(response, HttpResponse):
            # gunicorn would drop it, and write a line to the log.
            response.content = b""
        return response


def is_static(request: HttpRequest) -> bool:
    return request.path.startswith(settings.STATIC_URL)


class FormSizeMiddleware:
    """Refuse a long body outside of the API before anything reads it: forms are short, and anybody can send them."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith("/v1/"):
            try:
                read_body(request, settings.MAX_FORM_BYTES, is_read_later=True)
            except ApiError as exc:
                return refuse(exc)
        return self.get_response(request)


def refuse(error: ApiError) -> HttpResponse:
    return JsonResponse(error_body(error.status_code, str(error.detail), error.default_code), status=error.status_code)


class ContentSecurityPolicyMiddleware:
    """Send one policy with each answer. django-csp's own middleware builds the policy twice for each request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.policy = build_policy()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        # Django's error pages for developers have styles and scripts inline.
        if not (settings.DEBUG and response.status_code in {404, 500}):
            response.headers[HEADER] = self.policy
        return response


class CommonMiddleware(common.CommonMiddleware):
    """Let probes name any host: load balancers ask each server by its address."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path_info in PROBES else super().process_request(request)


class PagesOnly(MiddlewareMixin):
    """Do nothing for clients. A client proves itself by its token, so it has no session and is no user of Django."""

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith("/v1/"):
            return self.get_response(request)
        return super().__call__(request)


class SessionMiddleware(PagesOnly, sessions.SessionMiddleware):
    pass


class AuthenticationMiddleware(PagesOnly, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(PagesOnly, messages.MessageMiddleware):
    pass
