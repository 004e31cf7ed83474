"""What is installed for whom: a server never needs the tools of its tests."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.embedded.install import describe_progress

_ROOT = Path(__file__).resolve().parents[1]

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
    allowed = _with_dependencies(_read_requirements("requirements.txt"))
    allowed |= _names(_read_requirements("requirements-local.txt"))
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
        ("run", ["requirements.txt", "requirements-local.txt"]),
        ("import", ["requirements.txt", "requirements-local.txt"]),
        ("test", ["requirements.txt", "requirements-local.txt", "tests/requirements.txt"]),
        ("types", ["requirements.txt", "requirements-local.txt", "tests/requirements.txt", ".ci/requirements.txt"]),
    ],
)
def test_a_target_installs_what_it_needs_and_no_more(target: str, files: list[str]) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    shown = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"app/embedded/install\.py (?:--no-deps )?(\S+)", shown) == files


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
        "Downloading segtok-1.5.11.tar.gz (25 kB)",
        "Installing collected packages: psycopg-binary, fastapi, segtok",
        "Successfully installed fastapi-0.165.0 psycopg-binary-3.3.9 segtok-1.5.11",
    ]
    assert list(describe_progress(lines, "requirements.txt")) == [
        "  psycopg-binary 3.3.9",
        "  fastapi 0.165.0 (159 kB)",
        "  segtok 1.5.11 (25 kB)",
        "  writing 3 packages …",
    ]


def test_an_installation_that_fails_shows_why_and_fails(tmp_path: Path) -> None:
    needs = tmp_path / "requirements.txt"
    needs.write_text("./no-such-package\n")
    command = [sys.executable, str(_ROOT / "app" / "embedded" / "install.py"), "--no-index", "requirements.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no-such-package" in result.stdout
    assert "requirements.txt could not be installed; the same command tries it again" in result.stdout
