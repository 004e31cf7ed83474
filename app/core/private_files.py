"""Files and folders that only their user can read: modes 0600 and 0700."""

import contextlib
import os
import stat
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.core.config import Settings

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_OPEN = os.O_RDONLY | _NO_FOLLOW | _CLOSE_ON_EXEC | getattr(os, "O_NONBLOCK", 0)
_MODE_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# This server's own files in DATA_DIR, by name up to the first dot. Others are the operator's.
_OWN_NAMES = frozenset({"postgres", "valkey", "media", "libraries", "work", "playable"})


def prepare_data_folder(settings: Settings) -> None:
    """Create DATA_DIR, and make it and this server's files in it private; follows no link. Raises `OSError`."""
    folder = settings.data_dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform == "win32" or _is_shared_folder(settings):
        return
    _make_path_private(folder, _OPEN & ~_NO_FOLLOW)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.split(".")[0] in _OWN_NAMES:
                if entry.is_dir(follow_symlinks=False) and (
                    entry.name == "valkey" or entry.stat(follow_symlinks=False).st_mode & _MODE_OF_OTHERS
                ):
                    _make_folder_contents_private(entry.path)
                _make_path_private(entry.path)  # last, so that what was interrupted is done again


def open_private_file(path: str, flags: int) -> int:
    """Open a file with mode 0600, also an existing one, and never through a link: an opener for `open()`."""
    descriptor = os.open(path, flags | _NO_FOLLOW | _CLOSE_ON_EXEC, 0o600)
    _make_descriptor_private(descriptor)
    return descriptor


def _make_folder_contents_private(folder: str) -> None:
    for _, names, files, within in os.fwalk(folder):
        for name in (*names, *files):
            _make_path_private(name, parent_descriptor=within)


def _make_path_private(path: str | Path, flags: int = _OPEN, *, parent_descriptor: int | None = None) -> None:
    with contextlib.suppress(OSError):  # a link, a socket, or of another user
        descriptor = os.open(path, flags, dir_fd=parent_descriptor)
        try:
            _make_descriptor_private(descriptor)
        finally:
            os.close(descriptor)


def _make_descriptor_private(descriptor: int) -> None:
    status = os.fstat(descriptor)
    if sys.platform == "win32" or not status.st_mode & _MODE_OF_OTHERS:
        return
    is_own = os.geteuid() in (0, status.st_uid)  # root closes those of the account that runs its servers, too
    has_other_names = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    if is_own and not has_other_names:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_MODE_OF_OTHERS)


def _is_shared_folder(settings: Settings) -> bool:
    """Return whether others use DATA_DIR: `/tmp`, a home, or a folder around the working folder or media."""
    folder = settings.data_dir.resolve()
    inside = [Path(os.path.expanduser("~")), Path.cwd(), *settings.library_dirs]
    if settings.storage_url and settings.storage_url.startswith("file:"):
        inside.append(Path(unquote(urlsplit(settings.storage_url).path)))
    is_sticky = bool(folder.stat().st_mode & stat.S_ISVTX)
    return is_sticky or any(path.resolve().is_relative_to(folder) for path in inside)
