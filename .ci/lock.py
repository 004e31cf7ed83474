"""Write the locks of `.ci/locks`: every package of each requirements file with the hashes of all its files.

`python .ci/lock.py UV [--upgrade …]`: versions stay as they are where the requirements allow it. A lock leaves out what
the locks that are installed before it hold, so that no package is named twice.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / ".ci" / "locks"
EXCLUDES = ".ci/excludes.txt"
OLDEST_PYTHON = "3.11"

_ENTRY = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==.*?(?=^\S(?!\s)|\Z)", re.M | re.S)


@dataclass(frozen=True, slots=True)
class LockedSet:
    """A requirements file, its lock, and the sets that are installed before it."""

    name: str
    requirements: str
    after: tuple[str, ...] = ()

    @property
    def lock(self) -> Path:
        return LOCKS / f"{self.name}.txt"


SETS = (
    LockedSet("server", "requirements.txt"),
    LockedSet("local", "requirements-local.txt", ("server",)),
    LockedSet("tests", "tests/requirements.txt", ("server", "local")),
    LockedSet("tools", ".ci/requirements.txt", ("server", "local", "tests")),
    LockedSet("bench", "tests/performance/requirements.txt", ("server",)),
    LockedSet("supply", ".ci/requirements-supply.txt"),
)


def digest_requirements(requirements: str) -> str:
    """Return the SHA-256 of what a requirements file asks for, which its comments do not change."""
    files = [ROOT / requirements, ROOT / EXCLUDES]
    if requirements != "requirements.txt":
        files.append(ROOT / "requirements.txt")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for file in files for line in file.read_text().splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()


def write_locks(uv: str, options: Sequence[str]) -> None:
    """Resolve all requirements together and write a lock for each set."""
    with tempfile.TemporaryDirectory() as scratch:
        versions = Path(scratch, "versions.txt")
        versions.write_text("".join(each.lock.read_text() for each in SETS if each.lock.exists()))
        _compile(uv, [*(each.requirements for each in SETS), "--output-file", str(versions), *options])
        locked: dict[str, list[str]] = {}
        for each in SETS:
            text = _compile(uv, [each.requirements, "--constraints", str(versions), "--generate-hashes"])
            entries = [match[0].rstrip() + "\n" for match in _ENTRY.finditer(text)]
            earlier = {entry for name in each.after for entry in locked[name]}
            own = locked[each.name] = [entry for entry in entries if not {entry, _everywhere(entry)} & earlier]
            LOCKS.mkdir(exist_ok=True)
            each.lock.write_text(_head(each) + "".join(own), newline="\n")


def _everywhere(entry: str) -> str:
    """Return an entry of a lock without its environment marker."""
    return re.sub(r" ;[^\n]*? \\\n", r" \\\n", entry, count=1)


def _head(each: LockedSet) -> str:
    return (
        f"# Written by `make lock` from {each.requirements}; edit that file instead.\n"
        f"# requirements: {digest_requirements(each.requirements)}\n"
    )


def _compile(uv: str, arguments: Sequence[str]) -> str:
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", OLDEST_PYTHON]
    command += ["--only-binary", ":all:", "--no-header", "--no-annotate", "--no-emit-index-url"]
    command += ["--excludes", EXCLUDES, *arguments]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603  the command is our own
    if result.returncode:
        raise SystemExit("The requirements could not be resolved; the locks are as they were")
    return result.stdout


if __name__ == "__main__":
    write_locks(sys.argv[1], sys.argv[2:])
