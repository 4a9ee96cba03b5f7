"""Settings of the floor: those of the service, without middleware and without a database."""

from llmapi.settings import *  # noqa: F403

globals().update(MIDDLEWARE=[], DATABASES={}, ROOT_URLCONF="bench.peers.floor")
