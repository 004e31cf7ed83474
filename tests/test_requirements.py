"""What is installed for whom: a server never needs the tools of its tests."""

import ast
import hashlib
import os
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.embedded.install import explain_pip_failure, summarize_pip_output

_ROOT = Path(__file__).resolve().parents[1]
_LOCKS = {
    "server": "requirements.txt",
    "local": "requirements-local.txt",
    "tests": "tests/requirements.txt",
    "tools": ".ci/requirements.txt",
    "bench": "tests/performance/requirements.txt",
    "supply": ".ci/requirements-supply.txt",
}

# Imports everything in a process in which modules of other packages than those of a server cannot be found.
_IMPORTS = """
import importlib, importlib.abc, sys
blocked, modules = (set(text.split()) for text in sys.stdin.read().split("|"))

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
for name in sorted(modules):
    importlib.import_module(name)
"""


def _read_requirements(name: str) -> list[Requirement]:
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (_ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _read_lock(name: str) -> dict[str, Requirement]:
    """The packages of a lock by name; each must have a hash."""
    entries = re.findall(r"^(\S+==.+?) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", _lock_text(name), re.M)
    return {str(canonicalize_name(Requirement(line).name)): Requirement(line) for line, _ in entries}


def _lock_text(name: str) -> str:
    return (_ROOT / ".ci" / "locks" / f"{name}.txt").read_text()


def _names(requirements: Iterable[Requirement]) -> set[str]:
    return {str(canonicalize_name(requirement.name)) for requirement in requirements}


def _with_dependencies(requirements: Iterable[Requirement]) -> set[str]:
    """The names of packages that pip installs for these, as far as they are installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = str(canonicalize_name(requirement.name))
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for each in needed:
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(each, option) for option in ("", *each.extras)]
    return {name for name, _ in found}


def _imports(folder: str) -> set[str]:
    """Every module that a folder's code names in an import, also inside functions."""
    return {name for path in (_ROOT / folder).rglob("*.py") for name in _imports_of(ast.parse(path.read_bytes()))}


def _imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_a_server_has_no_tools_of_the_tests_but_the_runner() -> None:
    server, tools = _names(_read_requirements("requirements.txt")), _names(_read_requirements("tests/requirements.txt"))
    assert {"pytest", "pytest-asyncio"} <= server
    assert not server & tools
    assert not _with_dependencies(_read_requirements("requirements.txt")) & {"playwright", "schemathesis", "hypothesis"}


def test_every_requirement_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-local.txt", "tests/requirements.txt", ".ci/requirements.txt"):
        for requirement in _read_requirements(name):
            assert str(requirement.specifier).startswith("=="), (name, requirement)


def test_a_server_can_do_all_its_work_without_the_tools_of_the_tests() -> None:
    allowed = _read_lock("server").keys() | _read_lock("local").keys()
    owners = packages_distributions()
    blocked = {
        module for module, names in owners.items() if not allowed & {str(canonicalize_name(name)) for name in names}
    }
    assert {"playwright", "schemathesis", "hypothesis", "jiwer"} <= blocked
    modules = {name for name in _imports("app") | _imports("db") if name.partition(".")[0] != "tests"}
    modules -= {"msvcrt"}
    text = " ".join(blocked) + "|" + " ".join(modules)
    result = subprocess.run(
        [sys.executable, "-c", _IMPORTS], cwd=_ROOT, input=text, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("run", ["server", "local"]),
        ("import", ["server", "local"]),
        ("test", ["server", "local", "tests"]),
        ("types", ["server", "local", "tests", "tools"]),
        ("lock", ["supply"]),
    ],
)
def test_a_target_installs_what_it_needs_and_no_more(target: str, files: list[str]) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    shown = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    installed = " ".join(re.findall(r"app/embedded/install\.py (.+)", shown)).split()
    assert installed == [f".ci/locks/{name}.txt" for name in files]


@pytest.mark.parametrize("name", _LOCKS)
def test_a_lock_is_that_of_its_requirements(name: str) -> None:
    digest = runpy.run_path(str(_ROOT / ".ci" / "lock.py"))["digest_requirements"](_LOCKS[name])
    assert f"# requirements: {digest}\n" in _lock_text(name), f"{_LOCKS[name]} has changed: run `make lock`"
    locked = {key: entry for each in _LOCKS for key, entry in _read_lock(each).items()}
    for requirement in _read_requirements(_LOCKS[name]):
        pinned = locked[str(canonicalize_name(requirement.name))]
        assert requirement.specifier.contains(str(pinned.specifier).removeprefix("==")), (requirement, pinned)


