"""Execute the steps of the Dockerfile where there is no container engine, and try what they make.

`make try-image`, as root. debootstrap makes the tree that stands for the base image: Debian's own Python, with pip
below /usr/local as the image of Python has it. The wheels are fetched before; the steps themselves have no network.
The server then runs without privileges, on a root that is read-only, and answers a turn.
"""

import contextlib
import fnmatch
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASE = Path("/var/tmp/llmapi-image/base")  # kept, because it takes a minute to make
RELEASE = "bookworm"
TOKEN = "token-of-the-image-0123456789"  # noqa: S105
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass
class Image:
    tree: Path
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        yield name, rest.strip()


def make_base() -> None:
    if (BASE / "usr/local/bin/pip").exists():
        return
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.parent.mkdir(parents=True, exist_ok=True)
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, RELEASE, str(BASE)], check=True)
    subprocess.run(["chroot", str(BASE), "/usr/bin/python3", "-m", "venv", "--copies", "/usr/local"], check=True)


def fetch_wheels(to: Path, python: str) -> None:
    """Fetch what the build stage asks the package index for."""
    locks = ["-r", "requirements.lock", "-r", "requirements-otel.lock"]
    fitting = ["--python-version", python, "--only-binary=:all:", *locks]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", str(to), *fitting], cwd=ROOT, check=True)


def make_context(to: Path) -> None:
    """Copy what .dockerignore leaves of this folder, as a builder does."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in {".git", ".venv", "node_modules"}]
        for path in (Path(folder, name).relative_to(ROOT) for name in files):
            if not is_ignored(path, patterns):
                (to / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, to / path)


def is_ignored(path: Path, patterns: list[str]) -> bool:
    """Tell what .dockerignore does with a file: of the patterns that fit, the last one counts."""
    ignored = False
    for pattern in patterns:
        kept = pattern.startswith("!")
        wanted = pattern.removeprefix("!").removeprefix("**/")
        # A pattern fits a file, or a folder above it; without **/ only from the top, where * is no slash.
        names = [Path(*path.parts[:end]) for end in range(1, len(path.parts) + 1)]
        if "**/" in pattern:
            fits = any(fnmatch.fnmatch(name.name, wanted) for name in names)
        else:
            fits = any(len(name.parts) == len(Path(wanted).parts) and name.match(wanted) for name in names)
        if fits:
            ignored = not kept
    return ignored


def run(image: Image, command: list[str], **env: str) -> None:
    values = [f"{name}={value}" for name, value in {**image.env, **env}.items()]
    inside = ["chroot", str(image.tree), "env", "-i", f"--chdir={image.workdir}", *values, *command]
    # Nothing of the network is there, and no mount of a step is left.
    subprocess.run(["unshare", "--net", "--mount", *inside], check=True)


def build(context: Path, scratch: Path, wheels: Path) -> Image:
    """Execute the Dockerfile, and return its last stage."""
    stages: dict[str, Image] = {}
    image = Image(scratch)
    for name, rest in instructions((ROOT / "Dockerfile").read_text()):
        print(f"{name} {rest}", flush=True)
        words = shlex.split(rest)
        if name == "FROM":
            image = Image(scratch / f"stage-{len(stages)}")
            stages[words[2] if len(words) > 2 else "last"] = image
            subprocess.run(["cp", "-a", str(BASE), str(image.tree)], check=True)
            shutil.copytree(wheels, image.tree / "tmp/wheels")
        elif name == "WORKDIR":
            image.workdir = rest
            (image.tree / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "RUN":
            run(image, ["sh", "-ec", rest], PIP_NO_INDEX="1", PIP_FIND_LINKS="/tmp/wheels")
        elif name == "COPY":
            copy(stages, image, context, words)
        elif name == "ENV":
            image.env |= dict(word.split("=", 1) for word in words)
        elif name == "USER":
            image.user = rest
        elif name == "CMD":
            image.command = json.loads(rest)
        elif name == "HEALTHCHECK":
            image.healthcheck = json.loads(rest.partition("CMD ")[2])
        elif name not in {"EXPOSE", "STOPSIGNAL"}:
            raise SystemExit(f"This script does not know {name}.")
    shutil.rmtree(image.tree / "tmp/wheels")
    return image


def copy(stages: dict[str, Image], image: Image, context: Path, words: list[str]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].tree
    *names, target = words
    to = image.tree / image.workdir.lstrip("/") / target if target[0] != "/" else image.tree / target.lstrip("/")
    for name in names:
        found = source / name.lstrip("/")
        into = to / found.name if target.endswith("/") and found.is_file() else to
        into.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-aT", "--no-preserve=ownership", str(found), str(into)], check=True)


@contextlib.contextmanager
def mounted(image: Image) -> Iterator[None]:
    """Make the root read-only, with a /tmp and a volume in memory."""
    tree = str(image.tree)
    uid, _, gid = image.user.partition(":")
    mounts = [
        ["--bind", tree, tree],
        ["-o", "remount,bind,ro", tree],
        ["-t", "tmpfs", "tmpfs", f"{tree}/tmp"],
        ["-t", "tmpfs", "-o", f"uid={uid},gid={gid},mode=700", "tmpfs", f"{tree}/data"],
        ["-t", "proc", "proc", f"{tree}/proc"],
        ["--rbind", "/dev", f"{tree}/dev"],
    ]
    for mount in mounts:
        subprocess.run(["mount", *mount], check=True)
    yield


def as_user(image: Image, command: list[str], **env: str) -> list[str]:
    """Return the command as the image's user, without a way to more."""
    uid, _, gid = image.user.partition(":")
    drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    values = [f"{name}={value}" for name, value in {**image.env, **env}.items()]
    return ["chroot", str(image.tree), *drop, "env", "-i", f"--chdir={image.workdir}", *values, *command]


