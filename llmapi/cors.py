import re
from urllib.parse import SplitResult

from corsheaders.middleware import ACCESS_CONTROL_ALLOW_HEADERS, CorsMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.identity.origins import published

# Names of headers, separated by commas (RFC 9110, section 5.6.2).
NAMES = re.compile(r"[\w!#$%&'*+.^`|~-]+( *, *[\w!#$%&'*+.^`|~-]+)*", re.ASCII)


class AnyHeaderCorsMiddleware(CorsMiddleware):
    """Allows the origins of CORS_ALLOWED_ORIGINS and of publishable keys every header that they ask for.

    SDKs and tracers add headers of their own, and no list of them is complete. Nor would it protect anything: an origin
    is trusted or not, and a client proves itself by its token.
    """

    def origin_found_in_white_lists(self, origin: str, url: SplitResult) -> bool:
        # A preflight names no key. Whether this key may be used there, the answer to the request tells.
        return super().origin_found_in_white_lists(origin, url) or origin in published

    def add_response_headers(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response = super().add_response_headers(request, response)
        asked = request.headers.get("access-control-request-headers", "").strip()
        if ACCESS_CONTROL_ALLOW_HEADERS in response and NAMES.fullmatch(asked):
            response[ACCESS_CONTROL_ALLOW_HEADERS] += f", {asked}"
        return response
