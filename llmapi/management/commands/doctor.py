import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.checks import run_checks
from django.core.management.base import CommandParser
from django.db import Error, connections

from analytics import replica
from analytics.causes import cause
from analytics.management.base import OperatorCommand
from chat.database import PAGE, waiting_as
from llmapi.doctor import certificates, configured, ending, reachable, working
from llmapi.doctor.findings import Examination, Finding
from llmapi.version import VERSION

OF_MACHINE: tuple[Examination, ...] = (
    configured.examine_names,
    configured.examine_file,
    ending.examine_versions,
    ending.examine_disk,
    reachable.examine_provider,
    certificates.examine_provider,
)
# What the database knows.
OF_DATABASE: tuple[Examination, ...] = (
    ending.examine_database_version,
    ending.examine_tokens,
    ending.examine_budgets,
    ending.examine_partitions,
    working.examine_jobs,
    working.examine_pending,
    working.examine_rollups,
)


class Command(OperatorCommand):
    group = "Server"
    examples = ("", "--json")
    help = (
        "Say what is configured, what can be reached, what is unsafe and what ends soon. "
        "Each finding is one line: what, why, what to do. "
        "Exits with 1 if there is anything to do. Takes a quarter of a minute at most."
    )
    # It runs them itself, and says what they find in its own way.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        with quiet(), waiting_as(PAGE):
            findings = list(examine())
        sources = configured.sources()
        is_fine = all(finding.is_fine for finding in findings)
        if options["json"]:
            found = [finding.as_json() for finding in findings]
            report = {"ok": is_fine, "llmapi": VERSION, "configured": sources, "findings": found}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self.stdout.write(f"llmapi {VERSION}. Set: {', '.join(sources)}.")
            for finding in findings:
                self.stdout.write(str(finding))
        if not is_fine:
            sys.exit(1)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log from saying what a finding says."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def examine() -> Iterator[Finding]:
    """Examine all. What needs the database is left out while it cannot be used."""
    database = list(reachable.examine_database())
    is_usable = all(finding.is_fine for finding in database)
    yield from database
    yield from certificates.examine_database("database", settings.DATABASES["default"])
    if replica.ALIAS in connections:
        yield from reachable.examine_replica()
        yield from certificates.examine_database("replica", settings.DATABASES[replica.ALIAS])
    yield from unsafe(["default"] if is_usable else None)
    for examination in (*OF_MACHINE, *(OF_DATABASE if is_usable else ())):
        try:
            yield from examination()
        except Error as exc:
            yield Finding("database", f"it failed ({cause(exc)})", "Run manage.py doctor again.")


def unsafe(databases: list[str] | None) -> Iterator[Finding]:
    """Say what Django's checks and ours find."""
    for problem in run_checks(include_deployment_checks=not settings.LOOPBACK_ONLY, databases=databases):
        if not problem.is_silenced():
            yield Finding("settings", problem.msg.rstrip("."), problem.hint or f"See Django's check {problem.id}.")
