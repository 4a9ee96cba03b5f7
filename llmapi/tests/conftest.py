"""Staff who may do everything, and staff who may see lists but not what was said."""

from collections.abc import Callable

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("staff", password="a-long-password"))
    return client


@pytest.fixture
def clerk(db: None) -> Callable[..., Client]:
    """`clerk("view_conversation")` is somebody with these permissions alone."""

    def login(*codenames: str) -> Client:
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return login
