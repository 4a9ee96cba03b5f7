import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Whoever reads the file finds all of what was there before, or all of this."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is not a file.")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
