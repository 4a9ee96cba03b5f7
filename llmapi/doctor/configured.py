"""Which settings are set, and where; of none its value."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from llmapi import env_file
from llmapi.doctor.findings import Finding
from llmapi.environment import FROM_FILE

NAME = re.compile(r"^([A-Z][A-Z0-9_]*)=", re.MULTILINE)


def known_settings() -> list[str]:
    """List the settings that .env.example documents."""
    return NAME.findall((env_file.ROOT / ".env.example").read_text(encoding="utf-8"))


def in_file() -> Mapping[str, str]:
    with suppress(OSError, env_file.UnreadableFile):
        return env_file.parse(env_file.path_of().read_bytes())
    return {}


def sources() -> dict[str, str]:
    """Return where each setting that is set comes from, by its name."""
    written, found = in_file(), {}
    for name in known_settings():
        if os.environ.get(name):
            found[name] = ".env" if written.get(name) == os.environ[name] else "environment"
        elif os.environ.get(name + FROM_FILE):
            found[name] = "file"
    return found


def examine_names() -> Iterator[Finding]:
    """Find names in .env that look like settings of ours, and are none."""
    known = known_settings()
    for name in in_file():
        if name.removesuffix(FROM_FILE) in known:
            continue
        if similar := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8):
            yield Finding(f"{name} in .env", "no setting has this name", f"Call it {similar[0]}, if that is meant.")


def examine_file() -> Iterator[Finding]:
    """Find a file of secrets that others can read."""
    path = env_file.path_of()
    with suppress(OSError):
        if path.is_file() and path.stat().st_mode & 0o007:
            yield Finding(path.name, "every user of this machine can read its secrets", f"Run chmod 600 {path}.")
