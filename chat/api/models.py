from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response

from chat.api import answers, openapi
from chat.api.base import ClientViewSet, client_of
from chat.api.policy import models_of
from chat.exceptions import ModelNotFound
from chat.model_names import is_known


class ModelViewSet(ClientViewSet):
    @openapi.operation("Models", answers.ModelListOut)
    def list(self, request: Request) -> Response:
        """List the models that a client may name."""
        return Response({"object": "list", "data": [model_object(name) for name in models_of(client_of(request))]})

    @openapi.operation("Models", answers.ModelOut, 404)
    def retrieve(self, request: Request, model: str) -> Response:
        """Return one model."""
        allowed = models_of(client_of(request))
        # Where any name is taken, one that is not listed is, too.
        if not is_known(model) or (model in settings.OPENAI_MODELS and model not in allowed):
            raise ModelNotFound.named(model, allowed)
        return Response(model_object(model))


def model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llmapi"}
