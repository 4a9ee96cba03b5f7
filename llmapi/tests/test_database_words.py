"""A PostgreSQL that lets nobody in is told in its own words: by commands, by the start and in the log."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
from django.db import OperationalError, connection, connections
from django.db.backends.utils import CursorWrapper

from analytics.causes import cause
from llmapi.backends.postgresql.base import DatabaseWrapper
from llmapi.database import database

pytestmark = pytest.mark.django_db
# https://www.postgresql.org/docs/current/protocol-message-formats.html
SSL_REQUEST = 80877103


class Doorkeeper(socketserver.StreamRequestHandler):
    """Speaks as much of PostgreSQL's protocol as refuses a client: no TLS, and one error."""

    error: ClassVar[str] = ""

    def handle(self) -> None:
        length, code = struct.unpack("!ii", self.rfile.read(8))
        if code == SSL_REQUEST:
            self.wfile.write(b"N")
            if not (head := self.rfile.read(8)):  # the client will not go on without TLS
                return
            length, code = struct.unpack("!ii", head)
        self.rfile.read(length - 8)
        fields = b"".join(field.encode() + b"\0" for field in ("SFATAL", "VFATAL", "C28000", f"M{self.error}"))
        self.wfile.write(b"E" + struct.pack("!i", 5 + len(fields)) + fields + b"\0")


@pytest.fixture
def address() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Doorkeeper) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def connected(url: str) -> Iterator[CursorWrapper]:
    """Connect as a server does, through a pool."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        defaults = connection.settings_dict | {"AUTOCOMMIT": True, "TIME_ZONE": None}
        wrapper = DatabaseWrapper(defaults | database("DATABASE_URL", ""), alias="refused")
        # Of these the server forgets the pool that cannot connect.
        patch.setattr(connections, "all", lambda: [wrapper])
        try:
            with wrapper.cursor() as cursor:
                yield cursor
        finally:
            wrapper.close_pool()


@pytest.mark.parametrize(
    "words",
    [
        'password authentication failed for user "llmapi"',
        'database "nosuch" does not exist',
        'role "nobody" does not exist',
        "sorry, too many clients already",
        "the database system is starting up",
        'no pg_hba.conf entry for host "10.0.0.7", user "llmapi", database "llmapi", no encryption',
    ],
)
def test_says_why_nobody_is_let_in(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doorkeeper, "error", words)

    with (
        pytest.raises(OperationalError) as raised,
        connected(f"postgres://llmapi:s3cret@{address}/nosuch"),
    ):
        pass

    assert cause(raised.value).endswith(f"FATAL:  {words}")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgres://llmapi:s3cret@{address}/name?sslmode=require",
            "server does not support SSL, but SSL was required",
        ),
        ("postgres://llmapi:s3cret@127.0.0.1:1/name", "Connection refused"),
        ("postgres://llmapi:s3cret@nowhere.invalid/name", "failed to resolve host 'nowhere.invalid'"),
        (
            "postgres://llmapi:s3cret@%2Fnowhere/name",
            'socket "/nowhere/.s.PGSQL.5432" failed: No such file or directory',
        ),
        ("postgres://llmapi:s3cret@{address}/name?sslmode=bogus", 'invalid sslmode value: "bogus"'),
    ],
)
def test_says_why_there_is_no_way_to_it(address: str, url: str, words: str) -> None:
    with pytest.raises(OperationalError) as raised, connected(url.format(address=address)):
        pass

    assert words in cause(raised.value)
    assert "s3cret" not in str(raised.value)
