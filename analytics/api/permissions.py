from typing import Any

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

VIEW_USAGE = "analytics.view_usageevent"


def may_read_metrics(user: Any) -> bool:
    """Allow everybody in DEBUG or with METRICS_PUBLIC, else staff who may view usage events."""
    if settings.DEBUG or settings.METRICS_PUBLIC:
        return True
    return user is not None and user.is_staff and user.has_perm(VIEW_USAGE)


class MayReadMetrics(BasePermission):
    """Allow client tokens that may read metrics, and whoever `may_read_metrics` allows."""

    message = "Tick 'can read metrics' on this token in the admin, or allow the staff account to view usage events."

    def has_permission(self, request: Request, view: Any) -> bool:
        return getattr(request.auth, "can_read_metrics", False) or may_read_metrics(request.user)
