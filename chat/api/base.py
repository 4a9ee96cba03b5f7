from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.parsers import PARSERS
from chat.api.renderers import RENDERERS, SameFormatNegotiation
from chat.exceptions import LengthRequired
from chat.models import ClientToken


class ClientViewSet(viewsets.ViewSet):
    """Base of all routes for clients, which speak JSON and Protobuf."""

    parser_classes = PARSERS
    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            raise LengthRequired  # WSGI reads no body without a length, so the request would look empty.


def client_of(request: Request) -> ClientToken:
    assert isinstance(request.auth, ClientToken)  # as IsClient has checked
    return request.auth


@extend_schema(exclude=True)
class UnknownRouteView(APIView):
    """Answers unknown paths under /v1 with a 404 in OpenAI's shape, whatever the method, in DEBUG as well."""

    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation
    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.http_method_names = [str(request.method).lower()]
        return super().dispatch(request, *args, **kwargs)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound(f"llmapi does not offer {request.method} {request.path}; /docs lists every route.")
