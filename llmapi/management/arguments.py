"""Arguments that several commands share: --client and --output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.core.management.base import CommandError

from analytics.reports.csv import printable
from chat.models import ClientToken
from llmapi.files import private_opener

MAX_NAMES = 20


def find_client(name: str, argument: str = "--client") -> tuple[int, str]:
    """Return the id and the name of a client token. A deleted one is found by its id, with an empty name.

    `argument` names it in what is said of a wrong one.
    """
    if not name.strip():
        raise CommandError(
            f"{argument} takes the name or the id of a client token; manage.py list_client_tokens shows both."
        )
    tokens = ClientToken.objects.order_by("pk")
    if name.isascii() and name.isdecimal() and len(name) < 19:
        return int(name), tokens.filter(pk=name).values_list("name", flat=True).first() or ""
    found = list(tokens.filter(name=name).values_list("pk", flat=True)[:MAX_NAMES])
    if len(found) == 1:
        return found[0], name
    if found:
        raise CommandError(
            f"{argument}: several tokens have the name {name!r}; give one of the ids {', '.join(map(str, found))}."
        )
    names = ", ".join(map(printable, tokens.values_list("name", flat=True)[:MAX_NAMES]))
    raise CommandError(f"{argument}: no token has the name {name!r}; choose from: {names or 'none yet'}.")


@contextmanager
def open_output(path: Path) -> Iterator[IO[str]]:
    """Open the file that --output names. A file that is there is overwritten, and keeps its mode."""
    try:
        # newline="": the CSV has line ends of its own.
        with open(path, "w", encoding="utf-8", newline="", opener=private_opener) as file:
            yield file
    except OSError as exc:
        raise CommandError(f"--output: {exc.strerror or exc}; name another file, in a writable directory.") from exc
