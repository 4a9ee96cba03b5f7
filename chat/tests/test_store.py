"""The statements of a turn: they agree with the models, and read by an index."""

import re

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import AutoField

from chat.limits import rates
from chat.sql import DjangoSession, Statement, clock, dumped
from chat.turns import store

STATEMENTS = {
    name: value for module in (store, rates) for name, value in vars(module).items() if isinstance(value, Statement)
}
MODELS = {model._meta.db_table: model for model in apps.get_models()}
INSERT = re.compile(r"INSERT INTO (\w+)[^(]*\(([^)]*)\)\s+SELECT", re.DOTALL)
UPDATE = re.compile(r"UPDATE (\w+)(?: AS held)?\s+SET\s+(.*?)\bFROM\s+\{new\}", re.DOTALL)


def written_by(pattern: re.Pattern[str], statement: Statement) -> tuple[str, set[str]]:
    """Return the table that a statement writes, and the columns."""
    ((table, columns),) = pattern.findall(statement.text)
    if pattern is INSERT:
        return table, set(columns.replace(",", " ").split())
    without_cases = re.sub(r"CASE.*?END", "", columns, flags=re.DOTALL)
    return table, set(re.findall(r"(\w+) = ", without_cases))


@pytest.mark.parametrize("name", [name for name, one in STATEMENTS.items() if "INSERT" in one.text])
def test_inserts_write_all_columns_of_the_model(name: str) -> None:
    """But for the key that the database makes, and columns that may be empty."""
    table, written = written_by(INSERT, STATEMENTS[name])

    fields = MODELS[table]._meta.concrete_fields
    needed = {field.column for field in fields if not (field.null or isinstance(field, AutoField))}
    assert needed <= written <= {field.column for field in fields}


@pytest.mark.parametrize("name", [name for name, one in STATEMENTS.items() if one.text.strip().startswith("UPDATE")])
def test_updates_write_columns_of_the_model(name: str) -> None:
    table, written = written_by(UPDATE, STATEMENTS[name])

    assert set() < written <= {field.column for field in MODELS[table]._meta.concrete_fields}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_uses_the_columns_that_it_takes(name: str) -> None:
    statement = STATEMENTS[name]

    assert set(re.findall(r"\bnew\.(\w+)", statement.text)) <= statement.columns.keys()
    assert all(re.search(rf"\b{column}\b", statement.text) for column in statement.columns)


def test_a_usage_row_is_written_whole_by_its_two_statements() -> None:
    opened = {"request_id", "client_token_id", "user_id", "conversation_id", "model", "app_version", "is_stream"}
    opened |= {"is_cancel_asked", "locked_until", "created_at", "id"}
    fields = {field.column for field in MODELS["usage_events"]._meta.concrete_fields}

    assert written_by(UPDATE, store.CLOSE_USAGE)[1] == fields - opened


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_by_an_index(db: None, name: str) -> None:
    """However large its tables become."""
    statement = STATEMENTS[name]
    rows = dumped([dict.fromkeys(statement.columns)])
    explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
            )
        cursor.execute(f"{explain} {statement.sql(connection.vendor, clock())}", [rows])
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())

    for table in MODELS:
        assert not re.search(rf"Seq Scan on {table}\b|SCAN {table}\b(?! USING INDEX)", plan), plan


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite plans without counts")
@pytest.mark.parametrize("name", [name for name, one in STATEMENTS.items() if "conversations" in one.text])
def test_conversations_are_sought_by_their_ids_before_anything_is_counted(db: None, name: str) -> None:
    """A lane makes its plan once, maybe on the first day of a server."""
    statement = STATEMENTS[name]
    with connection.cursor() as cursor:
        cursor.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
        )
        sql = statement.sql(connection.vendor, clock())
        cursor.execute(f"EXPLAIN {sql}", [dumped([dict.fromkeys(statement.columns)])])
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())

    scans = re.findall(r"Scan using \S+ on conversations\b.*\n(.*)", plan)
    assert all("Index Cond" in condition for condition in scans), plan


def test_a_row_without_a_value_leaves_the_column_empty(db: None) -> None:
    ((row,),) = DjangoSession().run(
        (Statement("probe", "SELECT new.a, new.b FROM {new}", {"a": "text", "b": "bigint"}), [{"a": "x"}])
    )

    assert row == ("x", None)
