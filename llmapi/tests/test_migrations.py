"""No migration after the released version locks a large table for long: what PostgreSQL would run is read by squawk."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands import migrate as django_migrate
from django.db import IntegrityError, OperationalError, connections, migrations, models
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models.functions import Random
from psycopg.sql import quote

from analytics.online import AddConstraintOnline, AddIndexOnline, ValidateConstraintOnline
from llmapi.backends.postgresql.base import DatabaseWrapper

# The last migrations of 1.0.0. Those up to them run where there is nothing yet, or once, with the server stopped.
RELEASED = {"analytics": "0015_cache_writes_and_tiers", "chat": "0007_deleted_conversations"}
# What a migration may do all the same, by its name, and why in a comment: a column that no version reads any more.
ALLOWED: dict[str, set[str]] = {
    # Of client_tokens, which has a row for each app, and of tables that the same migration makes.
    "chat.0008_people": {"adding-foreign-key-constraint", "constraint-missing-not-valid"},
}
# They are about taste, or about timeouts and IF EXISTS, which Django writes nowhere.
IGNORED = (
    "require-lock-timeout",
    "require-statement-timeout",
    "prefer-robust-stmts",
    "prefer-text-field",
    "prefer-bigint-over-int",
)
SQUAWK = Path(sys.executable).with_name("squawk")


class OfflineEditor(DatabaseSchemaEditor):
    def _constraint_names(self, *args: Any, **kwargs: Any) -> list[str]:
        """Let the table have what is looked for: what a field had beside its column."""
        return ["constraint"]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A PostgreSQL that writes SQL and never connects, in the place of the database."""
    own = connections["default"]
    wrapper = DatabaseWrapper({**own.settings_dict, "OPTIONS": {}}, "default")
    wrapper.__dict__["pg_version"] = 150000
    wrapper.SchemaEditorClass = OfflineEditor
    monkeypatch.setattr(wrapper.ops, "compose_sql", lambda sql, params: sql % tuple(map(quote, params or ())))
    connections["default"] = wrapper
    yield wrapper
    connections["default"] = own


def sql_of(migration: migrations.Migration, state: ProjectState, offline: Any) -> str:
    with offline.schema_editor(collect_sql=True, atomic=False) as editor:
        # As inside a transaction, where some operations refuse to run; nothing is begun.
        editor.atomic_migration, offline.in_atomic_block = True, migration.atomic
        try:
            migration.apply(state, editor, collect_sql=True)
        finally:
            editor.atomic_migration, offline.in_atomic_block = False, False
    lines = "\n".join(editor.collected_sql)
    return f"BEGIN;\n{lines}\nCOMMIT;\n" if migration.atomic else lines


def complaints(migration: migrations.Migration, state: ProjectState, offline: Any) -> set[str]:
    """Return the rules of squawk that a migration breaks, and those of ours.

    `unreadable`: it cannot be written as SQL. `drop-default`: a running server of the version before cannot insert.
    """
    sql = sql_of(migration, state, offline)
    ours = {"unreadable" for operation in migration.operations if not operation.reduces_to_sql}
    ours |= {"drop-default"} if "DROP DEFAULT" in sql else set()
    excluded = [f"--exclude={rule}" for rule in IGNORED]
    command = [SQUAWK, "--reporter=json", "--pg-version=15", *excluded]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return {found["rule_name"] for found in json.loads(done.stdout or "[]")} | ours


def later_than(released: dict[str, str], loader: MigrationLoader) -> list[tuple[str, str]]:
    return [key for key in loader.graph.nodes if key[0] in released and key[1] > released[key[0]]]


def test_no_migration_locks_a_large_table(offline: Any) -> None:
    loader = MigrationLoader(None)
    for key in later_than(RELEASED, loader):
        found = complaints(loader.graph.nodes[key], loader.project_state(key, at_end=False), offline)
        assert found <= ALLOWED.get(".".join(key), set()), key


def test_those_before_would_be_refused(offline: Any) -> None:
    """So the test above does read migrations of ours."""
    loader = MigrationLoader(None)
    assert set(RELEASED.items()) <= set(loader.graph.nodes)
    key = ("chat", "0007_deleted_conversations")
    found = complaints(loader.graph.nodes[key], loader.project_state(key, at_end=False), offline)
    assert found == {"require-concurrent-index-creation", "unreadable"}


def add_field(field: "models.Field[Any, Any]", name: str = "x") -> Operation:
    return migrations.AddField("usageevent", name, field)


def index() -> models.Index:
    return models.Index(fields=["app_version"], name="i")


