"""Which database a statement goes to."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from analytics import replica


class ReplicaRouter:
    """Reads figures from the replica, inside `replica.reading()`, and everything else from the primary."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return replica.ALIAS if replica.is_reading() else DEFAULT_DB_ALIAS

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return DEFAULT_DB_ALIAS

    def allow_relation(self, first: Model, second: Model, **hints: Any) -> bool:
        """Allow all: both databases hold the same rows."""
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == DEFAULT_DB_ALIAS