@pytest.mark.parametrize("name", _LOCKS)
def test_a_lock_has_nothing_but_pinned_packages_and_hashes(name: str) -> None:
    entry = r"\S+==\S+(?: ; .+?)? \\\n(?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    assert re.fullmatch(rf"(?:#.*\n){{2}}(?:{entry})+", _lock_text(name))


def test_no_two_locks_of_one_environment_differ_in_a_version() -> None:
    seen: dict[str, str] = {}
    for name in ("server", "local", "tests", "tools", "bench"):
        for key, entry in _read_lock(name).items():
            assert seen.setdefault(key, str(entry.specifier)) == str(entry.specifier), key


def test_everything_that_is_locked_is_what_is_installed_here() -> None:
    for name in ("server", "local", "tests"):
        for key, entry in _read_lock(name).items():
            if entry.marker is None or entry.marker.evaluate():
                assert entry.specifier.contains(version(key)), entry


@pytest.mark.parametrize(
    ("version", "accepted", "found"),
    [("0.49.0", {}, ["starlette 0.49.0: CVE-1"]), ("0.49.1", {}, []), ("0.49.0", {"accepted": "no ranges here"}, [])],
)
def test_the_audit_finds_a_version_that_an_advisory_names(
    version: str, accepted: dict[str, str], found: list[str], tmp_path: Path
) -> None:
    audit = runpy.run_path(str(_ROOT / ".ci" / "audit.py"))
    lock = tmp_path / "lock.txt"
    lock.write_text(f"starlette=={version} \\\n    --hash=sha256:{'0' * 64}\nuvicorn==1.0 ; python_version < '4' \\\n")
    locked = audit["read_locked"]([lock])
    assert locked == {"starlette": version, "uvicorn": "1.0"}
    advisory = {"package": "starlette", "affected": "<0.49.1", "ids": ["CVE-1"], **accepted}
    assert list(audit["find_affected"](locked, [advisory])) == found


def _install_stub(folder: Path, digest: str) -> subprocess.CompletedProcess[str]:
    """Install the wheel `stub` of a folder by a lock that names its hash."""
    wheel, info = folder / "stub-1.0-py3-none-any.whl", "stub-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("stub.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "lock.txt").write_text(f"stub==1.0 --hash=sha256:{digest}\n")
    environment = dict(os.environ, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder), PIP_TARGET=str(folder / "target"))
    command = [sys.executable, str(_ROOT / "app" / "embedded" / "install.py"), "lock.txt"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_wheel_with_the_hash_of_its_lock_is_installed(tmp_path: Path) -> None:
    assert _install_stub(tmp_path, "").returncode == 0
    assert (tmp_path / "target" / "stub.py").exists()


def test_a_wheel_with_another_hash_is_refused_in_a_sentence(tmp_path: Path) -> None:
    result = _install_stub(tmp_path, "0" * 64)
    assert result.returncode == 1
    assert "stub 1.0 was refused: the file's SHA-256 " in result.stdout
    assert " is not in the lock. Nothing was installed." in result.stdout
    assert not (tmp_path / "target").exists()


def test_a_package_without_a_wheel_is_named_in_a_sentence() -> None:
    said = ["ERROR: No matching distribution found for uvloop==0.23.0\n"]
    assert re.fullmatch(
        r"uvloop 0\.23\.0 has no wheel for Python 3\.\d+ on \S+ \S+ here\. Nothing was installed\.",
        explain_pip_failure(said),
    )


def test_an_installation_shows_each_package_once() -> None:
    lines = [
        "Looking in indexes: https://pypi.org/simple",
        "Collecting fastapi==0.165.0 (from -r requirements.txt (line 4))",
        "  Downloading fastapi-0.165.0-py3-none-any.whl.metadata (28 kB)",
        "WARNING: Location is ignored: it is neither a file nor a directory.",
        "Processing ./wheels/psycopg_binary-3.3.9-cp311-cp311-manylinux_2_28_x86_64.whl",
        "Requirement already satisfied: pip",
        "Downloading fastapi-0.165.0-py3-none-any.whl (159 kB)",
        "Using cached fastapi-0.165.0-py3-none-any.whl (159 kB)",
        "Downloading segtok-1.5.11-py3-none-any.whl (25 kB)",
        "Installing collected packages: psycopg-binary, fastapi, segtok",
        "Successfully installed fastapi-0.165.0 psycopg-binary-3.3.9 segtok-1.5.11",
    ]
    assert list(summarize_pip_output(lines, "requirements.txt")) == [
        "  psycopg-binary 3.3.9",
        "  fastapi 0.165.0 (159 kB)",
        "  segtok 1.5.11 (25 kB)",
        "  writing 3 packages …",
    ]


def test_an_installation_that_fails_shows_why_and_fails(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("./no-such-package\n")
    command = [sys.executable, str(_ROOT / "app" / "embedded" / "install.py"), "lock.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no-such-package" in result.stdout
    assert "lock.txt could not be installed; the same command tries it again" in result.stdout
