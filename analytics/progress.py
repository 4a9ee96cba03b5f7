"""Progress of what takes long, for who sits at the terminal; files and pipes are told nothing."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterable[T]:
    console = Console(stderr=True)
    return rich_track(items, what, console=console, disable=not console.is_terminal, transient=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """For what takes some seconds, and cannot say how many."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
