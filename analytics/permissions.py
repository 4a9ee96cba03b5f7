from typing import Any

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class MayReadMetrics(BasePermission):
    """Everybody in DEBUG or with METRICS_PUBLIC; else staff, and client tokens that were allowed to."""

    message = "This token may not read metrics; tick 'can read metrics' on it in the admin."

    def has_permission(self, request: Request, view: Any) -> bool:
        if settings.DEBUG or settings.METRICS_PUBLIC:
            return True
        if request.auth is not None:
            return bool(getattr(request.auth, "can_read_metrics", False))
        return request.user is not None and request.user.is_staff
