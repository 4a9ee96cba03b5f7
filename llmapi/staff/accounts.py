"""Accounts of the staff: Django's page, which must not hash a password inside a transaction."""

from typing import Any

from django.contrib import admin
from django.contrib.auth import admin as auth
from django.contrib.auth.forms import AdminUserCreationForm
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse


class NewUserForm(AdminUserCreationForm):  # type: ignore[type-arg]
    # Of the first password, as add_view has hashed it.
    hashed = ""

    def set_password_and_save(self, user: User, *args: Any, **kwargs: Any) -> User:
        """Set the hash that there is. Django's would make it here, inside the transaction that adds the user."""
        if not self.cleaned_data["set_usable_password"]:
            return super().set_password_and_save(user, *args, **kwargs)
        user.password = self.hashed
        if kwargs.get("commit", True):
            user.save()
        return user


# Django's own module registers its page as soon as it is imported.
admin.site.unregister(User)


@admin.register(User)
class UserAdmin(auth.UserAdmin):  # type: ignore[type-arg]
    add_form = NewUserForm

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        password = request.POST.get("password1", "")
        if password and self.has_add_permission(request):
            request.hashed_password = make_password(password)  # type: ignore[attr-defined]
        return super().add_view(request, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return a class of this request, with the hash of its password."""
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        if obj is None:
            form.hashed = getattr(request, "hashed_password", "")
        return form
