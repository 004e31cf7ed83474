"""Say what is known of the versions in `.ci/locks`: `python .ci/audit.py PIP_AUDIT`; exit status 1 for a vulnerability.

pip-audit asks PyPI. Packages of which it learns nothing are named, and where there is no network those are all; the
list by hand in `.ci/advisories.toml` is held against every version.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

CI = Path(__file__).resolve().parent

_PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^\s;]+)", re.M)


def read_locked(locks: Iterable[Path]) -> dict[str, str]:
    """Return the version of each package that a lock names."""
    return {match["name"]: match["version"] for lock in locks for match in _PIN.finditer(lock.read_text())}


def find_affected(locked: Mapping[str, str], advisories: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each advisory of a locked version, unless it is accepted."""
    for each in advisories:
        version = locked.get(each["package"])
        if version and SpecifierSet(each["affected"]).contains(version, prereleases=True) and "accepted" not in each:
            yield f"{each['package']} {version}: {', '.join(each['ids'])}"


def ask_service(pip_audit: str, locks: Iterable[Path]) -> list[dict[str, Any]]:
    """Return what pip-audit says of each package; nothing where it reaches no service."""
    command = [pip_audit, "--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json"]
    for lock in locks:
        command += ["--requirement", str(lock)]
    result = subprocess.run(command, capture_output=True, text=True)  # noqa: S603  the command is our own
    try:
        found: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except ValueError:
        return []
    return found


def audit(pip_audit: str) -> int:
    """Print the findings and what could not be asked, and return the exit status."""
    locks = sorted((CI / "locks").glob("*.txt"))
    locked = read_locked(locks)
    answers = ask_service(pip_audit, locks)
    asked = {each["name"] for each in answers if "vulns" in each}
    noted = tomllib.loads((CI / "advisories.toml").read_text())["advisories"]
    accepted = {identifier for each in noted if "accepted" in each for identifier in each["ids"]}
    reported = {
        f"{each['name']} {each['version']}: {found['id']}"
        for each in answers
        for found in each.get("vulns", ())
        if not accepted & {found["id"], *found["aliases"]}
    }
    affected = sorted(reported.union(find_affected(locked, noted)))
    lines = [f"PyPI answered for {len(asked)} of {len(locked)} packages"]
    if asked and (missing := sorted(locked.keys() - asked)):
        lines.append(f"It did not for {', '.join(missing)}")
    lines.append(f"The list by hand has {sum(len(each['ids']) for each in noted)} advisories of {len(noted)} packages")
    lines += [f"Accepted: {', '.join(each['ids'])}: {each['accepted']}" for each in noted if "accepted" in each]
    lines += affected or ["No known vulnerability in these versions"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if affected else 0


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1]))
