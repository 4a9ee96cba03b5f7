"""The admin site of the staff: Django's, with the dashboard at its top."""

from functools import partial, wraps
from http import HTTPStatus
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path

from analytics.api.permissions import VIEW_USAGE
from analytics.replica import ReplicaUnavailable
from llmapi.staff import models
from llmapi.staff.dashboard import dashboard_context


class DashboardSite(AdminSite):
    site_title = site_header = "llmapi"
    index_title = "Conversations, usage and access"
    site_url = "/"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        # METRICS_PUBLIC does not count here: the dashboard names the clients.
        context: dict[str, Any] = {}
        if request.user.has_perm(VIEW_USAGE):
            context["model_notices"] = models.notices()
            try:
                context |= dashboard_context(request.GET)
            except ReplicaUnavailable as exc:
                # The pages below are read from the primary: tokens can be changed all the same.
                context["dashboard_error"] = str(exc)
        response = super().index(request, {**context, **(extra_context or {})})
        if "dashboard_error" in context:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return response

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [path("models/", self.admin_view(partial(models.page, self)), name="models"), *super().get_urls()]

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Answer 400 if PostgreSQL refuses a value: Django's own pages query for any text that a URL holds.

        Answer 503 if a page of figures cannot read the replica.
        """

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return view(request, *args, **kwargs)
            except DataError as exc:
                raise BadRequest("No row can have this value; check the address of the page.") from exc
            except ReplicaUnavailable as exc:
                context = {**self.each_context(request), "title": "No figures", "message": str(exc)}
                return TemplateResponse(
                    request, "llmapi/unavailable.html", context, status=HTTPStatus.SERVICE_UNAVAILABLE
                )

        return super().admin_view(guarded, cacheable)

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Refuse: no form of this admin uses it, and it would count and scan tables of any length."""
        raise PermissionDenied