def check() -> models.CheckConstraint:
    return models.CheckConstraint(condition=models.Q(latency_ms__gte=0), name="c")


def run(apps: Any, editor: Any) -> None:
    """Change every row."""


BAD = [
    ("adding-field-with-default", add_field(models.FloatField(db_default=Random()))),
    ("drop-default", add_field(models.IntegerField(default=0))),
    ("adding-required-field", migrations.RunSQL("ALTER TABLE usage_events ADD COLUMN x bigint NOT NULL")),
    ("changing-column-type", migrations.AlterField("usageevent", "total_tokens", models.BigIntegerField())),
    ("adding-not-nullable-field", migrations.AlterField("usageevent", "latency_ms", models.PositiveIntegerField())),
    ("require-concurrent-index-creation", migrations.AddIndex("usageevent", index())),
    ("constraint-missing-not-valid", migrations.AddConstraint("usageevent", check())),
    (
        "disallowed-unique-constraint",
        migrations.AddConstraint("usageevent", models.UniqueConstraint(fields=["user_id"], name="u")),
    ),
    ("renaming-column", migrations.RenameField("usageevent", "model", "asked_model")),
    ("renaming-table", migrations.AlterModelTable("usageevent", "turns")),
    ("ban-drop-column", migrations.RemoveField("usageevent", "app_version")),
    ("ban-drop-table", migrations.DeleteModel("analyticsevent")),
    ("require-concurrent-index-deletion", migrations.RemoveIndex("usageevent", "usage_created")),
    ("unreadable", migrations.RunPython(run)),
    (
        "adding-foreign-key-constraint",
        migrations.RunSQL("ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b) REFERENCES c (d)"),
    ),
]
GOOD: list[list[Operation]] = [
    [add_field(models.IntegerField(null=True))],
    [add_field(models.IntegerField(default=0, db_default=0))],
    [AddIndexOnline("usageevent", index())],
    [AddConstraintOnline("usageevent", check())],
    [ValidateConstraintOnline("usageevent", "usage_status_known")],
    [
        migrations.CreateModel("New", [("id", models.BigAutoField(primary_key=True)), ("at", models.IntegerField())]),
        migrations.AddIndex("new", models.Index(fields=["at"], name="new_at")),
    ],
]


def migration_of(operations: list[Operation], *, atomic: bool) -> migrations.Migration:
    migration = migrations.Migration("9999_next", "analytics")
    migration.operations, migration.atomic = operations, atomic
    return migration


@pytest.fixture(scope="module")
def today() -> ProjectState:
    return MigrationLoader(None).project_state()


@pytest.mark.parametrize(("rule", "operation"), BAD, ids=[rule for rule, _ in BAD])
def test_what_locks_a_large_table_is_refused(
    offline: Any, today: ProjectState, rule: str, operation: Operation
) -> None:
    assert rule in complaints(migration_of([operation], atomic=True), today.clone(), offline)


@pytest.mark.parametrize("operations", GOOD, ids=lambda operations: type(operations[0]).__name__)
def test_what_locks_nothing_is_taken(offline: Any, today: ProjectState, operations: list[Operation]) -> None:
    is_atomic = not type(operations[0]).__name__.endswith("Online")
    assert complaints(migration_of(operations, atomic=is_atomic), today.clone(), offline) == set()


# --- the operations that are taken, run ---


class Samples:
    """A table of two rows, partitioned or not, and the state that migrations know of it."""

    def __init__(self, *, is_partitioned: bool) -> None:
        self.state = ProjectState()
        fields: Any = [("id", models.BigAutoField(primary_key=True)), ("latency_ms", models.IntegerField())]
        migrations.CreateModel("UsageEvent", fields, {"db_table": "samples"}).state_forwards("analytics", self.state)
        parts = ["samples_1", "samples_2"] if is_partitioned else []
        with connections["default"].cursor() as cursor:
            by = "PARTITION BY RANGE (id)" if parts else ""
            cursor.execute(f"CREATE TABLE samples (id bigint NOT NULL, latency_ms integer NOT NULL) {by}")
            for number, part in enumerate(parts):
                bounds = f"FROM ({10 * number}) TO ({10 * number + 10})"
                cursor.execute(f"CREATE TABLE {part} PARTITION OF samples FOR VALUES {bounds}")
            cursor.execute("INSERT INTO samples VALUES (1, 10), (11, 20)")

    def run(self, operation: Operation, *, atomic: bool = False) -> None:
        after = self.state.clone()
        operation.state_forwards("analytics", after)
        with connections["default"].schema_editor(atomic=atomic) as editor:
            operation.database_forwards("analytics", editor, self.state, after)
        self.state = after

    def undo(self, operation: Operation) -> None:
        before = self.state.clone()
        before.remove_index("analytics", "usageevent", "samples_latency")
        with connections["default"].schema_editor(atomic=False) as editor:
            operation.database_backwards("analytics", editor, self.state, before)

    def indexes(self) -> dict[str, bool]:
        """Return the table's indexes, and of PostgreSQL's whether each serves."""
        with connections["default"].cursor() as cursor:
            if connections["default"].vendor == "sqlite":
                cursor.execute("SELECT name, 1 FROM sqlite_master WHERE type = 'index' AND tbl_name = 'samples'")
            else:
                names = "indexrelid::regclass::text, indisvalid FROM pg_index"
                cursor.execute(f"SELECT {names} WHERE indrelid::regclass::text LIKE 'samples%%'")
            return {name: bool(is_valid) for name, is_valid in cursor.fetchall()}


