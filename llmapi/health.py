from functools import cache

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

# Migrations that are named in a message.
MAX_NAMED = 3
STATUS = inline_serializer("Status", {"status": serializers.CharField()})


class HealthView(APIView):
    @extend_schema(tags=["Operation"], responses=STATUS)
    def get(self, request: Request) -> Response:
        """Answer as soon as the process runs."""
        return Response({"status": "ok"})


class ReadyView(APIView):
    @extend_schema(tags=["Operation"], responses=STATUS)
    def get(self, request: Request) -> Response:
        """Answer 200 if the database can be reached and is migrated, else 503 with what is missing."""
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            check_migrated()
        except Error as exc:
            raise NotReady("The database cannot be reached; check DATABASE_URL and that its server runs.") from exc
        return Response({"status": "ready"})


class NotReady(APIException):
    status_code = 503
    default_code = "unavailable"
    retry_after = 1


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
