from django.urls import path, re_path

from chat.views import CompletionViewSet, ConversationViewSet, ModelViewSet, UnknownRouteView

urlpatterns = [
    path("conversations", ConversationViewSet.as_view({"post": "create"})),
    path("chat/completions", CompletionViewSet.as_view({"post": "create"})),
    re_path(r"^chat/completions\.(?P<format>pb)$", CompletionViewSet.as_view({"post": "create"})),
    path("models", ModelViewSet.as_view({"get": "list"})),
    path("<path:unknown>", UnknownRouteView.as_view()),
]
