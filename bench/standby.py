"""A streaming replica of the run's own PostgreSQL server."""

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench.postgres import OwnPostgres
from llmapi.launch import free_port


class Standby(OwnPostgres):
    """A copy of `primary` by pg_basebackup, which follows it over the replication protocol."""

    def __init__(self, primary: OwnPostgres, scratch: Path) -> None:
        self.data = scratch / "standby"
        self.port = free_port()
        self.url = f"postgres://llmapi@127.0.0.1:{self.port}/postgres"
        self.bin, self.user = primary.bin, primary.user
        self.data.mkdir(mode=0o700)
        if self.user:
            os.chown(self.data, pwd.getpwnam(self.user).pw_uid, -1)
        source = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "llmapi"]
        self.run("pg_basebackup", *source, "-D", str(self.data), "-R", "-X", "stream", "-c", "fast", "--no-sync")
        with open(self.data / "postgresql.auto.conf", "a", encoding="ascii") as file:
            file.write(f"port={self.port}\n")
        self.start()

    def pause(self) -> None:
        """Receive what the primary commits, but do not apply it."""
        self.execute("SELECT pg_wal_replay_pause()")

    def resume(self) -> None:
        self.execute("SELECT pg_wal_replay_resume()")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def own_standby(primary: OwnPostgres, scratch: Path) -> Iterator[Standby]:
    standby = Standby(primary, scratch)
    try:
        yield standby
    finally:
        standby.stop("immediate")
