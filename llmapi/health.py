from functools import cache

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error
from django.http import HttpRequest, JsonResponse


def health(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> JsonResponse:
    """The database is reachable and migrated."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        check_migrated()
    except Error:
        return not_ready("The database cannot be reached; check DATABASE_URL and that its server runs.")
    except LookupError as exc:
        return not_ready(str(exc))
    return JsonResponse({"status": "ready"})


@cache
def check_migrated() -> None:
    """Once true it stays true for this process, so only a failure is looked up again."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise LookupError("The database is not migrated; run manage.py migrate.")


def not_ready(message: str) -> JsonResponse:
    error = {"message": message, "type": "server_error", "code": "unavailable", "param": None}
    return JsonResponse({"error": error}, status=503, headers={"Retry-After": "1"})
