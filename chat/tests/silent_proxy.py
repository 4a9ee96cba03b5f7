"""A TCP proxy before PostgreSQL that falls silent: what it is sent then goes nowhere, and no connection ends."""

import socket
import threading
from contextlib import suppress


class SilentProxy:
    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.speaks = threading.Event()
        self.speaks.set()
        self.bytes_held = threading.Semaphore(0)  # one for each piece that arrived while it was silent
        self._server = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.speaks.wait()
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        client.close()
        server.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.speaks.is_set():
                    self.bytes_held.release()
                    self.speaks.wait()
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.speaks.set()
        self._server.close()
