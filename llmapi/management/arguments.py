"""What arguments of several commands are, and where they write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.core.management.base import CommandError

from analytics.files import whole
from analytics.reports.terminal import printable
from chat.models import ClientToken

MOST_NAMES = 20


def client_of(name: str) -> tuple[int, str]:
    """Id and name of the client token; one whose row was deleted can still be named by its id."""
    if not name.strip():
        raise CommandError("--client takes the name or the id of a client token; leave it out for all of them.")
    tokens = ClientToken.objects.order_by("pk")
    if name.isascii() and name.isdecimal() and len(name) < 19:
        return int(name), tokens.filter(pk=name).values_list("name", flat=True).first() or ""
    found = list(tokens.filter(name=name).values_list("pk", flat=True)[:MOST_NAMES])
    if len(found) == 1:
        return found[0], name
    if found:
        raise CommandError(f"--client: several are called {name!r}; give one of the ids {', '.join(map(str, found))}.")
    names = ", ".join(map(printable, tokens.values_list("name", flat=True)[:MOST_NAMES]))
    raise CommandError(f"--client: none is called {name!r}; choose from: {names or 'none yet'}.")


@contextmanager
def output(path: Path) -> Iterator[IO[str]]:
    """The file that --output names, written whole or not at all."""
    try:
        with whole(path) as file:
            yield file
    except OSError as exc:
        raise CommandError(f"--output: {exc.strerror or exc}; name a file in a directory that is writable.") from exc
