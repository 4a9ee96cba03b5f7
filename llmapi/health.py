import logging
import time
from functools import cache
from typing import Any

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models.functions import Now
from django.db.utils import Error
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from analytics.causes import cause
from chat.exceptions import ApiError
from chat.models import Chore
from chat.turns import registry
from chat.upstream import contact
from llmapi.version import VERSION

logger = logging.getLogger(__name__)
# The row that is written to learn whether the database can be; no job has this name. And for how long that is believed.
PROBE = "ready"
WRITTEN_SECONDS = 1
_written_at = float("-inf")
# Migrations that are named in a message.
MAX_NAMED = 3
STATUS = inline_serializer("Status", {"status": serializers.CharField()})


class HealthView(APIView):
    @extend_schema(tags=["Operation"], responses=STATUS)
    def get(self, request: Request) -> Response:
        """Answer as soon as the process runs."""
        return Response({"status": "ok"})


class ReadyView(APIView):
    @extend_schema(
        tags=["Operation"],
        responses=STATUS,
        parameters=[OpenApiParameter("verbose", bool, description="Also say what this process knows of its parts.")],
    )
    def get(self, request: Request) -> Response:
        """Answer 200 if the database can be written and is migrated, else 503 with what is missing."""
        try:
            check_migrated()
            check_written()
        except Error as exc:
            logger.warning("not ready: %s", cause(exc))
            raise NotReady("The database cannot be written; the server's log says why.") from exc
        status: dict[str, Any] = {"status": "ready"}
        if "verbose" in request.query_params:
            status |= {"version": VERSION, "upstream": f"The model's provider: {contact.words()}."}
            status |= {"running_turns": registry.count()}
        return Response(status)


class NotReady(ApiError):
    status_code = 503
    default_code = "unavailable"
    retry_after = 1


def check_written() -> None:
    """Write a row, at most once a second, or else read. Raises Error: a disk may be full, a standby takes no writes."""
    global _written_at
    if time.monotonic() - _written_at < WRITTEN_SECONDS:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return
    if not Chore.objects.filter(name=PROBE).update(due_at=Now()):
        Chore.objects.bulk_create([Chore(name=PROBE, due_at=Now())], ignore_conflicts=True)
    _written_at = time.monotonic()


@cache
def check_migrated() -> None:
    """Raise NotReady while migrations are missing. Success is cached: a process never becomes unmigrated."""
    if missing := missing_migrations():
        raise NotReady(f"The database lacks migrations ({describe(missing)}); run manage.py migrate.")


def missing_migrations() -> list[str]:
    """Return the migrations that this version needs and the database lacks, as app.name in their order."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def describe(missing: list[str]) -> str:
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    return ", ".join(missing[:MAX_NAMED]) + more
