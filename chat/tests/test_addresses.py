"""Where a request comes from."""

from typing import Any

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from chat.api.addresses import address_of


@pytest.mark.parametrize(
    ("hops", "connection", "forwarded", "expected"),
    [
        (0, "192.0.2.1", "", "192.0.2.1"),
        (0, "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (0, "::ffff:192.0.2.1", "", "192.0.2.1"),
        (0, "2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        (0, "fe80::1%eth0", "", "fe80::/64"),
        (0, "", "", "unknown"),
        (1, "10.0.0.1", "198.51.100.7", "198.51.100.7"),
        (1, "10.0.0.1", "1.1.1.1, 198.51.100.7", "198.51.100.7"),
        (1, "10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        (1, "10.0.0.1", "[2001:db8::1]:4711", "2001:db8::/64"),
        (2, "10.0.0.1", "1.1.1.1, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        # Whoever comes past a proxy is known by the connection.
        (2, "10.0.0.1", "198.51.100.7", "10.0.0.1"),
        (1, "10.0.0.1", "", "10.0.0.1"),
        (1, "10.0.0.1", "nonsense", "10.0.0.1"),
        (1, "10.0.0.1", "1.1.1.1,", "10.0.0.1"),
        (1, "10.0.0.1", "1," * 4000 + "198.51.100.7", "198.51.100.7"),
        (1, "10.0.0.1", "9" * 8000, "10.0.0.1"),
    ],
)
def test_address_of(settings: Settings, hops: int, connection: str, forwarded: str, expected: str) -> None:
    settings.TRUSTED_PROXIES = hops
    meta: Any = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}

    assert address_of(RequestFactory().get("/", REMOTE_ADDR=connection, **meta)) == expected
