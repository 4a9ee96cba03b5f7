from typing import Any

from django.http.response import HttpResponseBase
from rest_framework import viewsets
from rest_framework.request import Request

from analytics import recording
from chat.exceptions import LengthRequired
from chat.models import ClientToken
from chat.throttling import set_headers


class ClientViewSet(viewsets.ViewSet):
    """What every route of a client has: its limit is told on each answer, errors included."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
            raise LengthRequired  # WSGI knows no body without a length, and would see none

    def finalize_response(self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any) -> Any:
        set_headers(request, response, getattr(response, "quota", None))
        if response.status_code == 429 and isinstance(request.auth, ClientToken):
            recording.count_refusal(request.auth.pk, response.data["error"]["code"])  # type: ignore[attr-defined]
        return super().finalize_response(request, response, *args, **kwargs)  # type: ignore[arg-type]


def client_of(request: Request) -> ClientToken:
    assert isinstance(request.auth, ClientToken)  # IsClient has seen to it
    return request.auth
