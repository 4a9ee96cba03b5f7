"""Rehearse a year of operation in some minutes: fresh tree, rolling upgrade, rotated keys, a dead node, a restore.

    python -m bench.rehearsal
    python -m bench.rehearsal --clients 24 --seconds 20

Two nodes of two processes each, on a PostgreSQL of their own, behind nginx with deploy/nginx.conf; clients are
OpenAI's SDK with its own retries, and never stop. It prints tables in Markdown, and exits with 1 where a turn failed
that was not in flight on the killed node, or where an invariant (bench/invariants.py) is broken.
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

from bench.openai_double import Behaviour, OpenAIDouble
from bench.postgres import own_postgres
from bench.rehearsal import proxy, report, staff, trees
from bench.rehearsal.clients import Clients
from bench.rehearsal.service import Node, manage
from bench.rehearsal.steps import Rehearsal


def settings(database_url: str, upstream: OpenAIDouble, token: str) -> dict[str, str]:
    return {
        "ENV_FILE": os.devnull,
        "DJANGO_SETTINGS_MODULE": "llmapi.settings",
        "SECRET_KEY": "first-of-a-rehearsal-and-of-nothing-else-0123456789",
        "DATABASE_URL": database_url,
        "DATABASE_POOL_SIZE": "4",
        "OPENAI_API_KEY": "sk-first",
        "OPENAI_BASE_URL": upstream.url,
        "CLIENT_API_TOKEN": token,
        "RATE_LIMIT_PER_MIN": "0",
        "ALLOWED_HOSTS": proxy.HOST,
        "TRUSTED_PROXIES": "1",
        "WEB_CONCURRENCY": "2",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=12, help="who talk at once (12)")
    parser.add_argument("--seconds", type=float, default=10, help="that a step lasts at least (10)")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        elsewhere = scratch / "elsewhere"
        elsewhere.mkdir()
        databases = [stack.enter_context(own_postgres(folder)) for folder in (scratch, elsewhere)]
        upstream, other_upstream = (stack.enter_context(OpenAIDouble()) for _ in range(2))
        # Slow enough that there are turns in flight whenever something happens.
        upstream.default = Behaviour(delay=0.4, pause=0.15)
        token = "first-token-of-a-rehearsal-0123456789"  # noqa: S105
        env = {**os.environ, **settings(databases[0].url, upstream, token)}
        os.environ.update(env)
        import django

        django.setup()
        logging.getLogger("httpx").setLevel(logging.WARNING)
        tree = trees.fresh(scratch / "tree")
        manage(tree, env, "migrate", "-v0")
        password = {"DJANGO_SUPERUSER_PASSWORD": staff.PASSWORD}
        manage(tree, {**env, **password}, "createsuperuser", "--noinput", "--username=admin", "--email=a@example.com")
        nodes = [Node(name, scratch / f"{name}.log") for name in ("A", "B")]
        for node in nodes:
            stack.callback(node.end)
            node.start(tree, env)
        front = stack.enter_context(proxy.running(scratch / "nginx", [node.port for node in nodes]))
        clients = Clients(front, token)
        rehearsal = Rehearsal(scratch, clients, nodes, upstream, args.seconds)
        with staff.watching(front) as seen, clients.talking(args.clients):
            rehearsal.run(databases[1].url, other_upstream)
        rehearsal.note("a member of staff stayed logged in", not seen["logged out"], report.words(seen))
        sys.exit(report.report(rehearsal))


if __name__ == "__main__":
    main()
