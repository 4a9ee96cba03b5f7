"""The forms that check a password: the login, and the change of one's own password."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http.response import HttpResponseBase
from django.views.decorators.debug import sensitive_variables

from analytics.fairness import Busy, Share, close_connection, outside
from chat.api.addresses import address_of
from chat.limits.buckets import Bucket, give_back, take, wait_for
from llmapi.login import devices, hashing, tries
from llmapi.login.passwords import MAX_PASSWORD

logger = logging.getLogger(__name__)

# Answers to refused tries that a process holds back at once, and for how long.
LINGERING = Share(lambda: 64, factor=64)
LINGER_SECONDS = 1.0
T = TypeVar("T")

# As in Django's table. A longer one names nobody.
MAX_NAME = 150


class LimitedTries:
    """A form that hashes no password of a try that is refused: not even the right one is let in."""

    # How a refused try is answered: the status, and the seconds until the next one may be sent.
    refusal: tuple[HTTPStatus, int] | None = None

    def try_password(self, buckets: Sequence[Bucket], check: Callable[[], T], *, owner: str = hashing.STAFF) -> T:
        """Check a password, and return what `check` does. Raises ValidationError where the try is refused or wrong.

        A wrong one costs a place of each bucket. At most `most` passwords may be in work in this process.
        """
        if wait := wait_for(buckets):
            raise self.refuse(wait)
        try:
            with hashing.place(owner):
                if not take(buckets):
                    raise self.refuse(wait_for(buckets))
                checked = check()
        except hashing.HashingBusy as exc:
            raise self.refuse(exc.retry_after, HTTPStatus.SERVICE_UNAVAILABLE) from exc
        give_back(buckets)
        return checked

    def refuse(self, wait: float, status: HTTPStatus = HTTPStatus.TOO_MANY_REQUESTS) -> ValidationError:
        """Return the error of a try that is not looked at. It tells nothing of the user."""
        seconds = max(1, math.ceil(wait))
        self.refusal = status, seconds
        what = "Too many tries" if status == HTTPStatus.TOO_MANY_REQUESTS else "Too many people log in at once"
        return ValidationError(f"{what}; try again in {seconds} seconds. No password is checked until then.")


class LoginForm(LimitedTries, AdminAuthenticationForm):
    @sensitive_variables()
    def clean(self) -> dict[str, Any]:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not name or not password:
            return self.cleaned_data
        if len(name) > MAX_NAME or len(password) > MAX_PASSWORD:
            raise self.get_invalid_login_error()
        assert self.request is not None  # as Django's view gives it
        address, device = address_of(self.request), devices.device_of(self.request, name)
        owner = hashing.STAFF if device else hashing.STRANGERS
        try:
            return self.try_password(tries.buckets_of(address, name, device), super().clean, owner=owner)
        except ValidationError:
            if not self.refusal:
                logger.warning("login failed", extra={"fields": {"address": address, "account": known(name)}})
            raise


def known(name: str) -> str | None:
    """Return the name if an account has it. Another is not logged: some type their password there."""
    return name if get_user_model().objects.filter(username=name).exists() else None


class OwnPasswordForm(LimitedTries, AdminPasswordChangeForm):
    """Whoever finds an open session must not find out the password with it."""

    @sensitive_variables()
    def clean_old_password(self) -> str:
        if len(self.cleaned_data["old_password"]) > MAX_PASSWORD:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return self.try_password([tries.of_user(self.user.pk)], super().clean_old_password)


def answer_refusal(response: HttpResponseBase) -> None:
    """Give the page of a form the status of its refusal, a moment later where few wait like that.

    To render the page costs more than to refuse the try: whoever goes on trying one by one makes us do it rarely.
    """
    form = (getattr(response, "context_data", None) or {}).get("form")
    if isinstance(form, LimitedTries) and form.refusal:
        response.status_code, seconds = form.refusal
        response["Retry-After"] = str(seconds)
        with suppress(Busy), LINGERING.held("refused"), outside():
            close_connection()
            time.sleep(LINGER_SECONDS)