def must_fail(image: Image, command: list[str], why: str) -> None:
    if subprocess.run(as_user(image, command), capture_output=True, check=False).returncode == 0:
        raise SystemExit(f"The image is not as it should be: {why}.")


def try_out(image: Image, port: str, upstream: str) -> None:
    must_fail(image, ["touch", "/app/written"], "its root can be written")
    must_fail(image, ["python", "-c", "import pip"], "the environment has pip")
    must_fail(image, ["/usr/local/bin/python3", "-c", "import pip"], "Python has pip")
    must_fail(image, ["sh", "-c", "ls -d /app/*/tests /app/.env*"], "it has tests or secrets")
    settings = {
        "SECRET_KEY": "of-the-tried-image-and-of-nothing-else-0123456789-abc",
        "ALLOWED_HOSTS": "chat.example.com",
        "CLIENT_API_TOKEN": TOKEN,
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": upstream,
        "PORT": port,
        "MIGRATE": "true",
        "WEB_CONCURRENCY": "",
    }
    began = time.monotonic()
    server = subprocess.Popen(as_user(image, image.command, **settings))
    healthcheck = as_user(image, image.healthcheck, PORT=port)
    while subprocess.run(healthcheck, capture_output=True, check=False).returncode:
        if server.poll() is not None or time.monotonic() - began > 60:
            raise SystemExit("The server did not get healthy.")
        time.sleep(0.1)
    print(f"healthy after {time.monotonic() - began:.1f} s", flush=True)
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Host": "chat.example.com"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(f"a turn: {json.load(answer)['choices'][0]['message']['content']}", flush=True)
    began = time.monotonic()
    server.send_signal(signal.SIGTERM)
    status = server.wait(40)
    print(f"stopped after {time.monotonic() - began:.1f} s with status {status}", flush=True)
    if status or not subprocess.run(healthcheck, capture_output=True, check=False).returncode:
        raise SystemExit("The server did not stop as it should.")


def main() -> None:
    from bench.openai_double import OpenAIDouble
    from llmapi.launch import free_port

    make_base()
    # On the disk of the base: a copy takes some 400 MB.
    with tempfile.TemporaryDirectory(dir=BASE.parent) as folder, OpenAIDouble() as upstream:
        scratch = Path(folder)
        context, wheels = scratch / "context", scratch / "wheels"
        context.mkdir()
        make_context(context)
        fetch_wheels(wheels, "3.11")
        image = build(context, scratch, wheels)
        own = (image.tree / part for part in ("opt/venv", "app"))
        size = sum(path.lstat().st_size for part in own for path in part.rglob("*"))
        print(f"{size / 1e6:.0f} MB beside the base image", flush=True)
        with mounted(image):
            try:
                try_out(image, str(free_port()), upstream.url)
            finally:
                subprocess.run(["umount", "--recursive", str(image.tree)], check=True)


if __name__ == "__main__":
    main()
