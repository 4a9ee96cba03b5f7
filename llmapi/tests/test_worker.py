"""The loop of a server process: what it accepts, and what a stop does."""

import gevent
from gevent import socket
from gevent.pool import Pool

from llmapi.client_connections import ClientConnections
from llmapi.client_socket import ClientSocket
from llmapi.worker import Server


def test_what_has_come_before_the_end_is_accepted() -> None:
    """The system would reset these connections with the requests that they have sent already."""
    received: list[bytes] = []
    pool = Pool(10)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def handle(connected: socket.socket, _address: object) -> None:
        received.append(connected.recv(10))

    server = Server(ClientConnections(10), listener, handle, spawn=pool, is_one_of_many=True)
    with socket.create_connection(listener.getsockname()) as first, socket.create_connection(listener.getsockname()):
        first.sendall(b"hello")
        server.close()
        assert len(pool) == 2
    pool.join(timeout=30)

    assert sorted(received) == [b"", b"hello"]


def test_a_connection_that_is_closed_while_it_is_quiet_is_at_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connections = ClientConnections(10)
        connected = ClientSocket(ours, connections, head_seconds=60)
        connections.add(connected)
        reading = gevent.spawn(connected.recv, 10)
        gevent.sleep(0)
        connections.hang_up_quiet(-1, most=1)

        assert reading.get(timeout=30) == b""
