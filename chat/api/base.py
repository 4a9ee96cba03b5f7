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
from chat.api.sharing import receive
from chat.models import ClientToken, Person

# Routes of OpenAI's API that llmapi does not offer, with what to use in their place.
NOT_OFFERED = {
    "responses": "Responses are not offered. Frameworks have a switch to chat completions: openai.chat(id) or "
    '@ai-sdk/openai-compatible (Vercel AI SDK), set_default_openai_api("chat_completions") (OpenAI Agents SDK), '
    "use_responses_api=False (LangChain), OpenAIChatModel (Pydantic AI), the model name openai/… (LiteLLM)."
}


class ClientViewSet(viewsets.ViewSet):
    """Base of all routes for clients, which speak JSON and Protobuf."""

    parser_classes = PARSERS
    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        receive(request)


def person_ids(client: ClientToken) -> list[str] | None:
    """Return the users whose turns a session may touch: its person, and who became that person. None: all of them."""
    if not client.person:
        return None
    return [client.person.pk, *Person.objects.filter(merged_into=client.person).values_list("pk", flat=True)]


def client_of(request: Request) -> ClientToken:
    assert isinstance(request.auth, ClientToken)  # as IsClient has checked
    return request.auth


@extend_schema(exclude=True)
class UnknownRouteView(APIView):
    """Answers paths that only OpenAI's API has with a 404 that helps, whatever the method, in DEBUG as well."""

    renderer_classes = RENDERERS
    content_negotiation_class = SameFormatNegotiation
    authentication_classes = ()
    permission_classes = (AllowAny,)
    throttle_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.http_method_names = [str(request.method).lower()]
        return super().dispatch(request, *args, **kwargs)

    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        raise NotFound(f"llmapi does not offer {request.method} {request.path[:200]}. {advice(request.path_info)}")


def advice(path: str) -> str:
    """Say what to do about a path that llmapi does not have."""
    if not path.startswith("/v1/") or path.startswith(("/v1/v1/", "/v1//")):
        return "The base_url of a client must end in /v1, once: POST …/v1/chat/completions. /docs lists every route."
    name = path.removeprefix("/v1/").partition("/")[0]
    return f"{NOT_OFFERED.get(name, '')} Replies come from POST /v1/chat/completions; /docs lists every route.".lstrip()
