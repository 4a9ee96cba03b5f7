"""The file `.env`, read to the letter: by the launcher, the server and manage.py alike.

A line is NAME=value, empty, or a comment that begins with #. What follows the = is the value as it stands: `$`, `#` and
backslashes mean nothing in it. A value in quotes may begin or end with spaces; in double quotes, `\\n` is a new line.
Needs the standard library only, and so does the launcher.
"""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=(.*)")
LINE_END = re.compile(r"\r\n?|\n")
# What may follow the end of the quotes is a comment.
DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?:[ \t]+#.*)?')
SINGLE_QUOTED = re.compile(r"'([^']*)'(?:[ \t]+#.*)?")
ESCAPED = re.compile(r'\\([nrt"\\$])')
CHARACTERS = {"n": "\n", "r": "\r", "t": "\t"}
# How files begin that Windows writes, if they are not in UTF-8.
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class UnreadableFile(Exception):
    """One sentence that names the file and the line, but nothing of what stands there: it may be a secret."""


def path_of() -> Path:
    return Path(os.environ.get("ENV_FILE") or ROOT / ".env")


def load() -> None:
    """Set what the file says, except where the environment says something else already. Raises UnreadableFile."""
    path = path_of()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise UnreadableFile(f"{path.name} cannot be read ({exc.strerror}).") from exc
    for name, value in parse(content, path.name).items():
        os.environ.setdefault(name, value)


def parse(content: bytes, file: str = ".env") -> dict[str, str]:
    """Return the values by their names. Raises UnreadableFile.

    An empty value means unset. So a name may stand twice, as long as only one of the lines gives it a value.
    """
    values: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(LINE_END.split(decode(content, file)), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not (found := LINE.fullmatch(line)):
            raise UnreadableFile(f"Line {number} of {file} is not NAME=value; correct it, or begin it with #.")
        name, value = found[1], unquote(found[2].strip(), f"Line {number} of {file}")
        if value and values.get(name) and value != values[name]:
            raise UnreadableFile(f"Lines {numbers[name]} and {number} of {file} both set {name}; keep one of them.")
        if value or name not in values:
            values[name], numbers[name] = value, number
    return values


def decode(content: bytes, file: str) -> str:
    if content.startswith(UTF_16) or b"\0" in content:
        raise UnreadableFile(f"{file} is in UTF-16; save it as UTF-8.")
    try:
        # Editors on Windows begin a file in UTF-8 with a mark, which is no part of the first name.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        number = content.count(b"\n", 0, exc.start) + 1
        raise UnreadableFile(f"Line {number} of {file} is not in UTF-8; save the file as UTF-8.") from exc


def unquote(value: str, line: str) -> str:
    """Take the quotes from a value. Raises UnreadableFile where something follows them, or they do not end."""
    if not value.startswith(('"', "'")):
        return value
    if not (found := (DOUBLE_QUOTED if value[0] == '"' else SINGLE_QUOTED).fullmatch(value)):
        raise UnreadableFile(
            f"{line} begins with a quote that does not end the value; put all of it in quotes, or none."
        )
    if value[0] == "'":
        return found[1]
    return ESCAPED.sub(lambda escape: CHARACTERS.get(escape[1], escape[1]), found[1])
