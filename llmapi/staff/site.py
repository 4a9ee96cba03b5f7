"""The admin site of the staff: Django's, with the dashboard at its top, and with bounds on what it takes."""

from collections.abc import Callable
from functools import partial, wraps
from http import HTTPStatus
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse

from analytics.api.permissions import VIEW_USAGE
from analytics.fairness import Busy, Share
from analytics.replica import ReplicaUnavailable
from llmapi.login import devices
from llmapi.login.forms import LoginForm, OwnPasswordForm, answer_refusal
from llmapi.login.hashing import HashingBusy
from llmapi.staff import models
from llmapi.staff.dashboard import dashboard_context

# Pages that a process makes at once: for all of the staff, and for one of them.
PAGES = Share(lambda: 4, patience=1, most_waiting=8)
BUSY = "The server makes as many pages for the staff as it can; open this one again in a moment."


class DashboardSite(AdminSite):
    site_title = site_header = "llmapi"
    index_title = "Conversations, usage and access"
    site_url = "/"
    login_form = LoginForm

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        if request.method == "POST" and request.user.is_authenticated and response.status_code == HTTPStatus.FOUND:
            devices.remember(request, response, request.user.get_username())
        answer_refusal(response)
        return response

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Django's view, with a form that limits the tries."""
        view = PasswordChangeView.as_view(
            form_class=OwnPasswordForm,
            success_url=reverse("admin:password_change_done", current_app=self.name),
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        request.current_app = self.name
        response = view(request)
        answer_refusal(response)
        return response

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

        Answer 503 while too many pages are being made or passwords hashed, or if figures cannot be read.
        """

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                return make_page(request, partial(view, request, *args, **kwargs))
            except DataError as exc:
                raise BadRequest("No row can have this value; check the address of the page.") from exc
            except ReplicaUnavailable as exc:
                return self.unavailable(request, "No figures", str(exc))
            except (HashingBusy, Busy):
                return self.unavailable(request, "Too busy", BUSY, retry_after=1)

        return super().admin_view(guarded, cacheable)

    def unavailable(
        self, request: HttpRequest, title: str, message: str, *, retry_after: int | None = None
    ) -> TemplateResponse:
        context = {**self.each_context(request), "title": title, "message": message}
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return TemplateResponse(
            request, "llmapi/unavailable.html", context, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers
        )

    def autocomplete_view(self, request: HttpRequest) -> HttpResponse:
        """Refuse: no form of this admin uses it, and it would count and scan tables of any length."""
        raise PermissionDenied


def make_page(request: HttpRequest, view: Callable[[], Any]) -> Any:
    """Make a page, and write it out, in a place of its own. Raises Busy where none is free in time."""
    # The member of the staff who begins: who logs out is another one in the end.
    with PAGES.held(request.user.pk):
        response = view()
        if isinstance(response, TemplateResponse):
            response.render()
        return response
