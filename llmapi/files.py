"""Files that hold secrets, prompts and replies: they are for the user of this process alone."""

import os
import stat
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = stat.S_IRUSR | stat.S_IWUSR


def create_private(path: str | Path) -> None:
    """Create an empty file that only its owner can read, if there is none."""
    with suppress(FileExistsError):
        os.close(private_opener(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))


def make_private(path: str | Path) -> bool:
    """Take a file that all can read or write from everybody but its owner. Returns whether it was such a file.

    One that is open to its group alone was given to it by somebody, and stays so. Raises OSError where it is another
    user's file.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    # A device is nobody's.
    if not stat.S_ISREG(mode) or not mode & stat.S_IRWXO:
        return False
    os.chmod(path, mode & stat.S_IRWXU)
    return True


def private_opener(path: str, flags: int) -> int:
    """The `opener` of `open()` for a file that only its owner can read, if it is made now."""
    return os.open(path, flags, OWNER_ONLY)
