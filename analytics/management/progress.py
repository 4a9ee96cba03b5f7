"""Show the progress of long work at a terminal. Files and pipes get nothing of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """Yield the items, and show how many are done."""
    console = Console(stderr=True)
    return rich_track(items, what, console=console, disable=not console.is_terminal, transient=True)


@contextmanager
def advancing(what: str, total: float) -> Iterator[Callable[[float, int], None]]:
    """Show how far work has come, of `total`. Yields a function that takes what is done, and how many rows that was."""
    console = Console(stderr=True)
    rows = TextColumn("{task.fields[rows]:,} rows")
    shown = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), rows, TimeRemainingColumn())
    with Progress(*shown, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=total, rows=0)
        yield lambda completed, rows: bar.update(task, completed=completed, rows=rows)
