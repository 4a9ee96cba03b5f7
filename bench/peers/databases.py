"""The databases of a run: for each start of llmapi one of its own, empty or with a ledger of so many turns."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.peers import installs
from bench.postgres import OwnPostgres

NAME = "llmapi_bench"


@dataclass(frozen=True)
class Databases:
    """Makes databases in the folder of the run, and in the PostgreSQL server of the run, if a peer needs one."""

    scratch: Path
    postgres: OwnPostgres | None
    rows: int  # of the ledger, before the first request
    filled: dict[str, str] = field(default_factory=dict)  # commit and dialect -> the URL of a database to copy

    @contextlib.contextmanager
    def fresh(self, root: Path, *, is_postgres: bool) -> Iterator[str]:
        """Yield the URL of a database for the commit whose clone is `root`; it is deleted in the end."""
        original = self.original(root, is_postgres=is_postgres) if self.rows else ""
        if is_postgres:
            self.execute(f'CREATE DATABASE {NAME} TEMPLATE "{original.rpartition("/")[2] or "template1"}"')
            try:
                yield self.url_of(NAME)
            finally:
                self.execute(f"DROP DATABASE {NAME} WITH (FORCE)")
        else:
            path = self.scratch / f"{NAME}.sqlite3"
            if original:
                shutil.copy(original.removeprefix("sqlite:///"), path)
            try:
                yield f"sqlite:///{path}"
            finally:
                for part in self.scratch.glob(f"{path.name}*"):
                    part.unlink()

    def original(self, root: Path, *, is_postgres: bool) -> str:
        """Return the URL of a database with `rows` turns. That commit's own bench.history fills it at its first use."""
        name = f"filled_{root.name}"
        key = f"{name} {is_postgres}"
        if key not in self.filled:
            url = f"sqlite:///{self.scratch / name}"
            if is_postgres:
                self.execute(f'CREATE DATABASE "{name}"')
                url = self.url_of(name)
            print(f"Filling a {'PostgreSQL' if is_postgres else 'SQLite'} with {self.rows:,} turns ...", flush=True)
            installs.python(root, "-m", "bench.history", "--turns", str(self.rows), "--database-url", url)
            self.filled[key] = url
        return self.filled[key]

    def execute(self, statement: str) -> None:
        assert self.postgres
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def url_of(self, database: str) -> str:
        assert self.postgres
        return f"{self.postgres.url.rpartition('/')[0]}/{database}"
