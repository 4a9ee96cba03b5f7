"""Operations of migrations that change large tables while turns go on, on both databases.

Django's own for PostgreSQL fail on SQLite, which locks the whole database anyway, and on a partitioned table.
A migration with one of them has `atomic = False`.
"""

from typing import Any

from django.contrib.postgres.operations import AddConstraintNotValid, AddIndexConcurrently, ValidateConstraint
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddConstraint, AddIndex

from analytics.ledger.partitions import PARTITIONS

# Bytes of a name in PostgreSQL.
MAX_NAME = 63


def is_postgresql(editor: BaseDatabaseSchemaEditor) -> bool:
    return editor.connection.vendor == "postgresql"


class AddIndexOnline(AddIndexConcurrently):
    """Build an index without a lock; of a partitioned table one partition after the other."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not is_postgresql(schema_editor):
            AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)
        elif names := partitions(schema_editor, model._meta.db_table):
            self._ensure_not_in_transaction(schema_editor)
            self.add_to_partitions(schema_editor, model, names)
        else:
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def add_to_partitions(self, editor: Any, model: Any, names: list[str]) -> None:
        """Create the index of the whole without its parts, build those, and attach them."""
        quote = editor.quote_name
        table = quote(model._meta.db_table)
        whole = str(self.index.create_sql(model, editor))
        editor.execute(whole.replace(f" ON {table} ", f" ON ONLY {table} ", 1))
        for name in names:
            part = f"{name}_{self.index.name}"[-MAX_NAME:]
            sql = str(self.index.create_sql(model, editor, concurrently=True))
            sql = sql.replace(quote(self.index.name), quote(part), 1).replace(f" ON {table} ", f" ON {quote(name)} ", 1)
            editor.execute(sql)
            editor.execute(f"ALTER INDEX {quote(self.index.name)} ATTACH PARTITION {quote(part)}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if not is_postgresql(schema_editor) or partitions(schema_editor, model._meta.db_table):
            AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)
        else:
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class AddConstraintOnline(AddConstraintNotValid):
    """Let a constraint hold for what is written from now on. ValidateConstraintOnline then reads what was there."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if is_postgresql(schema_editor):
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        else:
            AddConstraint.database_forwards(self, app_label, schema_editor, from_state, to_state)


class ValidateConstraintOnline(ValidateConstraint):
    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if is_postgresql(schema_editor):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


def partitions(editor: Any, table: str) -> list[str]:
    """Return the partitions of a table; none where it is not partitioned, or where SQL is only written down."""
    if editor.collect_sql:
        return []
    with editor.connection.cursor() as cursor:
        cursor.execute(PARTITIONS, [table])
        return [name for (name,) in cursor.fetchall()]
