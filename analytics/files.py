import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO


@contextmanager
def whole(path: Path) -> Iterator[IO[str]]:
    """Whoever reads the file finds all of what was there before, or all that is written here."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is not a file")
    with NamedTemporaryFile("w", encoding="utf-8", newline="", dir=path.parent, delete=False) as file:
        beside = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # As any other new file: this one was opened for its owner alone.
            beside.chmod(path.stat().st_mode if path.exists() else 0o666 & ~umask())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask
