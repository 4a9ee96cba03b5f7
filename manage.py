#!/usr/bin/env python
import io
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, Error, IntegrityError

from analytics.causes import OF_THE_DATABASE, cause
from analytics.replica import ReplicaUnavailable
from chat.database import wait_as_command
from llmapi.management.utility import Utility


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmapi.settings")
    wait_as_command()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the characters of sparklines shows question marks.
        sys.stdout.reconfigure(errors="replace")
    try:
        Utility(sys.argv).execute()
        sys.stdout.flush()
    except ImproperlyConfigured as exc:
        sys.exit(f"llmapi: {exc}")
    except BrokenPipeError:
        # The reader has closed the pipe. At exit Python flushes again; into the pipe, that would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ReplicaUnavailable as exc:
        sys.exit(f"llmapi: {exc}")
    except (DataError, IntegrityError):
        # A bug of ours, and no state of the database.
        raise
    except Error as exc:
        if "--traceback" in sys.argv:
            raise
        reason = cause(exc) if isinstance(exc, OF_THE_DATABASE) else str(exc).partition("\n")[0]
        sys.exit(
            f"llmapi: the database cannot be used: {reason}. "
            "Check DATABASE_URL and that the database server runs, and run manage.py migrate."
        )


if __name__ == "__main__":
    main()
