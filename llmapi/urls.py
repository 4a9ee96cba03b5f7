from typing import Any

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularSwaggerSplitView

from chat.api.base import UnknownRouteView
from llmapi.health import HealthView, ReadyView
from llmapi.schema import SchemaView

# For everybody, and counted against no rate limit: the description of the API, and probes, which send no token.
OPEN: dict[str, Any] = {"authentication_classes": [], "permission_classes": [], "throttle_classes": []}

urlpatterns = [
    path("v1/", include("chat.api.urls")),
    path("", TemplateView.as_view(template_name="web/index.html"), name="home"),
    path("health", HealthView.as_view(**OPEN)),
    path("ready", ReadyView.as_view(**OPEN)),
    path("", include("analytics.api.urls")),
    path("schema", SchemaView.as_view(**OPEN), name="schema"),
    path("docs", SpectacularSwaggerSplitView.as_view(template_name="llmapi/docs.html", **OPEN), name="docs"),
    path("admin/", admin.site.urls),
    # What a client asks for whose base_url does not end in /v1.
    re_path(
        r"^(api|chat|completions|conversations|embeddings|models|openai|responses)(/|$)", UnknownRouteView.as_view()
    ),
]

handler400 = handler403 = handler404 = handler500 = "chat.exceptions.answer_page_error"
