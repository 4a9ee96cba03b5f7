"""Settings of operators, read from the environment: of each kind of value, what is wrong with it.

All of them raise ImproperlyConfigured with one sentence that names the setting and says what to change. It never has a
value that may be a secret, or hold one.
"""

import os
import re
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

from chat.upstream.proxies import proxy_of

# The environment also names files, for example those that Docker and systemd keep secrets in.
FROM_FILE = "_FILE"
HOST = re.compile(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
OWN_PATHS = {"admin", "docs", "health", "metrics", "ready", "schema", "static", "v1"}


def refuse(sentence: str) -> NoReturn:
    raise ImproperlyConfigured(sentence)


def text(name: str, default: str = "") -> str:
    """Return a setting, or what stands in the file that NAME_FILE names. An empty value means unset."""
    value = os.environ.get(name, "").strip()
    if path := os.environ.get(name + FROM_FILE, "").strip():
        if value:
            refuse(f"{name} and {name}{FROM_FILE} are both set; keep one of them.")
        try:
            value = Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not in UTF-8"
            raise ImproperlyConfigured(f"The file that {name}{FROM_FILE} names cannot be read ({reason}).") from exc
    return value or default


def words(name: str) -> list[str]:
    """Return the entries between the commas."""
    return [word.strip() for word in text(name).split(",") if word.strip()]


def number(name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
    value = text(name, str(default))
    is_number = value.isascii() and value.isdecimal() and len(value) < 20
    if not is_number or int(value) < least or (most is not None and int(value) > most):
        wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
        refuse(f"{name} is {value[:80]!r}; set it to a whole number {wanted}.")
    return int(value)


def flag(name: str, *, default: bool = False) -> bool:
    value = text(name, str(default)).lower()
    if value not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
        refuse(f"{name} is {value[:80]!r}; set it to true or false.")
    return value in {"true", "1", "yes", "on"}


def choice(name: str, *choices: str) -> str:
    """Return one of the choices, whose letters may be large or small; the first by default."""
    value = text(name, choices[0])
    for known in choices:
        if value.lower() == known.lower():
            return known
    refuse(f"{name} is {value[:80]!r}; set it to {' or '.join(choices)}.")


def some_of(name: str, known: Collection[str]) -> list[str]:
    for word in (found := words(name)):
        if word not in known:
            refuse(f"{name} holds {word[:80]!r}; it may hold {', '.join(sorted(known))}.")
    return found


def secret(name: str) -> str:
    """Return what is sent in a header: a key or a token, in printable ASCII without spaces (RFC 6750, section 2.1)."""
    value = text(name)
    for position, char in enumerate(value, 1):
        if not "!" <= char <= "~":
            what = "a space" if char.isspace() else "no letter, digit or sign of ASCII"
            refuse(f"{name} has {what} at position {position}; copy it again, without quotes.")
    return value


def secrets(name: str) -> list[str]:
    """Return the secrets between the commas."""
    return [value for value in secret(name).split(",") if value]


def url(name: str, default: str) -> str:
    """Return an address of a server. It may hold a password."""
    value = text(name, default)
    hint = f"set it to an address like {default}."
    parts = address(name, value, hint)
    if parts.query or parts.fragment:
        refuse(f"{name} has a ? or # in it, which no path can follow; {hint}")
    return value


def address(name: str, value: str, hint: str) -> SplitResult:
    """Return the parts of an address that HTTP can reach."""
    try:
        parts = urlsplit(value)
        is_known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as exc:  # a port that is no number, or brackets that do not close
        raise ImproperlyConfigured(f"{name} cannot be read; {hint}") from exc
    if not is_known:
        refuse(f"{name} does not begin with http:// or https:// and a host; {hint}")
    if not value.isascii() or any(char.isspace() for char in value):
        refuse(f"{name} holds a space, or a letter that no address has; {hint}")
    return parts


def check_proxy(base_url: str) -> None:
    """Check the proxy that the environment names for a server. It may hold a password."""
    scheme, host = urlsplit(base_url).scheme, urlsplit(base_url).hostname or ""
    if found := proxy_of(scheme, host):
        name, proxy = found
        used = proxy.partition("://")[0] if "://" in proxy else "http"
        if used.lower() not in {"http", "https"}:
            hint = f"name one that speaks http, or put {host} into NO_PROXY"
            refuse(f"{name} names a proxy that speaks {used[:10]!r}; {hint}.")
        whole = proxy if "://" in proxy else f"http://{proxy}"
        address(name, whole, f"set it to an address like http://127.0.0.1:3128, or put {host} into NO_PROXY.")


def check_trust() -> None:
    """Check the certificates that the environment names in place of the system's, by OpenSSL's own settings."""
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as exc:  # and what OpenSSL does not take
            reason = "it holds no certificate" if isinstance(exc, ssl.SSLError) else exc.strerror
            raise ImproperlyConfigured(f"The file that SSL_CERT_FILE names cannot be read ({reason}).") from exc
    if (folder := os.environ.get("SSL_CERT_DIR")) and not Path(folder).is_dir():
        refuse("SSL_CERT_DIR names no folder; set it to one with certificates, or leave it out.")


def hosts(name: str, default: Collection[str]) -> list[str]:
    """Return names of this server, as Django compares them with the Host of a request: without a port."""
    found = words(name) or list(default)
    for host in found:
        if not HOST.fullmatch(host):
            refuse(
                f"{name} holds {host[:80]!r}; write host names alone, without scheme, port and path: chat.example.com."
            )
    return found


def origins(name: str) -> list[str]:
    found = words(name)
    for origin in found:
        if origin == "*":
            refuse(f"{name} allows every page; list the origins, for example https://chat.example.com.")
        if not ORIGIN.fullmatch(origin):
            hint = "write scheme and host alone, without a path: https://chat.example.com"
            refuse(f"{name} holds {origin[:80]!r}; {hint}.")
    return found


def prefix(name: str) -> str:
    """Return the path below which a proxy offers this server, without a slash at its end."""
    value = text(name)
    if value and not PREFIX.fullmatch(value):
        refuse(f"{name} is {value[:80]!r}; set it to a path like /bot, with a slash at its beginning alone.")
    # A proxy may pass the path on or take it away, and then nobody could tell which it has done.
    if value.partition("/")[2].partition("/")[0] in OWN_PATHS:
        refuse(f"{name} is {value[:80]!r}, which begins like a path of llmapi's own; choose another.")
    return value


def models(entries: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Read entries of the form `model`, `name=model` or `*=model`. Return all names, and the model behind each alias.

    The alias * stands for every other name, and is not among the names.
    """
    names: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for entry in entries:
        name, equals, model = (part.strip() for part in entry.partition("="))
        if not name or (equals and not model) or (name == "*" and not equals):
            refuse(f"OPENAI_MODELS holds {entry[:80]!r}; write a model, or name=model for an alias of it.")
        if any(char.isspace() for char in name + model):
            refuse(f"OPENAI_MODEL or OPENAI_MODELS holds {entry[:80]!r}; no model has a space in its name.")
        if name != "*":
            names[name] = name
        if equals:
            aliases[name] = model
    return list(names), aliases
