"""Where a request comes from, as far as limits of strangers are concerned."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest

# An IPv6 network of this length is the least that a provider gives to one customer, who may use any address of it.
IPV6_PREFIX = 64
UNKNOWN = "unknown"


def address_of(request: HttpRequest) -> str:
    """Return the IPv4 address of the client, or the /64 network of its IPv6 address; "unknown" where there is none.

    Each of the TRUSTED_PROXIES in front adds the address that it was asked from to X-Forwarded-For. So the client's is
    the one so many places from the end: all before it may be invented by the client. With fewer addresses than that, or
    text that is no address, it is the address of the connection.
    """
    hops: int = settings.TRUSTED_PROXIES
    if hops:
        # A header can be long; only its end is read.
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").rsplit(",", hops)
        if len(forwarded) >= hops and (found := network_of(forwarded[-hops])):
            return found
    return network_of(request.META.get("REMOTE_ADDR", "")) or UNKNOWN


def network_of(text: str) -> str:
    """Read an address, which may have a port (192.0.2.1:80, [2001:db8::1]:80). Empty where it is none."""
    text = text[-100:].strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, IPV6_PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)
