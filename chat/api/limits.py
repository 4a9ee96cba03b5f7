"""How HTTP shows limits: each request has a list of `limits` that it was counted against, and its answer names them."""

import math
from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from analytics import ledger
from chat.exceptions import RateLimitExceeded, UpstreamRateLimited
from chat.limits.status import LimitStatus
from chat.models import ClientToken

TOO_MANY = 429
REFUSALS = {401, 403, TOO_MANY}
# Names of policies in headers, where they differ from the limit's.
POLICY_NAMES = {"requests_per_min": "rpm", "tokens_per_min": "tpm"}


class LimitsMiddleware:
    """Tell a client on each answer what is left of its limits, errors included, and count refusals."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        limits: list[LimitStatus] = []
        request.limits = limits  # type: ignore[attr-defined]
        response = self.get_response(request)
        set_headers(response, limits)
        if response.status_code in REFUSALS and (admission := getattr(request, "admission", None)):
            code = response.data["error"]["code"]  # type: ignore[attr-defined]
            # The provider's limits are none of the client's. What the rules of an app refuse is told on its page.
            if code != UpstreamRateLimited.default_code and (
                response.status_code == TOO_MANY or admission.client.is_publishable
            ):
                ledger.count_refusal(admission.client.pk, code)
        return response


def limits_of(request: Request) -> list[LimitStatus]:
    limits: list[LimitStatus] = request._request.limits  # type: ignore[attr-defined]
    return limits


class ClientThrottle(BaseThrottle):
    """Refuse requests over the client token's requests per minute, as its authentication has found."""

    def allow_request(self, request: Request, view: object) -> bool:
        client = request.auth
        if not isinstance(client, ClientToken):
            return True
        status: LimitStatus | None = request._request.admission.status  # type: ignore[attr-defined]
        if status is None:
            return True
        limits_of(request).append(status)
        if status.is_exceeded:
            message = "Too many requests in this minute; wait as long as Retry-After says."
            raise RateLimitExceeded(message, retry_after=status.next_in)
        return True


def set_headers(response: HttpResponseBase, limits: list[LimitStatus]) -> None:
    """Set the headers of draft-ietf-httpapi-ratelimit-headers-11 for all limits, and OpenAI's for rates."""
    policies, states = [], []
    for limit in limits:
        name = POLICY_NAMES.get(limit.name, limit.name)
        policies.append(f'"{name}";q={limit.most}' + (f";w={limit.window}" if limit.window else ""))
        states.append(f'"{name}";r={limit.left};t={math.ceil(limit.next_in)}')
        if limit.window:
            response[f"x-ratelimit-limit-{limit.unit}"] = str(limit.most)
            response[f"x-ratelimit-remaining-{limit.unit}"] = str(limit.left)
            response[f"x-ratelimit-reset-{limit.unit}"] = f"{max(0.0, limit.reset_in):.3f}s"
    if limits:
        response["RateLimit-Policy"] = ", ".join(policies)
        response["RateLimit"] = ", ".join(states)
