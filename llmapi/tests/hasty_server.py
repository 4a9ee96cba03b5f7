"""A server with room for few connections and little patience, so that tests need not wait for its bounds."""

from runpy import run_path

# First, because it patches what all others import.
globals().update(run_path("chat/tests/shared_server.py"))

from llmapi import client_socket  # noqa: E402

workers = 1
keepalive = 2
worker_connections = 70
client_socket.BODY_SECONDS = 1
client_socket.LEAST_BYTES_A_SECOND = 1000
client_socket.MAX_UNREAD_BYTES = 300_000
