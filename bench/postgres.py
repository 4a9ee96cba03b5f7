"""A PostgreSQL server of the run's own, which can be stopped and overloaded without harm to others."""

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from llmapi.launch import free_port

MAX_CONNECTIONS = 60


class OwnPostgres:
    def __init__(self, scratch: Path) -> None:
        self.data = scratch / "postgres"
        self.port = free_port()
        self.url = f"postgres://llmapi@127.0.0.1:{self.port}/postgres"
        self.bin = find_binaries()
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else None
        self.data.mkdir()
        if self.user:
            os.chown(self.data, pwd.getpwnam(self.user).pw_uid, -1)
            scratch.chmod(0o711)
        self.run("initdb", "-U", "llmapi", "--auth=trust", "--no-sync", "-E", "UTF8", str(self.data))
        settings = f"port={self.port}\nmax_connections={MAX_CONNECTIONS}\nunix_socket_directories=''\n"
        with open(self.data / "postgresql.auto.conf", "a", encoding="ascii") as file:
            file.write(settings)
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([self.bin / program, *arguments], check=True, cwd="/", user=self.user, **output)  # type: ignore[call-overload]

    @property
    def pid(self) -> int:
        """The process of which all of PostgreSQL's are children."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "start")

    def stop(self, mode: str) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def crash_and_restart(self) -> None:
        """Crash and start again, as after a loss of power: commits survive, connections do not."""
        self.stop("immediate")
        time.sleep(1)
        self.start()

    def cut_connections(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'llmapi-%' AND pid <> pg_backend_pid()"
            )

    def run_out_of_connections(self, seconds: float) -> None:
        """Take every free connection, and every one that a server gives up meanwhile."""
        deadline = time.monotonic() + seconds
        with contextlib.ExitStack() as stack:
            while time.monotonic() < deadline:
                try:
                    stack.enter_context(psycopg.connect(self.url))
                except psycopg.OperationalError:
                    time.sleep(0.05)


def find_binaries() -> Path:
    """Find initdb and pg_ctl. Debian does not have them in the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise SystemExit("PostgreSQL's server programs (initdb, pg_ctl) are missing; install them.")
    return found[-1]


@contextlib.contextmanager
def own_postgres(scratch: Path) -> Iterator[OwnPostgres]:
    postgres = OwnPostgres(scratch)
    try:
        yield postgres
    finally:
        postgres.stop("immediate")
