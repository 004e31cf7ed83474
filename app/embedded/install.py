"""`python app/embedded/install.py [--no-deps] FILE`: run pip and print one line for each package it installs.

It runs before anything is installed, so it imports nothing but Python's own library.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

# `Downloading fastapi-0.165.0-py3-none-any.whl (110 kB)`; metadata alone is no package, a local file has no size.
_PACKAGE = re.compile(
    r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([^\s/]+\.(?:whl|tar\.gz|zip))(?: \(([^)]+)\))?\s*$"
)
_LOOKED_UP = re.compile(r"Collecting (\S+)")
_BUILDING = re.compile(r"\s*Building wheel for (\S+)")
_WRITING = re.compile(r"Installing collected packages: (.+)")
_SECONDS_BETWEEN_LINES = 5.0
# pip repeats what an index answers, and names of files: nothing of it steers the terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def describe_progress(lines: Iterable[str], name: str) -> Iterator[str]:
    """Yield what a user is shown of pip's output while it works on the requirements `name`."""
    shown, looked_up, last = set(), 0, time.monotonic()
    for line in lines:
        if match := _PACKAGE.match(line):
            package = _describe_package(match[1])
            if package not in shown:
                shown.add(package)
                last = time.monotonic()
                yield f"  {package} ({match[2]})" if match[2] else f"  {package}"
        elif match := _BUILDING.match(line):
            yield f"  building {match[1]}"
        elif match := _WRITING.match(line):
            yield f"  writing {len(match[1].split(','))} packages …"
        elif _LOOKED_UP.match(line):
            looked_up += 1
            if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                yield f"  looked up {looked_up} packages of {name} …"


def install(arguments: list[str]) -> int:
    """Run pip, show its progress, and return its exit status; its own words are shown where it fails."""
    name, started = arguments[-1], time.monotonic()
    _print(f"Installing {name}")
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--no-color", "--progress-bar", "off", "--root-user-action", "ignore", *arguments[:-1], "-r", name]
    pip = subprocess.Popen(  # noqa: S603  the command is our own
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    said: list[str] = []
    try:
        for line in describe_progress(_keep(pip.stdout or (), said), name):
            _print(line)
        status = pip.wait()
    except KeyboardInterrupt:
        pip.wait()
        return 130
    if status:
        _print("".join(line for line in said if line.startswith(("ERROR", "error", "  error"))) or "".join(said[-20:]))
        _print(f"{name} could not be installed; the same command tries it again")
    else:
        _print(f"  done in {time.monotonic() - started:.0f} s")
    return status


def _describe_package(file: str) -> str:
    """Return name and version: `fastapi 0.165.0`."""
    stem = re.sub(r"\.(whl|tar\.gz|zip)$", "", file)
    name, version = stem.split("-")[:2] if file.endswith(".whl") else stem.rsplit("-", 1)
    return f"{name.replace('_', '-')} {version}"


def _keep(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    for line in text.rstrip().split("\n"):
        shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), line.expandtabs())
        sys.stdout.write(shown.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.pop("PYTHONIOENCODING", None)
    sys.exit(install(sys.argv[1:]))
