"""Files beneath a folder, reached name by name, so that no symbolic link leads out of it on the way."""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from app.core.errors import FileMissing

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Without O_NONBLOCK, opening a named pipe would wait for somebody to write into it.
_FILE = os.O_RDONLY | _SAFE | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = os.O_RDONLY | _SAFE | getattr(os, "O_DIRECTORY", 0)


def path_of(url: str) -> Path:
    """Return the path that a `file:///` URL names. Raises `ValueError` for one that names none, or takes detours."""
    parts = urlsplit(url)
    if not url.startswith("file:/") or not url.isprintable() or parts.netloc not in ("", "localhost"):
        raise ValueError("not a file:/// address")
    if "?" in url or "#" in url:  # in a path they are written %3F and %23
        raise ValueError("not an address of a file alone")
    names = os.fsdecode(unquote_to_bytes(parts.path)).split("/")
    if names[0] or {"", ".", ".."} & set(names[1:]) or any("\0" in name for name in names):
        raise ValueError("not a path without detours")
    return Path("/", *names)


def names_below(folder: Path, path: Path) -> tuple[str, ...]:
    """Return the names that lead from a folder to a path, none where it does not lie beneath the folder."""
    depth = len(folder.parts)
    return path.parts[depth:] if path.parts[:depth] == folder.parts else ()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder's or lies beneath it, by its name or where links lead; it looks at the file system."""
    return path.is_relative_to(folder) or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@contextlib.contextmanager
def open_folder(root: Path, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open a folder beneath `root`; with `create`, make it. Raises `OSError`, also where a link is on the way."""
    if create:
        root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, _FOLDER & ~_SAFE)
    try:
        for part in parts:
            if create and _make_folder(part, descriptor):
                os.fsync(descriptor)
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(root: Path, parts: Sequence[str]) -> int:
    """Open a regular file beneath `root` and return its descriptor. Raises `OSError` or `FileMissing`."""
    with open_folder(root, parts[:-1]) as folder:
        descriptor = os.open(parts[-1], _FILE, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileMissing
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_file(root: Path, parts: Sequence[str]) -> bool:
    """Remove a regular file beneath `root`, and the folders that are empty then. False where there is no such file."""
    with open_folder(root, parts[:-1]) as folder:
        if not stat.S_ISREG(os.lstat(parts[-1], dir_fd=folder).st_mode):
            return False
        os.unlink(parts[-1], dir_fd=folder)
        os.fsync(folder)
    with contextlib.suppress(OSError):  # not empty
        for depth in range(len(parts) - 1, 0, -1):
            with open_folder(root, parts[: depth - 1]) as folder:
                os.rmdir(parts[depth - 1], dir_fd=folder)
    return True


def _make_folder(name: str, within: int) -> bool:
    try:
        os.mkdir(name, dir_fd=within)
    except FileExistsError:
        return False
    return True
