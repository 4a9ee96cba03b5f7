"""Two trees of llmapi: what is committed, and a later version of it with migrations of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

from llmapi.launch import ROOT

OLD, NEW = "1.0.0-old", "1.0.1-new"
# Models whose tables a turn reads and writes: each gets a column that the old version does not know.
MODELS = {
    "chat/models/clients.py": ("ClientToken",),
    "chat/models/conversations.py": ("Conversation", "Message"),
    "chat/models/idempotency.py": ("IdempotencyKey",),
    "chat/models/people.py": ("Person", "ClientSession"),
    "analytics/models/ledger.py": ("UsageEvent",),
}
APPS = ("chat", "analytics")
COLUMN = "    rehearsed = models.TextField(null=True, editable=False)\n"
INDEX = """\
from django.db import migrations, models

from analytics.online import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("analytics", "{after}")]
    operations = [AddIndexOnline("usageevent", models.Index(fields=["rehearsed"], name="usage_event_rehearsed"))]
"""


def fresh(folder: Path, version: str = OLD) -> Path:
    """Write what is committed into a new folder, as a clone has it, under a version of its own."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    replace(folder / "llmapi/version.py", r'^VERSION = ".*"$', f'VERSION = "{version}"')
    return folder


def later(folder: Path) -> Path:
    """Write the next version: a nullable column in each table of a turn, and an index on the ledger."""
    tree = fresh(folder, NEW)
    for file, names in MODELS.items():
        for name in names:
            add_column(tree / file, name)
    env = {
        **os.environ,
        "ENV_FILE": os.devnull,
        "DATABASE_URL": f"sqlite:///{folder}/unused.sqlite3",
        "SECRET_KEY": "x" * 50,
    }
    command = [sys.executable, "manage.py", "makemigrations", "-v0", "-n", "rehearsed", *APPS]
    subprocess.run(command, cwd=tree, env=env, check=True)
    (made,) = (tree / "analytics/migrations").glob("*_rehearsed.py")
    number = int(made.name[:4]) + 1
    made.with_name(f"{number:04}_rehearsed_index.py").write_text(INDEX.format(after=made.stem))
    return tree


def add_column(file: Path, model: str) -> None:
    replace(file, rf"^(class {model}\(.*\):\n)", rf"\1{COLUMN}")


def replace(file: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, by, file.read_text(), count=1, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"{file.name} has no line like {pattern}; bench/rehearsal/trees.py must follow it.")
    file.write_text(text)
