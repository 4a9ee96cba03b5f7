"""The admin site of the staff: Django's, with the dashboard at its top."""

from functools import partial, wraps
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from analytics.api.permissions import VIEW_USAGE
from llmapi.staff import models
from llmapi.staff.dashboard import dashboard_context


class DashboardSite(AdminSite):
    site_title = site_header = "llmapi"
    index_title = "Conversations, usage and access"
    site_url = "/"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # METRICS_PUBLIC does not count here: the dashboard names the clients.
        context = {}
        if request.user.has_perm(VIEW_USAGE):
            context = {**dashboard_context(request.GET), "model_notices": models.notices()}
        return super().index(request, {**context, **(extra_context or {})})

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [path("models/", self.admin_view(partial(models.page, self)), name="models"), *super().get_urls()]

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Answer 400 if PostgreSQL refuses a value: Django's own pages query for any text that a URL holds."""

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except DataError as exc:
                raise BadRequest("No row can have this value; check the address of the page.") from exc

        return super().admin_view(guarded, cacheable)

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Refuse: no form of this admin uses it, and it would count and scan tables of any length."""
        raise PermissionDenied
