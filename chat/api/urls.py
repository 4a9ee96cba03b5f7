from django.urls import path

from chat.api.base import UnknownRouteView
from chat.api.completions import CompletionViewSet
from chat.api.conversations import ConversationViewSet, ItemViewSet
from chat.api.events import EventViewSet
from chat.api.models import ModelViewSet
from chat.api.sessions import PublishableKeyAuthentication, SessionViewSet
from chat.api.usage import UsageViewSet

conversations = ConversationViewSet.as_view({"post": "create"})
# OpenAI's API updates by POST.
conversation = ConversationViewSet.as_view({"get": "retrieve", "post": "update", "delete": "destroy"})
items = ItemViewSet.as_view({"get": "list", "post": "create"})
item = ItemViewSet.as_view({"get": "retrieve", "delete": "destroy"})
completions = CompletionViewSet.as_view({"post": "create"})

# The key of an app starts and renews sessions; a session tells of itself. Minting has limits of its own.
with_key = {"authentication_classes": [PublishableKeyAuthentication], "throttle_classes": []}

urlpatterns = [
    # Django tries routes one after another, and most requests are for this one.
    path("chat/completions", completions),
    path("conversations", conversations),
    path("conversations/<slug:conversation_id>", conversation),
    path("conversations/<slug:conversation_id>/items", items),
    path("conversations/<slug:conversation_id>/items/<slug:item_id>", item),
    path("chat/completions.pb", completions, {"format": "pb"}),
    path("chat/completions/<slug:request_id>/cancel", CompletionViewSet.as_view({"post": "cancel"})),
    path("models", ModelViewSet.as_view({"get": "list"})),
    path("models/<path:model>", ModelViewSet.as_view({"get": "retrieve"})),
    path("events", EventViewSet.as_view({"post": "create"})),
    path("usage", UsageViewSet.as_view({"get": "list"})),
    path("sessions", SessionViewSet.as_view({"post": "create"}, **with_key)),
    path("sessions/refresh", SessionViewSet.as_view({"post": "refresh"}, **with_key)),
    path("sessions/current", SessionViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path("<path:unknown>", UnknownRouteView.as_view()),
]
