"""A backup as a file: it appears whole, for its owner alone, and takes no other's place."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmapi.backups.contents import BackupError, Note, checksum, note_path
from llmapi.files import create_private, private_opener


def publish(partial: Path, path: Path, note: Note) -> None:
    """Give a finished file its name, and write the note beside it. Raises FileExistsError where the name is taken."""
    note["sha256"] = checksum(partial)
    with open(note_path(path), "x", encoding="utf-8", opener=private_opener) as file:
        json.dump(note, file, indent=2)
        os.fsync(file.fileno())
    try:
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        # A link, because a rename would take the place of a file.
        os.link(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError:
        note_path(path).unlink()
        raise


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Make an empty file beside `path`, and delete it in the end. Raises BackupError where there is one already."""
    for taken in (path, note_path(path)):
        if taken.exists():
            raise BackupError(f"{taken} is there already; name another file, for example with the date in it.")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    create_private(partial)
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)
