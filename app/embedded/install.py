"""`python app/embedded/install.py LOCK …`: install locked wheels with pip and print one line for each.

A wheel whose hash is not in its lock is refused before anything is installed.

It runs before anything is installed, so it imports nothing but Python's own library.
"""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

# `Downloading fastapi-0.165.0-py3-none-any.whl (110 kB)`; metadata alone is no package, a local file has no size.
_PACKAGE = re.compile(r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?([^\s/]+\.whl)(?: \(([^)]+)\))?\s*$")
_LOOKED_UP = re.compile(r"Collecting (\S+)")
_WRITING = re.compile(r"Installing collected packages: (.+)")
_WRONG_HASH = re.compile(r"DO NOT MATCH THE HASHES.*?\n\s+(\S+) from .*?\n\s+Got\s+([0-9a-f]+)", re.S)
_NO_WHEEL = re.compile(r"No matching distribution found for (\S+)")
_SECONDS_BETWEEN_LINES = 5.0
# pip repeats what an index answers, and names of files: nothing of it steers the terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def summarize_pip_output(pip_output: Iterable[str], name: str) -> Iterator[str]:
    shown, looked_up, last = set(), 0, time.monotonic()
    for line in pip_output:
        if match := _PACKAGE.match(line):
            package = _format_wheel_name(match[1])
            if package not in shown:
                shown.add(package)
                last = time.monotonic()
                yield f"  {package} ({match[2]})" if match[2] else f"  {package}"
        elif match := _WRITING.match(line):
            yield f"  writing {len(match[1].split(','))} packages …"
        elif _LOOKED_UP.match(line):
            looked_up += 1
            if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                yield f"  looked up {looked_up} packages of {name} …"


def install_locked_wheels(lock_files: list[str]) -> int:
    name, started = " and ".join(lock_files), time.monotonic()
    _print_without_control_characters(f"Installing {name}")
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--no-color", "--progress-bar", "off", "--root-user-action", "ignore"]
    command += ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    command += [argument for lock in lock_files for argument in ("-r", lock)]
    pip = subprocess.Popen(  # noqa: S603  the command is our own
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    pip_lines: list[str] = []
    try:
        for line in summarize_pip_output(_yield_and_collect_lines(pip.stdout or (), pip_lines), name):
            _print_without_control_characters(line)
        status = pip.wait()
    except KeyboardInterrupt:
        pip.wait()
        return 130
    if status:
        _print_without_control_characters(explain_pip_failure(pip_lines))
        _print_without_control_characters(f"{name} could not be installed; the same command tries it again")
    else:
        _print_without_control_characters(f"  done in {time.monotonic() - started:.0f} s")
    return status


def explain_pip_failure(pip_lines: list[str]) -> str:
    """Return why pip failed: a sentence for a wrong hash or a missing wheel, else pip's own errors."""
    text = "".join(pip_lines)
    if match := _WRONG_HASH.search(text):
        return (
            f"{match[1].replace('==', ' ')} was refused: the file's SHA-256 {match[2]} is not in the lock. "
            "Nothing was installed."
        )
    if match := _NO_WHEEL.search(text):
        python = f"Python {sys.version_info.major}.{sys.version_info.minor} on {sys.platform} {platform.machine()}"
        return f"{match[1].replace('==', ' ')} has no wheel for {python} here. Nothing was installed."
    return "".join(line for line in pip_lines if line.startswith(("ERROR", "error", "  error"))) or "".join(
        pip_lines[-20:]
    )


def _format_wheel_name(wheel_file: str) -> str:
    name, version = wheel_file.split("-")[:2]
    return f"{name.replace('_', '-')} {version}"


def _yield_and_collect_lines(lines: Iterable[str], collected: list[str]) -> Iterator[str]:
    for line in lines:
        collected.append(line)
        yield line


def _print_without_control_characters(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    for line in text.rstrip().split("\n"):
        shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), line.expandtabs())
        sys.stdout.write(shown.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.pop("PYTHONIOENCODING", None)
    sys.exit(install_locked_wheels(sys.argv[1:]))
