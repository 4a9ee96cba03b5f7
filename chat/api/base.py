from typing import Any

from rest_framework import viewsets
from rest_framework.request import Request

from chat.exceptions import LengthRequired
from chat.models import ClientToken


class ClientViewSet(viewsets.ViewSet):
    """What every route of a client has."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            raise LengthRequired  # WSGI knows no body without a length, and would see none


def client_of(request: Request) -> ClientToken:
    assert isinstance(request.auth, ClientToken)  # IsClient has seen to it
    return request.auth
