"""Copies a file into a folder atomically, and resumes an interrupted copy."""

import contextlib
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from app.core.errors import Conflict, FileMissing, StorageFull, StorageUnavailable
from app.storage.file_system import (
    check_free_space,
    open_file_below,
    open_folder_below,
    translate_read_errors,
    translate_write_errors,
)
from app.storage.incoming import IncomingFolder
from app.storage.keys import split_key

_COPY_CHUNK_BYTES = 1024 * 1024
_PUBLISH_ATTEMPTS = 10


class FolderUpload:
    """Copies one local file into a folder store, in a thread; any thread may stop it."""

    def __init__(
        self, root: Path, incoming: IncomingFolder, key: str, source: Path, progress: Callable[[int], None]
    ) -> None:
        self._root = root
        self._parts = split_key(key)
        self._incoming = incoming
        self._key = key
        self._source = source
        self._progress = progress
        self._stopping = threading.Event()

    def request_stop(self) -> None:
        """Make `run` raise soon; the next copy of the file continues where this one stopped."""
        self._stopping.set()

    def run(self) -> None:
        """Copy the file, or move a received one.

        Raises `FileMissing`, `StorageFull`, `StorageUnavailable` and `Conflict`.
        """
        with open_source_file(self._source) as source, translate_write_errors():
            if self._source.parent == self._incoming.path and os.name == "posix":
                os.fsync(source.fileno())
                self._move_into_place(self._source)
                self._progress(os.fstat(source.fileno()).st_size)
            else:
                self._copy_into_folder(source)

    def _copy_into_folder(self, source: io.FileIO) -> None:
        with self._incoming.open_draft(self._key, self._source, self._stopping) as (draft, path):
            try:
                if self._is_same_file_stored(source):
                    path.unlink()
                    self._progress(os.fstat(source.fileno()).st_size)
                    return
                self._write_draft(draft, source)
                os.fsync(draft)
                self._move_into_place(path)
            except (OSError, StorageFull):
                path.unlink(missing_ok=True)  # frees the space on a full disk
                raise

    def _is_same_file_stored(self, source: io.FileIO) -> bool:
        try:
            stored = io.FileIO(open_file_below(self._root, self._parts))
        except (FileMissing, OSError):
            return False
        with stored:
            size = os.fstat(source.fileno()).st_size
            return os.fstat(stored.fileno()).st_size == size and self._count_equal_bytes(source, stored) == size

    def _count_equal_bytes(self, source: io.FileIO, other: io.FileIO) -> int:
        """Return the length of the common beginning of both files, in whole chunks."""
        equal = 0
        source.seek(0)
        other.seek(0)
        while chunk := other.read(_COPY_CHUNK_BYTES):
            self._raise_if_stopping()
            if source.read(len(chunk)) != chunk:
                break
            equal += len(chunk)
        return equal

    def _write_draft(self, draft: int, source: io.FileIO) -> None:
        before = os.fstat(source.fileno())
        with io.FileIO(draft, "r+", closefd=False) as file:
            done = self._count_equal_bytes(source, file)
            file.truncate(done)
            check_free_space(self._root, before.st_size - done, "the file")
            file.seek(done)
            source.seek(done)
            self._progress(done)
            buffer = memoryview(bytearray(_COPY_CHUNK_BYTES))
            while done <= before.st_size and (count := _read_chunk(source, buffer)):
                self._raise_if_stopping()
                _write_all_bytes(file, buffer[:count])
                self._progress(count)
                done += count
        after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (done, after.st_mtime_ns):
            raise Conflict(f"{self._source.name} changed while it was copied")

    def _move_into_place(self, path: Path) -> None:
        for _ in range(_PUBLISH_ATTEMPTS):
            try:
                with open_folder_below(self._root, self._parts[:-1], create=True) as folder:
                    os.replace(path, self._parts[-1], dst_dir_fd=folder)
                    os.fsync(folder)
                return
            except FileNotFoundError:  # the folder was empty, and a deletion took it away
                if not path.exists():
                    break
        raise FileMissing

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise StorageUnavailable("The server is stopping")


@contextlib.contextmanager
def open_source_file(path: Path) -> Iterator[io.FileIO]:
    """Open a local file to be stored. Raises `FileMissing`, also for anything but a regular file."""
    with translate_read_errors():
        file = io.FileIO(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)))
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileMissing
        yield file


def _read_chunk(source: io.FileIO, buffer: memoryview) -> int:
    with translate_read_errors():
        return source.readinto(buffer) or 0


def _write_all_bytes(file: io.FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) or 0 :]