@pytest.fixture(params=["plain", "partitioned"])
def samples(transactional_db: None, request: pytest.FixtureRequest) -> Iterator[Samples]:
    is_partitioned = request.param == "partitioned" and connections["default"].vendor == "postgresql"
    try:
        yield Samples(is_partitioned=is_partitioned)
    finally:
        with connections["default"].cursor() as cursor:
            cursor.execute("DROP TABLE samples")


def test_an_index_is_built_online_on_all_kinds_of_tables(samples: Samples) -> None:
    operation = AddIndexOnline("usageevent", models.Index(fields=["latency_ms"], name="samples_latency"))

    samples.run(operation)

    found = samples.indexes()
    assert "samples_latency" in found
    assert all(found.values())
    assert len(found) in (1, 3)
    samples.undo(operation)
    assert samples.indexes() == {}


def test_a_constraint_is_added_and_then_validated(samples: Samples) -> None:
    samples.run(AddConstraintOnline("usageevent", check()))
    samples.run(ValidateConstraintOnline("usageevent", "c"))

    with pytest.raises(IntegrityError), connections["default"].cursor() as cursor:
        cursor.execute("INSERT INTO samples VALUES (2, -1)")


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[float]]:
    """`in_use(times, sqlstate)` lets Django's own command fail so often. Returns how long ours has slept."""
    slept: list[float] = []

    def fail(times: int, sqlstate: str) -> list[float]:
        left = iter(range(times))

        def handle(self: Any, *args: Any, **options: Any) -> None:
            if next(left, None) is not None:
                cause = psycopg.errors.lookup(sqlstate)("canceling statement due to lock timeout")
                raise OperationalError(str(cause)) from cause

        monkeypatch.setattr(django_migrate.Command, "handle", handle)
        monkeypatch.setattr("llmapi.management.commands.migrate.time", SimpleNamespace(sleep=slept.append))
        return slept

    return fail


@pytest.mark.parametrize("sqlstate", ["55P03", "40P01"])
def test_migrate_tries_again_where_a_table_is_in_use(
    db: None, in_use: Callable[[int, str], list[float]], sqlstate: str
) -> None:
    slept, told = in_use(3, sqlstate), StringIO()

    call_command("migrate", stderr=told)

    assert (slept, told.getvalue().count("in use; trying again")) == ([2] * 3, 3)


def test_migrate_says_that_a_table_stays_in_use(db: None, in_use: Callable[[int, str], list[float]]) -> None:
    in_use(100, "55P03")
    with pytest.raises(CommandError, match="stays in use, perhaps by a backup"):
        call_command("migrate", stderr=StringIO())


def test_migrate_does_not_repeat_what_fails_for_another_reason(
    db: None, in_use: Callable[[int, str], list[float]]
) -> None:
    slept = in_use(1, "53100")
    with pytest.raises(OperationalError):
        call_command("migrate", stderr=StringIO())
    assert slept == []


@pytest.mark.skipif("connections['default'].vendor != 'postgresql'", reason="SQLite locks the whole database")
def test_a_migration_lets_turns_pass_that_wait_behind_it(samples: Samples) -> None:
    operation = migrations.AddField("usageevent", "x", models.IntegerField(null=True))
    reader = connections["default"].copy()
    reader.set_autocommit(False)
    try:
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM samples")
        with pytest.raises(OperationalError, match="lock timeout"):
            samples.run(operation, atomic=True)
    finally:
        reader.rollback()
        reader.close()
    samples.run(operation, atomic=True)
