"""What the bench needs: tools of the system, and the peers, each in an environment of its own below WORK."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from llmapi.launch import ROOT

# Kept between runs, so that nothing is installed twice.
WORK = Path(tempfile.gettempdir()) / "llmapi-bench"
LUA = [Path("/usr/lib/nginx/modules") / name for name in ("ndk_http_module.so", "ngx_http_lua_module.so")]
PACKAGES = {"litellm": ["litellm[proxy]"], "fastapi": ["fastapi", "uvicorn[standard]", "sqlalchemy", "openai"]}
PORTKEY_VERSION = "1.15.2"
PORTKEY = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": PORTKEY_VERSION},
    # With a later one the gateway answers every stream with a 500 (TypeError: immutable; its issue 1389).
    "overrides": {"@hono/node-server": "1.13.8"},
}


def check_tools(peers: list[str]) -> None:
    """End with one sentence that names a missing tool and the Debian package that has it."""
    needed = {"nginx": "nginx", "wrk": "wrk", "git": "git", "make": "make"}
    if "portkey" in peers:
        needed |= {"node": "nodejs", "npm": "npm"}
    for tool, package in needed.items():
        if not shutil.which(tool):
            sys.exit(f"The bench needs {tool}, which is missing; install it (Debian: apt-get install {package}).")
    if not all(module.exists() for module in LUA):
        sys.exit("The bench needs nginx with Lua; install it (Debian: apt-get install libnginx-mod-http-lua).")


def clone(commit: str) -> Path:
    """Return a folder with that commit of this repository, ready for `make run`."""
    sha = sha_of(commit)
    target = WORK / sha
    if not (target / ".git").exists():
        print(f"Preparing llmapi at {sha} ...", flush=True)
        run("git", "clone", "-q", str(ROOT), str(target))
        run("git", "-C", str(target), "checkout", "-q", sha)
        share_environment(target)
    run("make", "--no-print-directory", f"PYTHON={sys.executable}", ".venv/run", cwd=target)
    return target


def share_environment(root: Path) -> None:
    """Let commits with the same requirements have one .venv, so that only the first of them installs it."""
    # Older commits have constraints.txt in place of the lock.
    names = ("requirements.txt", "requirements.lock", "constraints.txt")
    texts = [(root / name).read_bytes() for name in names if (root / name).exists()]
    shared = WORK / f"venv-llmapi-{hashlib.sha256(b''.join(texts)).hexdigest()[:12]}"
    if not (shared / "bin/python").exists():
        run(sys.executable, "-m", "venv", str(shared))
        (shared / "made").touch()  # for the Makefile
    (root / ".venv").symlink_to(shared)


def python(root: Path, *arguments: str, **env: str) -> str:
    """Run Python in a clone, and return what it printed. Raises ValueError if it fails."""
    command = [str(root / ".venv/bin/python"), *arguments]
    done = subprocess.run(command, cwd=root, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(arguments[:3])} failed: {done.stderr[-500:]}")
    return done.stdout.strip()


def sha_of(commit: str) -> str:
    found = subprocess.run(
        ["git", "rev-parse", "-q", "--verify", "--short=12", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        sys.exit(f"{commit} is no commit of this repository; git log has their names.")
    return found.stdout.strip()


def is_dirty() -> bool:
    """Tell whether there are changes that are not committed: the bench does not measure them."""
    command = ["git", "status", "--porcelain", "--untracked-files=no"]
    return bool(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def venv(name: str) -> Path:
    """Return the folder of the programs of a peer's environment."""
    folder, packages = WORK / f"venv-{name}", PACKAGES[name]
    if not (folder / "ok").exists():
        print(f"Installing {', '.join(packages)} ...", flush=True)
        run(sys.executable, "-m", "venv", str(folder))
        run(str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", *packages)
        (folder / "ok").touch()
    return folder / "bin"


def versions(peers: list[str]) -> list[str]:
    """Return the versions of those peers that are installed from a registry."""
    found = []
    for package in ("litellm", "fastapi"):
        if package in peers:
            python = venv(package) / "python"
            code = f"from importlib.metadata import version; print('{package}', version('{package}'))"
            found.append(
                subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
            )
    return found + ([f"portkey {PORTKEY_VERSION}"] if "portkey" in peers else [])


def portkey() -> Path:
    folder, manifest = WORK / "portkey", json.dumps(PORTKEY, indent=1)
    package = folder / "package.json"
    if not (folder / "node_modules").exists() or package.read_text() != manifest:
        print("Installing Portkey's gateway ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        package.write_text(manifest)
        run("npm", "install", "--silent", "--no-fund", "--no-audit", cwd=folder)
    return folder


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a command without a word. If it fails, end with the last lines of what it said."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed in {cwd}:\n{done.stdout[-1500:]}")
