"""Clients of staff: with all permissions, and with chosen ones."""

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
    """`clerk("view_conversation")` logs in a staff user with only these permissions."""

    def login(*codenames: str) -> Client:
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return login
