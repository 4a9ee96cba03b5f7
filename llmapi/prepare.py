"""`python -m llmapi.prepare`: what `make run` does to the database before the server starts.

Prints the password of the new staff user `admin` on the first run, and nothing on later ones. If something is wrong, it
says in one sentence what it is and what to do, and exits with 1.
"""

import os
import secrets
import sys

import django
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import Error, connection

from chat.database import wait_as_command
from llmapi.exclusive import exclusive
from llmapi.launch import CannotStart


def set_up() -> None:
    """Load Django, and open the database."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmapi.settings")
    wait_as_command()
    try:
        django.setup()
        connection.ensure_connection()
    except ImproperlyConfigured as exc:
        raise CannotStart(str(exc)) from exc
    except Error as exc:
        hint = "check that its server runs, and check the user, the password and the name."
        raise CannotStart(f"The database of DATABASE_URL cannot be opened ({first_line(exc)}); {hint}") from exc


def prepare_database() -> str | None:
    """Migrate the database. On the first run, return the password of the new staff user `admin`."""
    try:
        with exclusive():
            call_command("migrate", interactive=False, verbosity=0)
            call_command("settle_abandoned", verbosity=0)
            users = get_user_model().objects
            password = None if users.filter(is_staff=True).exists() else secrets.token_urlsafe(12)
            if password:
                users.create_superuser("admin", password=password)
    except Error as exc:
        hint = "check that the database is intact and that its user may change tables, then run again."
        raise CannotStart(f"The database cannot be migrated ({first_line(exc)}); {hint}") from exc
    finally:
        connection.close()
    return password


def first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0][:200]


def main() -> None:
    try:
        set_up()
        password = prepare_database()
    except CannotStart as exc:
        sys.exit(f"llmapi: {exc}")
    print(password or "")


if __name__ == "__main__":
    main()
