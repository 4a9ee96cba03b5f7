"""The double of the model's provider that all peers ask: nginx with Lua, which is never the bottleneck."""

import contextlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CONFIG = Path(__file__).parent / "upstream.conf"
# Its ports, and over how many seconds each spreads a reply.
AT_ONCE, TWO_SECONDS, THIRTY_SECONDS = 9000, 9200, 9300
CHUNKS = 60
REPLY = "word " * CHUNKS


def is_running(port: int = AT_ONCE) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hits", timeout=2) as answer:
            return bool(answer.read().strip().isdigit())
    except (urllib.error.URLError, OSError):
        return False


@contextlib.contextmanager
def running(scratch: Path) -> Iterator[None]:
    """Use the double that listens already, or start one for as long as the block runs."""
    if is_running():
        yield
        return
    with serving(scratch / "nginx", CONFIG, AT_ONCE):
        yield


@contextlib.contextmanager
def serving(folder: Path, config: Path, port: int) -> Iterator[None]:
    """Run nginx with this configuration, in a folder that it makes, until the block ends. `port` answers /hits."""
    (folder / "logs").mkdir(parents=True)
    command = ["nginx", "-p", str(folder), "-c", str(config)]
    process = subprocess.Popen([*command, "-g", "daemon off;"], start_new_session=True)
    try:
        for _ in range(50):
            if is_running(port):
                break
            time.sleep(0.1)
        else:
            sys.exit("The upstream double did not start; nginx's messages are above.")
        yield
    finally:
        process.terminate()
        process.wait()
