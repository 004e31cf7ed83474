"""File access below a folder without following symbolic links, file locks, free space, and the errors of all three."""

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from app.core.errors import FileMissing, StorageFull, StorageUnavailable

_log = logging.getLogger(__name__)

_MISSING_FILE_ERRORS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,  # a socket
    errno.EINVAL,
}
_FULL_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translate_read_errors(*, action: str = "read") -> Iterator[None]:
    """Raise `FileMissing` or `StorageUnavailable` for an `OSError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _MISSING_FILE_ERRORS:
            raise FileMissing from None
        _log.warning("A file cannot be %s: %s", action, error)
        raise StorageUnavailable(f"The file cannot be {action}: {_os_error_message(error)}") from None


@contextmanager
def translate_write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_disk_full_error(error):
            raise StorageFull(f"There is no room for the file: {_os_error_message(error)}") from None
        _log.warning("The folder of stored files cannot be written: %s", error)
        raise StorageUnavailable(f"The folder of stored files cannot be written: {_os_error_message(error)}") from None


def is_disk_full_error(error: OSError) -> bool:
    return error.errno in _FULL_DISK_ERRORS


def _os_error_message(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "unknown error"


_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Without O_NONBLOCK, opening a named pipe would wait for a writer.
_OPEN_FILE = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_OPEN_FOLDER = os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_DIRECTORY", 0)


def path_from_url(url: str) -> Path:
    """Return the path of a `file:///` URL. Raises `ValueError` for other URLs and for paths with `..`."""
    parts = urlsplit(url)
    if not url.startswith("file:/") or not url.isprintable() or parts.netloc not in ("", "localhost"):
        raise ValueError("not a file:/// address")
    if "?" in url or "#" in url:  # in a path they are written %3F and %23
        raise ValueError("not an address of a file alone")
    names = os.fsdecode(unquote_to_bytes(parts.path)).split("/")
    if names[0] or {"", ".", ".."} & set(names[1:]) or any("\0" in name for name in names):
        raise ValueError("not a path without detours")
    return Path("/", *names)


def parts_below(folder: Path, path: Path) -> tuple[str, ...]:
    """Return the parts of a path below a folder, or none where it is not below it."""
    depth = len(folder.parts)
    return path.parts[depth:] if path.parts[:depth] == folder.parts else ()


def is_inside_folder(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or below it, by name or after resolving links. It blocks."""
    return path.is_relative_to(folder) or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@contextlib.contextmanager
def open_folder_below(root: Path, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open a folder below `root` and yield its descriptor; with `create`, make it.

    Raises `OSError`, also for a symbolic link on the way.
    """
    if create:
        root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, _OPEN_FOLDER & ~_NO_FOLLOW)
    try:
        for part in parts:
            if create and _make_folder_if_missing(part, descriptor):
                os.fsync(descriptor)
            inner = os.open(part, _OPEN_FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file_below(root: Path, parts: Sequence[str]) -> int:
    """Open a regular file below `root` and return its descriptor. Raises `OSError` or `FileMissing`."""
    with open_folder_below(root, parts[:-1]) as folder:
        descriptor = os.open(parts[-1], _OPEN_FILE, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileMissing
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def remove_file_below(root: Path, parts: Sequence[str]) -> bool:
    """Remove a regular file below `root` and the folders it leaves empty. Return False where there is none."""
    with open_folder_below(root, parts[:-1]) as folder:
        if not stat.S_ISREG(os.lstat(parts[-1], dir_fd=folder).st_mode):
            return False
        os.unlink(parts[-1], dir_fd=folder)
        os.fsync(folder)
    with contextlib.suppress(OSError):  # not empty
        for depth in range(len(parts) - 1, 0, -1):
            with open_folder_below(root, parts[: depth - 1]) as folder:
                os.rmdir(parts[depth - 1], dir_fd=folder)
    return True


def _make_folder_if_missing(name: str, parent_descriptor: int) -> bool:
    try:
        os.mkdir(name, dir_fd=parent_descriptor)
    except FileExistsError:
        return False
    return True


# Space that stays free for other programs: a share of the disk, at most so many bytes.
_RESERVE_BYTES, _RESERVE_SHARE = 1024**3, 0.05
_UNITS = ("bytes", "kB", "MB", "GB")


def check_free_space(folder: Path, needed_bytes: float, purpose: str) -> None:
    """Raise `StorageFull` where a file does not fit on the disk of a folder, which need not exist yet. It blocks.

    `purpose` names the file in the error ("the audio of the video").
    """
    try:
        free, total = measure_disk(folder)
    except OSError:  # a disk that does not report its free space counts as large enough
        return
    available = max(free - min(_RESERVE_BYTES, total * _RESERVE_SHARE), 0.0)
    if needed_bytes > available:
        raise StorageFull(
            f"There is no room for {purpose}: {_format_size(needed_bytes)} are needed, "
            f"and {_format_size(available)} of the disk may be used"
        )


def measure_disk(folder: Path) -> tuple[int, int]:
    """Return the free and the total bytes of the disk of a folder. Raises `OSError`."""
    existing = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    usage = shutil.disk_usage(existing)
    return usage.free, usage.total


def _format_size(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


_POLL_SECONDS = 0.02

if sys.platform == "win32":

    def try_file_lock(descriptor: int) -> bool:
        return True  # no lock leaves the file readable there: one process at a time is taken for granted

else:
    import fcntl

    def try_file_lock(descriptor: int) -> bool:
        """Lock an open file until it is closed; False where another one has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def wait_for_file_lock(descriptor: int, stopping: threading.Event) -> None:
    """Wait for the lock of an open file. Raises `StorageUnavailable` once `stopping` is set."""
    while not try_file_lock(descriptor):
        if stopping.wait(_POLL_SECONDS):
            raise StorageUnavailable("The server is stopping")


def is_open_file_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False
