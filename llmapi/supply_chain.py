"""`python -m llmapi.supply_chain check|audit|licences`: what is known of the packages that are installed.

`check` holds the locks against the lists that people write, and the licences against those that are allowed; it asks no
network. `audit` asks for known vulnerabilities. `licences` writes docs/licences.md.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LICENCES = "docs/licences.md"
# In a lock, a package's lines begin with its name and end with what needs it.
PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;]+)(.*(?:\n[ ].*)*)", re.MULTILINE)
# Of a list that people write.
BY_HAND = re.compile(r"via.*(-r requirements\.txt|pyproject\.toml:\w+)|^ +#   (-r requirements\.txt|\(pyproject)", re.M)


class Locked(NamedTuple):
    version: str
    is_by_hand: bool
    has_hash: bool


def canonical(name: str) -> str:
    """Return the name of a package as all tools compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, Locked]:
    text = path.read_text(encoding="utf-8")
    return {
        canonical(name): Locked(version, bool(BY_HAND.search(rest)), "--hash=sha256:" in rest)
        for name, version, rest in PACKAGE.findall(text)
    }


def written(root: Path) -> dict[str, dict[str, str]]:
    """Return the versions that people wrote, for each lock."""
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    run = (root / "requirements.txt").read_text(encoding="utf-8")
    lists = {
        "requirements.lock": run,
        "requirements-otel.lock": "\n".join(groups["otel"]),
        "requirements-dev.lock": "\n".join([run, *groups["otel"], *groups["dev"]]),
        "requirements-trial.lock": "\n".join(groups["trial"]),
    }
    return {
        lock: {canonical(name): version for name, version, _ in PACKAGE.findall(text)} for lock, text in lists.items()
    }


def lock_problems(root: Path) -> list[str]:
    """Say where the locks do not fit the lists, or each other."""
    problems = []
    locks = {name: read_lock(root / name) for name in written(root)}
    for lock, wanted in written(root).items():
        by_hand = {name: package.version for name, package in locks[lock].items() if package.is_by_hand}
        for name in sorted(dict(wanted.items() ^ by_hand.items())):
            problems.append(f"{lock} has {name} {by_hand.get(name, 'not')}, wanted is {wanted.get(name, 'none')}")
        problems += [f"{lock} has no hash of {name}" for name, package in locks[lock].items() if not package.has_hash]
    for lock in ("requirements.lock", "requirements-otel.lock"):
        for name, package in locks[lock].items():
            other = locks["requirements-dev.lock"].get(name)
            if not other or other.version != package.version:
                problems.append(f"requirements-dev.lock has another {name} than {lock}")
    return problems


def licences(root: Path) -> str:
    """Return docs/licences.md: the licences of what runs in production, as it is installed here.

    Exits where a licence is none of those that pyproject.toml allows.
    """
    names = sorted(read_lock(root / "requirements.lock"))
    command = [sys.executable, "-m", "piplicenses", "--format=markdown", "--no-version", "--packages", *names]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr.strip()}; allow it in pyproject.toml, or take another package.")
    head = "# Licences of the packages that run in production\n\nWritten by `make lock`. "
    windows = "What only Windows needs is not in it. "
    trial = "The trial model, SmolLM2 135M, and its package are under Apache-2.0, what serves it (xllamacpp) under MIT."
    return f"{head}{windows}{trial}\n\n{done.stdout}"


def verdict(report: str, trouble: str) -> tuple[list[str], str]:
    """Return the known vulnerabilities that a report of pip-audit names, and what it could not check."""
    try:
        packages = json.loads(report)["dependencies"]
    except ValueError:  # It has found no service, and no report is printed.
        reason = trouble.strip().rpartition("\n")[2][:120] or "pip-audit said nothing"
        return [], f"all packages ({reason})"
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or '-'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    return found, f"{len(skipped)} of {len(packages)} packages ({skipped[0]})" if skipped else ""


def audit(root: Path, *, strict: bool) -> None:
    """Exit if a locked version has a known vulnerability; with `strict` also if one could not be checked."""
    locks = [f"--requirement={name}" for name in ("requirements-dev.lock", "requirements-trial.lock")]
    options = ["--disable-pip", "--progress-spinner=off", "--timeout=5", "--format=json"]
    command = [sys.executable, "-m", "pip_audit", *options, *locks]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    found, unchecked = verdict(done.stdout, done.stderr)
    for line in found:
        print(line)
    if unchecked:
        print(f"NOT CHECKED for known vulnerabilities: {unchecked}.")
        print(
            "The service that pip-audit asks cannot be reached from here, or does not know them; make audit asks again."
        )
    elif not found:
        print("No locked package has a known vulnerability.")
    sys.exit(bool(found or (strict and unchecked)))


def check(root: Path) -> None:
    """Exit if a lock or docs/licences.md does not fit."""
    problems = lock_problems(root)
    if not problems and licences(root) != (root / LICENCES).read_text(encoding="utf-8"):
        problems = [f"{LICENCES} is not what is installed"]
    if problems:
        sys.exit("\n".join([*problems, "Run make lock."]))


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check"]:
            check(ROOT)
        case ["audit", *rest]:
            audit(ROOT, strict="--strict" in rest)
        case ["licences"]:
            (ROOT / LICENCES).write_text(licences(ROOT), encoding="utf-8")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
