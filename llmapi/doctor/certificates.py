"""When the certificates of servers that this one connects to end."""

import re
import socket
import ssl
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from chat.upstream.proxies import proxy_of
from llmapi.doctor.findings import NOTICE, Finding

SECONDS = 3
# Of X.509 (RFC 5280, section 4.1.2.5): a sequence of two times, each in seconds of UTC, with two or four digits of the
# year.
VALIDITY = re.compile(rb"\x30[\x1e\x20\x22](?:\x17\x0d|\x18\x0f)\d{12,14}Z(?:\x17\x0d|\x18\x0f)(\d{12,14})Z")
# PostgreSQL's request for TLS (its manual, "Message Formats": SSLRequest), which it answers with one byte.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def examine_provider() -> Iterator[Finding]:
    parts = urlsplit(settings.OPENAI_BASE_URL)
    host = parts.hostname or ""
    is_proxied = proxy_of("https", host) is not None
    if parts.scheme == "https" and not is_proxied:
        yield from examine("model's provider", host, parts.port or 443)


def examine_database(what: str, config: dict[str, Any]) -> Iterator[Finding]:
    """Look at the certificate of PostgreSQL, where it is asked over TCP and offers TLS."""
    host, mode = str(config["HOST"]), config["OPTIONS"].get("sslmode", "prefer")
    if config["ENGINE"].endswith("postgresql") and host and not host.startswith("/") and mode != "disable":
        yield from examine(what, host, int(config["PORT"] or 5432), is_postgresql=True)


def examine(what: str, host: str, port: int, *, is_postgresql: bool = False) -> Iterator[Finding]:
    """Say when the certificate ends. Whether the server answers is told elsewhere."""
    try:
        ends_at = end_of_certificate(host, port, is_postgresql=is_postgresql)
    except OSError:
        return
    if ends_at and ends_at - timezone.now() < NOTICE:
        verb = "ended" if ends_at < timezone.now() else "ends"
        hint = "Renew it, or ask who runs that server to."
        yield Finding(f"certificate of the {what}", f"it {verb} on {ends_at:%Y-%m-%d}", hint)


def end_of_certificate(host: str, port: int, *, is_postgresql: bool = False) -> datetime | None:
    """Return when the certificate that a server shows ends; None where it shows none. Raises OSError.

    Nothing is sent, so the certificate need not be trusted: also one that has ended is read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), SECONDS) as plain:
        if is_postgresql:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                return None
        with context.wrap_socket(plain, server_hostname=host) as secured:
            found = VALIDITY.search(secured.getpeercert(binary_form=True) or b"")
    if not found:
        return None
    text = found[1].decode()
    return datetime.strptime(text, "%Y%m%d%H%M%S" if len(text) == 14 else "%y%m%d%H%M%S").replace(tzinfo=UTC)
