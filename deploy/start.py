"""What runs in a container: it migrates the database if MIGRATE=true, then becomes gunicorn on all addresses.

With --healthy it asks the server that runs there whether it is alive. Needs the standard library only.
"""

import os
import subprocess
import sys
import urllib.request

PORT = os.environ.get("PORT") or "8080"


def ask() -> None:
    """Raises OSError where the server does not answer with 200."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(f"http://127.0.0.1:{PORT}/health", timeout=2).close()


def serve() -> None:
    # An empty value means unset, and gunicorn would fail on an empty WEB_CONCURRENCY.
    env = {name: value for name, value in os.environ.items() if value}
    if env.get("MIGRATE", "").lower() in {"true", "1", "yes", "on"}:
        command = [sys.executable, "manage.py", "migrate", "--noinput", "-v0"]
        if failed := subprocess.run(command, env=env, check=False).returncode:
            sys.exit(failed)
    # gunicorn takes this process's place, so that it gets the signals.
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "--bind", f"0.0.0.0:{PORT}"]
    os.execve(sys.executable, command, env)


if __name__ == "__main__":
    ask() if "--healthy" in sys.argv else serve()
