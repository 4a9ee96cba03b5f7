from django.urls import path

from chat.views import CompletionViewSet, ConversationViewSet, ModelViewSet, UnknownRouteView

urlpatterns = [
    path("conversations", ConversationViewSet.as_view({"post": "create"})),
    path("chat/completions", CompletionViewSet.as_view({"post": "create"})),
    path("chat/completions.pb", CompletionViewSet.as_view({"post": "create"}), {"format": "pb"}),
    path("chat/completions/<str:request_id>/cancel", CompletionViewSet.as_view({"post": "cancel"})),
    path("models", ModelViewSet.as_view({"get": "list"})),
    path("<path:unknown>", UnknownRouteView.as_view()),
]
