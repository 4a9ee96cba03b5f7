"""The proxy that the environment names for calls to a server."""

from ipaddress import ip_address
from urllib.request import getproxies, proxy_bypass


def proxy_of(scheme: str, host: str) -> tuple[str, str] | None:
    """Return the name of the variable that counts, and its value.

    No proxy stands before this machine itself: it would ask its own. Go's net/http does the same.
    """
    if is_this_machine(host) or proxy_bypass(host):
        return None
    found = getproxies()
    return next(((f"{kind.upper()}_PROXY", found[kind]) for kind in (scheme, "all") if found.get(kind)), None)


def is_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")
